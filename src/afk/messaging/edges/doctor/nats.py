"""A NATS system: its JetStream, the namespace's stream, how much room there is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from afk.messaging.connect import NATS_CONNECTION
from afk.messaging.edges.doctor.finding import Finding, bad, good, warning
from afk.messaging.stores.nats.stream import Names, api, info
from afk.messaging.stores.nats.url import place_at

FULL = 0.8


async def look(url: str, options: Mapping[str, str]) -> AsyncIterator[Finding]:
    """What the server that answers tells."""
    own = {name: value for name, value in options.items() if name in NATS_CONNECTION}
    place = place_at(url.partition("?")[0], own)
    client = await place.connect("afk doctor")
    try:
        yield good(f"server {client.connected_server_version}")
        for finding in _room(json.loads(await api(client, "INFO"))):
            yield finding
        names = Names(options.get("namespace", "afk"))
        stream = await info(client, names)
        held = stream.state.last_seq - stream.state.first_seq + 1
        yield good(f"stream {names.log} holds {held:,} steps")
        if stream.config.num_replicas == 1 and len(place.others) > 1:
            yield warning(
                f"stream {names.log} has one replica in a cluster: with its server it is gone",
                f"nats stream edit {names.log} --replicas 3, or ?replicas=3 before it is made",
            )
    finally:
        await place.leave(client)


def _room(account: dict[str, Any]) -> Iterator[Finding]:
    most, used = account.get("limits", {}).get("max_storage", -1), account.get("storage", 0)
    if most > 0 and used > FULL * most:
        yield bad(
            f"{used / most:.0%} of the account's storage is used; when it is full, sends fail",
            "raise its limit, or lower history and retention",
        )
    else:
        yield good(f"{used / 1e6:.0f} MB are stored")
