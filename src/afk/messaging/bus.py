"""The message bus: mailboxes over a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from types import TracebackType
from typing import Any, Self

from .core import Core
from .errors import ConfigurationError, InvalidMessageError
from .inspector import Inspector
from .mailbox import AgentMailbox
from .messages import BROADCAST, AgentMessage, check_name
from .posting import post, post_copies
from .receipts import Receipt
from .records import letter_record
from .settings import Settings
from .store import A2ADeliveryStore, Box, Capabilities, Durability
from .views import LETTERS
from .watching import Watcher


class MessageBus(Inspector):
    """Carries messages between named agents, over any store.

    It opens itself on first use, and belongs to the event loop of that; `async with` or
    `aclose()` ends it. Options: see `Settings`; durations in seconds, sizes in bytes.
    """

    def __init__(self, store: A2ADeliveryStore, **options: Any) -> None:
        if not isinstance(store, A2ADeliveryStore):
            raise ConfigurationError(
                f"store: {type(store).__name__} is no delivery store; see afk.messaging.store"
            )
        try:
            settings = Settings(**options)
        except TypeError:
            unknown = sorted(set(options) - set(Settings.__struct_fields__))
            raise ConfigurationError(
                f"unknown option {', '.join(unknown)}; the options are"
                f" {', '.join(Settings.__struct_fields__)}"
            ) from None
        super().__init__(Core(store, settings))

    # -- life ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._core.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Flush acks, drain callbacks, release the store. Idempotent."""
        await self._core.close()

    @property
    def capabilities(self) -> Capabilities:
        """What the store, as it is set up, gives; known once the bus was used."""
        return self._core.store.capabilities

    @property
    def durability(self) -> Durability:
        """What an accepted message survives: memory, process or disk."""
        return self.capabilities.durability

    def watch(self, watcher: Watcher) -> None:
        """Have a watcher see what this bus does, from now on: before mailboxes are served.

        See `afk.messaging.watching`; `afk.messaging.edges` has one for OpenTelemetry and one that
        writes a log.
        """
        self._core.watch(watcher)

    # -- agents --------------------------------------------------------------------------

    async def register(
        self, name: str, *, ordered: bool = False, capacity: int | None = None, type: Any = None
    ) -> AgentMailbox:
        """The mailbox of this name, created if there is none; idempotent.

        ordered: messages of one thread_id one at a time; capacity: how many messages it may
        hold; both are set when it is created. type: what contents are decoded into.
        """
        mailbox = AgentMailbox(self._core, name, type)
        await bind(self._core, name, ordered=ordered, capacity=capacity)
        return mailbox

    def mailbox(self, name: str) -> AgentMailbox:
        """The mailbox of this name, without creating it: to send as its agent, or to look into it.

        Whoever receives from it gets UnknownAgentError while nobody has registered the name.
        """
        return AgentMailbox(self._core, name)

    async def unregister(self, name: str) -> None:
        """No new mail is taken for it; what waits becomes dead letters (`unregistered`)."""
        await self._core.enter()
        if name not in (await self._core.agents()).boxes:
            raise await self._core.unknown(name)
        self._core.obituaries.report(await self._core.store.unbind(name))
        self._core.roster = None

    async def agents(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted((await self._core.agents()).boxes)

    # -- messages ------------------------------------------------------------------------

    async def deliver(
        self, message: AgentMessage, *, connection: Any = None
    ) -> Receipt[AgentMessage]:
        """Send a ready-made message; its id is its idempotency key.

        connection: a database connection of yours with an open transaction (PostgreSQL): the
        message is sent when you commit, and never if you roll back (a transactional outbox).
        """
        if not isinstance(message, AgentMessage):
            raise InvalidMessageError(
                f"message: deliver() takes an AgentMessage, not {type(message).__name__};"
                " mailbox.send() takes a recipient and a content"
            )
        return await post(self._core, LETTERS, letter_record(message), connection=connection)

    async def broadcast(self, message: AgentMessage) -> list[Receipt[AgentMessage]]:
        """A copy, with an id of its own, for every registered agent but the sender."""
        record = letter_record(
            AgentMessage(
                message.sender,
                BROADCAST,
                message.content,
                id=message.id,
                correlation_id=message.correlation_id,
                priority=message.priority,
                timestamp=message.timestamp,
                metadata=message.metadata,
                causation_id=message.causation_id,
                _context=message._context,
            )
        )
        return await post_copies(self._core, LETTERS, record)


async def bind(core: Core, name: str, *, ordered: bool, capacity: int | None) -> Box:
    """Create a mailbox or find it; ConfigurationError if it exists but is not ordered as asked."""
    settings = core.settings
    if capacity is not None and (isinstance(capacity, bool) or capacity < 1):
        raise ConfigurationError(f"capacity: {capacity!r} is not a number of messages from 1")
    await core.enter()
    box = await core.store.bind(
        Box(
            name=check_name(name, "name"),
            ordered=ordered,
            capacity=settings.capacity if capacity is None else capacity,
            max_bytes=settings.max_bytes,
        )
    )
    core.roster = None
    if ordered and not box.ordered:
        raise ConfigurationError(
            f"{name!r} was created without ordered=True; unregister it first, or use another name"
        )
    return box


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """The block imports what the extra `name` installs; without it, that is said in one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("afk."):
            raise
        raise ConfigurationError(
            f"{name} needs the package {error.name}: pip install 'afk-messaging[{name}]'"
        ) from None


class InMemoryMessageBus(MessageBus):
    """A bus in this process's memory; nothing survives it, and no other bus shares it.

    namespace: accepted, as for every bus; a private bus is one namespace whatever its name.
    """

    def __init__(self, *, namespace: str = "afk", **options: Any) -> None:
        from .stores.memory import InMemoryA2ADeliveryStore

        super().__init__(InMemoryA2ADeliveryStore(), **options)


class SQLiteMessageBus(MessageBus):
    """A bus in a file, for several processes of one machine.

    path: the database file; durability: `disk` (default) or `process`; patience: seconds a call
    waits for other processes before it fails.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        durability: Durability = "disk",
        namespace: str = "afk",
        patience: float = 30.0,
        **options: Any,
    ) -> None:
        from .stores.sqlite import SQLiteA2ADeliveryStore

        store = SQLiteA2ADeliveryStore(
            path, durability=durability, namespace=namespace, patience=patience
        )
        super().__init__(store, **options)


class RedisMessageBus(MessageBus):
    """A bus on a Redis server, for agents on any number of machines.

    client: a redis.asyncio.Redis or redis.Redis, also of a Sentinel or a Cluster. Its settings are
    taken over; the bus makes connections of its own, and closes those. durability: what the server
    is to give, by default what it says it gives; patience: seconds a call waits for the server
    before it fails.
    """

    def __init__(
        self,
        client: Any,
        *,
        durability: Durability | None = None,
        namespace: str = "afk",
        patience: float = 10.0,
        **options: Any,
    ) -> None:
        with needs_extra("redis"):
            from .stores.redis import RedisA2ADeliveryStore

        store = RedisA2ADeliveryStore(
            client, durability=durability, namespace=namespace, patience=patience
        )
        super().__init__(store, **options)


class PostgresMessageBus(MessageBus):
    """A bus in a PostgreSQL database, for agents on any number of machines.

    dsn_or_pool: a `postgresql://` URL or an asyncpg.Pool, which is used and not closed.
    schema: where the tables are; durability: what the server is to give, by default what its
    settings say; patience: seconds a call waits for the server before it fails.
    """

    def __init__(
        self,
        dsn_or_pool: Any,
        *,
        durability: Durability | None = None,
        namespace: str = "afk",
        schema: str = "afk",
        patience: float = 10.0,
        **options: Any,
    ) -> None:
        with needs_extra("postgres"):
            from .stores.postgres import PostgresA2ADeliveryStore

        store = PostgresA2ADeliveryStore(
            dsn_or_pool,
            durability=durability,
            namespace=namespace,
            schema=schema,
            patience=patience,
        )
        super().__init__(store, **options)


class NATSMessageBus(MessageBus):
    """A bus on NATS JetStream, for agents on any number of machines.

    url_or_client: a `nats://` URL (or several, with commas) or a nats.aio.client.Client, whose
    settings are taken over; the bus makes connections of its own, and closes those. replicas: of
    the stream, when it is created; durability: what the server is known to give, if you know more
    than it tells; patience: seconds a call waits for the server before it fails.
    """

    def __init__(
        self,
        url_or_client: Any,
        *,
        durability: Durability | None = None,
        namespace: str = "afk",
        replicas: int | None = None,
        patience: float = 10.0,
        **options: Any,
    ) -> None:
        with needs_extra("nats"):
            from .stores.nats import NATSA2ADeliveryStore

        store = NATSA2ADeliveryStore(
            url_or_client,
            durability=durability,
            namespace=namespace,
            replicas=replicas,
            patience=patience,
        )
        super().__init__(store, **options)
