"""Real servers of Redis's kind, as child processes on free ports of 127.0.0.1. Needs no container.

from afk.messaging.testing.servers import Server, find

with Server(find("redis"), folder) as server:
    bus = connect(server.url)
    server.restart(kill=True)

A server, a cluster or a group with sentinels ends with its block, and with the interpreter.
"""

from .binaries import Kind, ServerMissingError, find
from .cluster import Cluster
from .process import Option, Server, ServerError, free_port
from .resp import CommandError, ask
from .sentinels import Sentinels

__all__ = [
    "Cluster",
    "CommandError",
    "Kind",
    "Option",
    "Sentinels",
    "Server",
    "ServerError",
    "ServerMissingError",
    "ask",
    "find",
    "free_port",
]
