"""The state that the log leads to, in this process: the rules of the ledger, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from ...errors import StoreError, UnknownAgentError
from ...log import log
from ..ledger import Ledger, image
from .steps import Amend, Based, Bind, Op, Part, Put, Take, Unbind, unpacked

FORGET_WRITERS = 3600.0
"""Seconds for which a silent writer's last number is known: far longer than it tries again."""


class Writer(Struct, array_like=True):
    """Who has written: the number of its last group, and when that was. parts: of the next."""

    number: int = 0
    at: float = 0.0
    begun: int = 0
    parts: dict[int, bytes] = {}


class Step(Struct, frozen=True):
    """A group that took effect: whose it was, and an answer (or an exception) for each op.

    news: the topics it concerns. image_due: the log has grown so far that its writer is to make an
    image of the state.
    """

    writer: str
    number: int
    answers: tuple[Any, ...]
    news: tuple[str, ...]
    image_due: bool


class _State(Struct, array_like=True):
    """What a replica knows beside its ledger."""

    seq: int
    mark: int
    now: float
    size: int
    image: int
    writers: dict[str, Writer]


_encode = msgspec.msgpack.Encoder().encode
_states = msgspec.msgpack.Decoder(_State)


class Replica:
    """A ledger, and how far into the log it has read.

    seq and mark: number and time (ns) of the last message; now: the time of the last group; size:
    bytes of the log read since its beginning; based: that many had been read for the last image;
    image: the bytes of that.
    """

    least_log = 32 * 2**20
    """Bytes of log after which an image is due, at least; else when it is twice the image."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.seq = self.mark = self.size = self.based = self.image = 0
        self.now = 0.0
        self._judged = 0
        self._writers: dict[str, Writer] = {}

    # -- reading the log -----------------------------------------------------------------

    def read(
        self, seq: int, mark: int, part: Part | None, length: int, own: tuple[Op, ...] = ()
    ) -> Step | None:
        """The next message, stored at `mark` ns since the epoch: the group it completes, if it
        does, has taken effect.

        own: the operations of the group, where they need not be decoded.
        """
        self.seq, self.mark = seq, mark
        self.size += length
        stored_at = mark / 1e9
        data = None if part is None else self._complete(part, stored_at)
        if part is None or data is None:
            return None
        try:
            ops = own or unpacked(data)
        except ValueError as error:  # the same for all who read it
            log.warning("a group in the log cannot be read and is passed over: %s", error)
            return None
        self.now = max(self.now, stored_at) if part.now is None else part.now
        answers = tuple([self._do(op, self.now) for op in ops])
        news = tuple(self.ledger.news)
        self.ledger.news.clear()
        return Step(part.writer, part.number, answers, news, self._image_due())

    def _image_due(self) -> bool:
        """Whether the log since the last group made it due: once, and again should the writer of
        this one have died."""
        every = max(self.least_log, 2 * self.image)
        before, self._judged = max(self._judged, self.based), self.size
        return (self.size - self.based) // every > (before - self.based) // every

    def last_of(self, name: str) -> int:
        """The number of a writer's last group."""
        writer = self._writers.get(name)
        return 0 if writer is None else writer.number

    def _complete(self, part: Part, stored_at: float) -> bytes | None:
        """The whole group, if this is its last part and it was not there before."""
        writer = self._writers.pop(part.writer, None) or Writer()
        self._writers[part.writer] = writer  # the last in order
        writer.at = stored_at
        self._forget_writers(stored_at)
        if part.number <= writer.number:
            return None  # sent again, as its writer had not heard that it had arrived
        if part.number < writer.begun:
            return None  # late: its writer has given it up
        if part.number != writer.begun:
            writer.begun, writer.parts = part.number, {}
        writer.parts[part.index] = part.ops
        if any(index not in writer.parts for index in range(part.count)):
            return None
        data = b"".join([writer.parts[index] for index in range(part.count)])
        writer.number, writer.parts = part.number, {}
        return data

    def _forget_writers(self, now: float) -> None:
        for name, writer in list(self._writers.items())[:2]:
            if writer.at < now - FORGET_WRITERS:
                del self._writers[name]

    def _do(self, op: Op, now: float) -> Any:
        try:
            return self._answer(op, now)
        except UnknownAgentError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the same for all who read it: go on alike
            log.exception("an operation of the log failed")
            return StoreError(f"the operation failed: {error!r}")

    def _answer(self, op: Op, now: float) -> Any:
        ledger = self.ledger
        if type(op) is Put:  # the most of them, without the steps of a match
            return ledger.take(op.turn, now)
        match op:
            case Take(claim):
                return ledger.claim(claim, now)
            case Bind(box):
                return ledger.bind(box)
            case Unbind(name):
                return ledger.unbind(name, now)
            case Amend(verb, ids, agent):
                return ledger.amend(verb, ids, agent, now)
            case Based(size, length) if size >= self.based:
                self.based, self.image = size, length
        return None

    # -- images --------------------------------------------------------------------------

    def pages(self) -> Iterator[bytes]:
        """This state as bytes; it must not change meanwhile."""
        yield _encode(_State(self.seq, self.mark, self.now, self.size, self.image, self._writers))
        yield from image.pages(self.ledger)

    @classmethod
    def of(cls, pages: Iterable[bytes]) -> Replica:
        """The state of these bytes."""
        first, *rest = pages
        state = _states.decode(first)
        replica = cls()
        replica.seq, replica.mark, replica.now = state.seq, state.mark, state.now
        replica.size = replica.based = state.size
        replica.image = state.image
        replica._writers = state.writers
        replica.ledger = image.load(rest)
        return replica
