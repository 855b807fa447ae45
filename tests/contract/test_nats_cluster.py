from .contract import contract_of
from .subjects import NATSCluster

test_contract = contract_of(NATSCluster)
