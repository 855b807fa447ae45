"""The rules of a store as a plain object, for stores that keep everything in memory: the memory
store itself, and NATS, whose processes replay a log of steps into it."""

from .ledger import Ledger as Ledger
