from .contract import contract_of
from .subjects import NATS

test_contract = contract_of(NATS)
