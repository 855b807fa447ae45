"""The NATS store."""

from .store import NATSA2ADeliveryStore as NATSA2ADeliveryStore
