from .contract import contract_of
from .subjects import RedisCluster

test_contract = contract_of(RedisCluster)
