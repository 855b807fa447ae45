"""The port: what a store must do, and exactly that.

A store keeps deliveries: one per accepted message. Its state is one of `lifecycle.State`;
what follows what is in `lifecycle.TRANSITIONS`. Rules that hold for every verb:

* Operations take effect in the order they are started by one process.
* Time is the store's own; callers pass durations in seconds, never instants.
* A call that raises StoreError has an unknown outcome. A call that raises anything else,
  or answers with a Refusal, changed nothing.
* Cancelling `put` leaves its outcome unknown; a cancelled `claim` gives back what it took.
* What only time brings about (a lease ends, a delay is over, a ttl runs out) is brought about
  by every `claim`, for all mailboxes of the namespace, before it takes anything; `limit=0`
  does only that.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Struct

from .lifecycle import DeadReason, Outcome, RetryPolicy, State
from .records import Body

Durability = Literal["memory", "process", "disk"]
"""What an accepted message survives: nothing; kill -9 of any process; power loss too."""

MAIL, FATE = "mail:", "fate:"
"""Prefixes of `listen` topics: mail for a mailbox name, the fate of a message id."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What this store, as it is set up, can honestly give."""

    durability: Durability
    asserted: bool = False
    """The durability is the caller's word; the server's setting could not be read."""
    shared: bool = False
    """Several processes can use it at once."""
    renews_when_blocked: bool = False
    """A held lease is renewed while the holder's event loop is blocked."""
    transactions: bool = False
    """`begin` works: the handler's writes commit with the turn."""
    outbox: bool = False
    """`put_within` works: a send can be part of the caller's own transaction."""
    instant: bool = False
    """No verb ever suspends: what a claim found empty is so until the caller awaits something."""


class Box(Struct, frozen=True, kw_only=True, array_like=True):
    """A mailbox as it was created: who registers it first sets these."""

    name: str
    ordered: bool = False
    capacity: int = 100_000
    max_bytes: int = 1_048_576


# What is made for each message is out of the garbage collector's sight: nothing that it holds leads
# back to it.


class Send(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One message to store. Times in seconds; `rank` 0 (urgent) to 3 (low)."""

    body: Body
    id: str
    mailbox: str
    sender: str
    rank: int = 2
    key: str | None = None
    """An explicit idempotency key; without one the id is the key."""
    compare: bool = True
    """Whether another body under the key is a conflict, or simply the first message."""
    delay: float = 0.0
    ttl: float | None = None
    thread: str = ""
    chain: str | None = None
    """The correlation id."""
    awaited: bool = False
    """Of a request: what answers it becomes its result. Of an answer: what it answers was one."""
    answers: str | None = None
    """The id of the message this answers: the result of that, if it is an awaited request."""
    alone: bool = False
    """May fail alone: what cannot be stored becomes a dead letter and not a refusal."""
    dead: tuple[DeadReason, str] | None = None
    """Already decided: (reason, error) of the dead letter to store."""
    retention: float = 86_400.0
    history: float = 3_600.0
    history_max: int = 100_000


class Turn(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One atomic step: the outcome of a leased delivery (if any) and what is sent with it."""

    sends: tuple[Send, ...] = ()
    token: str | None = None
    outcome: Outcome | None = None
    roster: int | None = None
    """Refuse unless this is the version of the directory: a broadcast's snapshot."""


RefusalKind = Literal["unknown", "full", "too_large", "conflict", "lease_lost", "roster"]


class Refusal(Struct, frozen=True, gc=False):
    """Why a turn was not taken; nothing of it was stored. `limit` is bytes or messages."""

    kind: RefusalKind
    mailbox: str = ""
    id: str = ""
    limit: int = 0


class Accepted(Struct, frozen=True, gc=False):
    """A stored send: under which id, and whether that was there before."""

    id: str
    duplicate: bool = False
    ignored: bool = False
    """A second answer: counted and logged, not stored."""


class Verdict(Struct, frozen=True, gc=False):
    """What became of a turn. `died`: ids of messages that became dead letters in this call."""

    refusal: Refusal | None = None
    accepted: tuple[Accepted, ...] = ()
    died: tuple[str, ...] = ()


class Claim(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Take up to `limit` messages of a mailbox.

    lease: seconds each is this consumer's. hold: renew it for up to so many seconds as long
    as this process lives. policy and chance decide, now, what follows the lease's end.
    take: the caller needs no lease; a store whose mail ends with its process may settle at once.
    """

    mailbox: str
    limit: int = 1
    lease: float = 30.0
    hold: float | None = None
    policy: RetryPolicy = RetryPolicy()
    chance: float = 0.0
    take: bool = False


class Leased(Struct, frozen=True, kw_only=True, gc=False):
    """A claimed message. attempt counts from 1; token fences every later step.

    token is None when it was taken (`Claim.take`): already settled.
    """

    token: str | None
    id: str
    mailbox: str
    body: Body
    attempt: int
    redrives: int


class Batch(Struct, frozen=True, gc=False):
    """What a claim took, in delivery order, and what died while time was let pass."""

    leased: tuple[Leased, ...] = ()
    died: tuple[str, ...] = ()


class MailboxStats(Struct, frozen=True, kw_only=True):
    """Counts of one mailbox. oldest_age: seconds the oldest waiting message has waited;
    last_seen: seconds since the epoch a consumer last asked for mail, None if none did."""

    pending: dict[str, int]
    """Per priority, and `all`."""
    leased: int = 0
    scheduled: int = 0
    dead: int = 0
    oldest_age: float | None = None
    last_seen: float | None = None


class Query(Struct, frozen=True, kw_only=True):
    """Which rows to look at; every field narrows. `after` is a row's cursor.

    order: `accepted` (all), `delivery` (a mailbox's waiting messages), `ended` (final ones).
    """

    ids: tuple[str, ...] | None = None
    mailbox: str | None = None
    state: State | None = None
    reason: str | None = None
    chain: str | None = None
    """Messages of this correlation id, and the one with this id."""
    order: Literal["accepted", "delivery", "ended"] = "accepted"
    after: int | None = None
    limit: int | None = None


class Row(Struct, frozen=True, kw_only=True, gc=False):
    """A delivery as it stands. Times are seconds since the epoch on the store's clock."""

    id: str
    mailbox: str
    body: Body | None
    """None once history let go of it."""
    state: State
    attempt: int
    accepted_at: float
    leased_at: float | None = None
    """When it was first claimed."""
    settled_at: float | None = None
    reason: DeadReason | None = None
    error: str = ""
    redrives: int = 0
    fence: int = 0
    thread: str = ""
    awaited: bool = False
    answer: Body | None = None
    """What answered it, if it is an awaited request."""
    cursor: int = 0
    """`Query.after` to go on behind this row, in the order asked for; below 2**53."""


class Roster(Struct, frozen=True):
    """The directory: mailboxes by name, and a version that every change of it raises."""

    version: int
    boxes: dict[str, Box]


class Bell(Protocol):
    """A hint that something happened to a topic. Close it when done."""

    async def wait(self, timeout: float) -> bool:
        """True once rung since it was made or last waited for; False after `timeout` s."""

    def ring(self) -> None:
        """Wake whoever waits for it."""

    def close(self) -> None:
        """Stop listening; an unused ring for mail goes to the next listener."""


class Transaction(Protocol):
    """The store's own transaction, open for the caller's writes."""

    @property
    def connection(self) -> Any:
        """The database connection to write with."""

    async def commit(self, turn: Turn) -> Verdict:
        """Apply the turn and commit it with the caller's writes; a refusal rolls back both."""

    async def rollback(self) -> None:
        """Undo the caller's writes."""


@runtime_checkable
class A2ADeliveryStore(Protocol):
    """What a backend implements. `docs/adding-a-store.md` walks through it."""

    poll: float
    """Seconds after which a waiting consumer asks again, hint or no hint."""

    @property
    def capabilities(self) -> Capabilities:
        """True once `open` returned."""

    async def open(self) -> None:
        """Be ready. Raises StoreError or ConfigurationError with the fix."""

    async def close(self) -> None:
        """Each `open` is matched by a `close`; the last one releases what the store opened."""

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Each turn all or nothing, independent of the others; a Verdict for each, in order.

        In a turn, each send is checked in this order: key and id, mailbox, size, room. A known
        (mailbox, sender, key), or id, answers with the first message's id as a duplicate, or
        refuses as a `conflict` when `compare` is set and the fingerprints differ, or when the id
        is known under another key, mailbox or sender. A duplicate takes no room. A put that finds
        a mailbox full lets time pass, and looks again. The outcome is applied only while `token`
        is of the message's latest lease and that has not been settled; otherwise `lease_lost`.
        A late one, after the lease ended, is in time while no one has claimed the message since
        and it is not dead. An answer to an awaited request is stored as done and becomes that
        request's result; a second one, or one to an awaited request that is no longer known, is
        `ignored`. Any other answer is mail.
        """

    async def claim(self, claim: Claim) -> Batch:
        """Let time pass, then lease the first ready messages of the mailbox.

        Order: rank, then the order of acceptance. A claim counts an attempt, and raises the
        fence. When a lease ends unsettled the message is due again after `policy.delay`, or
        dead (`exhausted`) if that was the last attempt. Of an ordered mailbox's thread only
        the oldest open message is ever ready. UnknownAgentError if there is no such mailbox.
        """

    async def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""

    async def unbind(self, name: str) -> tuple[str, ...]:
        """Refuse new mail, then make what waits dead letters (`unregistered`); their ids.

        Atomic for each message; what is leased is buried when it comes back.
        """

    async def agents(self) -> Roster:
        """The directory now."""

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""

    async def browse(self, query: Query) -> list[Row]:
        """Rows as the last claim left them (`counts` and `amend` too: they bring nothing about);
        touches neither leases nor attempts."""

    async def amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        """Change these messages (or all dead ones of the agent); how many were changed.

        Atomic for each message. cancel (by ids): waiting, unclaimed ones become cancelled.
        redrive: dead ones of registered mailboxes are pending again, last in line, attempts and
        ttl anew, the fence raised. discard: dead ones become cancelled, their bodies let go. The
        reason goes with either.
        """

    def listen(self, topic: str) -> Bell:
        """Hear of a topic: `MAIL + name` when it may have ready mail, `FATE + id` when it ended
        or got its result."""


@runtime_checkable
class TransactionalStore(Protocol):
    """A store whose `capabilities.transactions` is set has this too."""

    async def begin(self) -> Transaction:
        """Open the store's own transaction for the caller's writes."""


@runtime_checkable
class OutboxStore(Protocol):
    """A store whose `capabilities.outbox` is set has this too."""

    async def put_within(self, connection: Any, turn: Turn) -> Verdict:
        """Take the turn in the transaction that is open on the caller's connection: it holds,
        and who waits hears of it, once the caller commits. A refusal leaves nothing of it."""
