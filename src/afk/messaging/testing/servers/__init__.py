"""Real servers, as child processes on free ports of 127.0.0.1. Needs no container.

from afk.messaging.testing.servers import Postgres, Server, find

with Server(find("redis"), folder) as server:
    bus = connect(server.url)
    server.restart(kill=True)

with Postgres(find("postgres"), folder, synchronous_commit="off") as server:
    server.psql("SELECT 1")

A server, a cluster or a group with sentinels ends with its block, and with the interpreter.
"""

from .binaries import Kind, ServerMissingError, find
from .cluster import Cluster
from .nats import NATS
from .nats_cluster import NATSCluster
from .pgbouncer import PgBouncer
from .postgres import Postgres
from .process import Daemon, Option, ServerError, free_port
from .resp import CommandError, ask
from .sentinels import Sentinels
from .server import Server

__all__ = [
    "NATS",
    "Cluster",
    "CommandError",
    "Daemon",
    "Kind",
    "NATSCluster",
    "Option",
    "PgBouncer",
    "Postgres",
    "Sentinels",
    "Server",
    "ServerError",
    "ServerMissingError",
    "ask",
    "find",
    "free_port",
]
