"""A cluster: three masters that share the slots."""

from __future__ import annotations

from pathlib import Path

from .group import Group, first_answer
from .process import Option, until
from .resp import fields
from .server import Server

SLOTS = 16_384


class Cluster(Group):
    """Three masters, no replicas. options: settings for every node, as `Server` takes them."""

    def __init__(self, binary: str | Path, folder: str | Path, **options: Option) -> None:
        settings: dict[str, Option] = {"cluster_enabled": "yes", "cluster_node_timeout": 2000}
        folders = [Path(folder) / f"node-{number}" for number in (1, 2, 3)]
        secret = options.get("requirepass")
        self._auth = () if secret is None else ("AUTH", str(secret))
        self.nodes = [Server(binary, place, **(settings | options)) for place in folders]

    @property
    def url(self) -> str:
        """Any node leads to the others."""
        return self.nodes[0].url

    def slot(self, key: str) -> int:
        """The slot of a key."""
        return int(first_answer(self.nodes, "CLUSTER", "KEYSLOT", key))

    def owner(self, slot: int) -> Server:
        """The node that serves the slot; while it migrates, the one that gives it away."""
        for first, last, (_, port, *_), *_ in first_answer(self.nodes, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"nobody serves slot {slot}")

    def migrate(self, slot: int, target: Server) -> None:
        """Give a slot with its keys to another node, in the three steps below."""
        self.begin_migration(slot, target)
        self.move_keys(slot, target)
        self.end_migration(slot, target)

    def begin_migration(self, slot: int, target: Server) -> None:
        """From now on the owner answers ASK for keys of the slot that it does not have."""
        source = self.owner(slot)
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))

    def move_keys(self, slot: int, target: Server, count: int | None = None) -> list[str]:
        """Move so many keys of the slot, or all; returns which."""
        source = self.owner(slot)
        most = source.call("CLUSTER", "COUNTKEYSINSLOT", slot) if count is None else count
        keys: list[str] = source.call("CLUSTER", "GETKEYSINSLOT", slot, most)
        if keys:
            there = (target.host, target.port, "", 0, 5000)
            source.call("MIGRATE", *there, *self._auth, "KEYS", *keys)
        return keys

    def end_migration(self, slot: int, target: Server) -> None:
        """Its keys moved, the slot is the target's: the other nodes answer MOVED."""
        source = self.owner(slot)
        others = [node for node in self.nodes if node not in {source, target}]
        for node in (target, source, *others):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", _id(target))

    def until_ok(self, timeout: float = 20.0) -> None:
        """Wait until all nodes know each other and every slot is served."""
        until(lambda: all(map(_whole, self.nodes)), "the cluster is whole", timeout)

    def _members(self) -> list[Server]:
        return self.nodes

    def _form(self) -> None:
        share = -(-SLOTS // len(self.nodes))
        for number, node in enumerate(self.nodes):
            node.start()
            first, end = number * share, min((number + 1) * share, SLOTS)
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.call("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for node in self.nodes[1:]:
            node.call("CLUSTER", "MEET", self.nodes[0].host, self.nodes[0].port)
        self.until_ok()


def _id(node: Server) -> str:
    return str(node.call("CLUSTER", "MYID"))


def _whole(node: Server) -> bool:
    info = fields(node.call("CLUSTER", "INFO"))
    served = info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS)
    return served and info["cluster_known_nodes"] == "3"
