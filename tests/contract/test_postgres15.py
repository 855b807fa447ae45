from .contract import contract_of
from .subjects import Postgres15

test_contract = contract_of(Postgres15)
