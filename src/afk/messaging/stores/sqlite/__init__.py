"""The SQLite store: one file, several processes, no daemon."""

from .store import SQLiteA2ADeliveryStore as SQLiteA2ADeliveryStore
