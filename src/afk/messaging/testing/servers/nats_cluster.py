"""Several NATS servers that keep the same streams."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from .group import Group
from .nats import NATS
from .process import HOST, PATIENCE, Option, ServerError, free_ports, until


class NATSCluster(Group):
    """Nodes with routes between them. config, jetstream: for each node, as `NATS` takes them."""

    def __init__(
        self,
        binary: str | Path,
        folder: str | Path,
        config: str = "",
        *,
        size: int = 3,
        **jetstream: Option,
    ) -> None:
        ports = free_ports(2 * size)
        ports, doors = ports[:size], ports[size:]
        routes = ", ".join(f"nats://{HOST}:{door}" for door in doors)
        self.nodes = [
            NATS(
                binary,
                Path(folder) / f"node-{number}",
                f"{config}\ncluster {{ name: afk, listen: {HOST}:{door}, routes: [{routes}] }}",
                port=port,
                **jetstream,
            )
            for number, (port, door) in enumerate(zip(ports, doors, strict=True), 1)
        ]

    @property
    def url(self) -> str:
        """All nodes, with commas between them."""
        return ",".join(node.url for node in self.nodes)

    def leader(self) -> NATS:
        """The node that decides where streams are kept, as the first one that answers has it."""
        by_name = {node.name: node for node in self.nodes}
        for node in self.nodes:
            with suppress(OSError, KeyError):
                return by_name[_meta(node)["leader"]]
        raise ServerError("there is no leader")

    def until_ok(self, timeout: float = PATIENCE) -> None:
        """Wait until all nodes that run are well, and follow one of them."""
        until(self._whole, "the cluster is whole", timeout)

    def _members(self) -> list[NATS]:
        return self.nodes

    def _form(self) -> None:
        for node in self.nodes:
            node.start()
        self.until_ok()

    def _whole(self) -> bool:
        alive = {node.name: node for node in self.nodes if node.running}
        for node in alive.values():
            node.monitor("healthz")
        leaders = {_meta(node).get("leader") for node in alive.values()}
        if len(leaders) != 1 or not leaders <= alive.keys():
            return False
        replicas = _meta(alive[str(leaders.pop())])["replicas"]
        current = {replica["name"] for replica in replicas if replica["current"]}
        return len(alive.keys() - current) == 1  # the leader


def _meta(node: NATS) -> dict[str, Any]:
    return dict(node.monitor("jsz")["meta_cluster"])
