"""What Sentinels say: which server is the primary, and when another one is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from ...log import log

Address = tuple[str, int]

ANSWER_SECONDS = 1.0
PAUSE = 1.0
"""Seconds until a Sentinel that is gone is asked again."""
SWITCH = "+switch-master"


class Watchers(Struct, frozen=True):
    """The Sentinels of one primary."""

    addresses: tuple[Address, ...]
    service: str
    settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Watchers({self.addresses!r}, {self.service!r})"

    def options(self) -> dict[str, Any]:
        """For a client: it asks once, and does not wait long."""
        return {
            "socket_connect_timeout": ANSWER_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            **self.settings,
        }

    async def primary(self) -> Address:
        """The address of the primary now."""
        options = {"socket_timeout": ANSWER_SECONDS, **self.options()}
        sentinel = Sentinel(list(self.addresses), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        try:
            host, port = await sentinel.discover_master(self.service)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return host, int(port)


class Lookout:
    """Listens to every Sentinel, and tells of a new primary.

    A planned failover leaves the old primary taking writes, which are lost, until it is told to be
    a replica: who waits for an error hears too late. See "Guidelines for Redis clients with
    support for Redis Sentinel", redis.io.
    """

    def __init__(self, watchers: Watchers, switched: Callable[[Address], None]) -> None:
        self._watchers = watchers
        self._switched = switched
        self._tasks = [asyncio.create_task(self._listen(each)) for each in watchers.addresses]

    async def close(self) -> None:
        """Listen no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _listen(self, address: Address) -> None:
        while True:
            host, port = address
            options = {**self._watchers.options(), "socket_timeout": None}
            client = Redis(host=host, port=port, **options)
            try:
                await self._hear(client)
            except Exception as error:  # noqa: BLE001 - the others are listened to meanwhile
                log.debug("a Sentinel at %s:%d is not heard: %s", host, port, error)
            finally:
                await client.aclose()
            await asyncio.sleep(PAUSE)

    async def _hear(self, client: Redis) -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as events:
            await events.subscribe(SWITCH)
            while True:
                event = await events.get_message(timeout=60.0)
                if event is None:
                    await events.ping()  # a connection that is dead says so
                elif event["type"] == "message":
                    service, _, _, host, port = event["data"].decode().split(" ")
                    if service == self._watchers.service:
                        self._switched((host, int(port)))
