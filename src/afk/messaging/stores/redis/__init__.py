"""The Redis store."""

from .store import RedisA2ADeliveryStore as RedisA2ADeliveryStore
