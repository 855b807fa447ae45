"""The PostgreSQL store: functions in the database, one ordered lane to them."""

from .store import PostgresA2ADeliveryStore as PostgresA2ADeliveryStore
