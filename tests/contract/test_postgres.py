from .contract import contract_of
from .subjects import Postgres

test_contract = contract_of(Postgres)
