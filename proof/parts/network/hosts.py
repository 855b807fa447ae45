"""A host is a network namespace, joined to that of the server by a pair of virtual interfaces."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NETWORK = ipaddress.IPv4Network("198.18.0.0/15")
"""For measurements of networks (RFC 2544): nobody's addresses."""
TABLE = "inet", "bad"
PLACE = Path("/run/netns")


def lacks() -> str:
    """What keeps hosts from being made here; "" if nothing does."""
    if not hasattr(os, "geteuid"):
        return "network namespaces need Linux"
    tools = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if tools:
        return f"{' and '.join(tools)} not found; to get it: apt-get install iproute2 nftables"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return ""


def enter(name: str) -> None:
    """Have this process, which is to have one thread, be on the host of this name."""
    handle = os.open(PLACE / name, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, 0) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {name}")
    finally:
        os.close(handle)


class Host:
    """A host with one wire to the server; it is there as long as its block lasts.

    here, there: the addresses of the two ends of the wire.
    """

    def __init__(self, number: int, here: str, there: str) -> None:
        self.name = f"afk-{os.getpid()}-{number}"
        self._wire = f"afk{os.getpid()}x{number}"
        self.here, self.there = here, there
        self._bad = False

    def __enter__(self) -> Host:
        try:
            self._set_up()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._tear_down()

    def drop(self, *, out: str = "", back: str = "") -> None:
        """Lose the packets that match, from the host and to it: `drop`, or a match before it."""
        self.heal()
        self._bad = True
        rules = [f"add table {' '.join(TABLE)}"]
        for hook, side, rule in (("output", "oifname", out), ("input", "iifname", back)):
            if rule:
                chain = f"{' '.join(TABLE)} {hook}"
                rules.append(f"add chain {chain} {{ type filter hook {hook} priority 0; }}")
                rules.append(f'add rule {chain} {side} != "lo" {rule}')
        self.tell("nft", "; ".join(rules))

    def heal(self) -> None:
        """Packets flow again."""
        if self._bad:
            self._bad = False
            self.tell("nft", "delete", "table", *TABLE)

    def _set_up(self) -> None:
        inner = f"{self._wire}i"
        tell("ip", "netns", "add", self.name)
        tell("ip", "link", "add", self._wire, "type", "veth", "peer", "name", inner)
        tell("ip", "link", "set", inner, "netns", self.name)
        tell("ip", "address", "add", f"{self.there}/30", "dev", self._wire)
        tell("ip", "link", "set", self._wire, "up")
        self.tell("ip", "address", "add", f"{self.here}/30", "dev", inner)
        self.tell("ip", "link", "set", inner, "up")
        self.tell("ip", "link", "set", "lo", "up")

    def _tear_down(self) -> None:
        for command in (("link", "del", self._wire), ("netns", "del", self.name)):
            with suppress(RuntimeError):  # what was not made is not there
                tell("ip", *command)

    def tell(self, *command: str) -> str:
        """Run a command on this host."""
        return tell("ip", "netns", "exec", self.name, *command)


def tell(*command: str) -> str:
    """Run a command of the system, which must succeed; what it prints."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def free_pairs() -> Iterator[tuple[str, str]]:
    """Pairs of addresses, each in a network that this machine has no route into."""
    routes = tell("ip", "route", "show", "table", "all")
    taken = []
    for word in routes.split():
        with suppress(ValueError):
            taken.append(ipaddress.IPv4Network(word, strict=False))
    first = os.getpid() % 20_000  # another run begins elsewhere
    for number, network in enumerate(NETWORK.subnets(new_prefix=30)):
        if number >= first and not any(map(network.overlaps, taken)):
            there, here = network.hosts()
            yield str(there), str(here)
