from .contract import contract_of
from .subjects import Memory

test_contract = contract_of(Memory)
