from .contract import contract_of
from .subjects import SQLite

test_contract = contract_of(SQLite)
