from .contract import contract_of
from .subjects import Redis

test_contract = contract_of(Redis)
