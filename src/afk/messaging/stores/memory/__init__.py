"""The memory store."""

from .store import InMemoryA2ADeliveryStore as InMemoryA2ADeliveryStore
