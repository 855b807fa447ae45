from .contract import contract_of
from .subjects import Valkey

test_contract = contract_of(Valkey)
