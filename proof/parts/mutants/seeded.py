"""All of them."""

from . import core, nats, postgres, redis, sqlite
from .mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *core.SHARED,
    *core.LEDGER,
    *sqlite.SQLITE,
    *redis.REDIS,
    *postgres.POSTGRES,
    *nats.NATS,
)
