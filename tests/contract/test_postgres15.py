from .contract import contract_of
from .subjects import Postgres15

# What is decided in SQL, on the oldest server that is supported; the rest is the same client.
test_contract = contract_of(
    Postgres15,
    "directory",
    "inspection",
    "leases",
    "limits",
    "order",
    "requests",
    "retries",
    "sending",
    "settling",
    "threads",
    "turns",
)
