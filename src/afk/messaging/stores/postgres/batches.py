"""What leaves together: the calls that the operations in line come to, and their answers.

Within one call plain acks come before plain sends, and claims come last: nobody knows yet what
became of any of them. Otherwise what is asked first is done first.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any, Protocol

from msgspec.structs import replace

from ...errors import UnknownAgentError
from ...records import fingerprint, wire
from ...store import FATE, MAIL, Accepted, Refusal, Send, Turn, Verdict
from ...store import Batch as Taken
from . import codec
from .operations import Ask, Operation, Put, Take
from .session import Call

MOST_TURNS, MOST_BYTES = 64, 2**22
"""What one call may hold. While the server is at work on the next one, this process is for those
whom this one answered: with all in one call each would wait for the other."""

Piece = tuple[Put, int]
"""A turn of a put, by its number."""


class News(Protocol):
    """Who is told what a call brought."""

    def topics(self, topics: list[str]) -> None:
        """Those who wait for these should look."""

    def soon(self, seconds: float) -> None:
        """Something is due then."""

    def untold(self, died: Iterable[str]) -> None:
        """These died in a call that nobody waits for."""


class Batch(Protocol):
    """Operations, or parts of them, that are one call."""

    @property
    def repeatable(self) -> bool:
        """Whether asking twice does no harm."""

    def operations(self) -> Iterable[Operation]:
        """Whose it is."""

    def prune(self) -> bool:
        """Leave out what nobody waits for any more; False if that was all."""

    def call(self, held: Container[str]) -> Call:
        """The call."""

    def answered(self, rows: list[Any], news: News) -> list[Batch]:
        """Give each its answer; what is to be asked next on account of it."""

    def parts(self) -> list[Batch]:
        """The same, each piece alone; itself if it is one."""


class Single:
    """An operation that is a call of its own."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.repeatable = ask.repeatable

    def operations(self) -> Iterable[Operation]:
        """The one."""
        return (self._ask,)

    def prune(self) -> bool:
        """Whether anyone waits."""
        return not self._ask.future.done()

    def call(self, held: Container[str]) -> Call:
        """Its own."""
        return self._ask.call

    def answered(self, rows: list[Any], news: News) -> list[Batch]:
        """The rows."""
        self._ask.succeed(rows)
        return []

    def parts(self) -> list[Batch]:
        """It is one."""
        return [self]


class Takes:
    """The claims of a call."""

    def __init__(self) -> None:
        self._takes: list[Take] = []
        self._wanted = 0

    def __iter__(self) -> Iterator[Take]:
        return iter(self._takes)

    def __bool__(self) -> bool:
        return bool(self._takes)

    def add(self, take: Take) -> bool:
        """Take a claim in; False if there is no place for it."""
        wanted = min(take.claim.limit, codec.MOST_CLAIMED)
        if len(self._takes) >= MOST_TURNS or self._wanted + wanted > codec.MOST_CLAIMED:
            return False
        self._takes.append(take)
        self._wanted += wanted
        return True

    def prune(self) -> None:
        """Leave out those that nobody waits for any more."""
        self._takes = [take for take in self._takes if not take.future.done()]

    def columns(self) -> tuple[list[Any], ...]:
        """The arrays of the call."""
        return codec.claim_columns([take.claim for take in self._takes])

    def answered(self, row: Any, news: News) -> None:
        """To each what it took; who died is told to the first who waits."""
        died = tuple(row["died"])
        news.topics([*map(FATE.__add__, died), *map(MAIL.__add__, row["ready"])])
        for take, known, leased in zip(
            self._takes,
            row["registered"] or (),
            codec.leased([take.claim for take in self._takes], row),
            strict=True,
        ):
            if _claimed(take, known, Taken(leased, died), news):
                died = ()
        if died:
            news.untold(died)

    def parts(self) -> list[Batch]:
        """Each as a call of its own."""
        parts: list[Batch] = []
        for take in self._takes:
            parts.append(step := Step())
            step.take(take)
        return parts


class Step:
    """Plain acks, plain sends, and claims."""

    def __init__(self) -> None:
        self._acks: dict[str, Piece] = {}
        self._sends: dict[str, tuple[Piece, Send]] = {}
        self._takes = Takes()
        self._size = 0

    def ack(self, piece: Piece, token: str) -> bool:
        """Take an ack in; False if there is no place for it."""
        if token in self._acks or self._full:
            return False
        self._acks[token] = piece
        return True

    @property
    def _full(self) -> bool:
        return len(self._acks) + len(self._sends) >= MOST_TURNS

    def send(self, piece: Piece, send: Send) -> bool:
        """Take a send in; False if there is no place for it."""
        if self._full or self._size > MOST_BYTES or send.id in self._sends:
            return False
        self._sends[send.id] = piece, send
        self._size += len(wire(send.body))
        return True

    def take(self, take: Take) -> bool:
        """Take a claim in; False if there is no place for it."""
        return self._takes.add(take)

    @property
    def repeatable(self) -> bool:
        """Whether it lets time pass, and no more."""
        claims = any(take.claim.limit for take in self._takes)
        return not (self._acks or self._sends or claims)

    def operations(self) -> Iterable[Operation]:
        """All that take part."""
        yield from (put for put, _ in self._acks.values())
        yield from (piece[0] for piece, _ in self._sends.values())
        yield from self._takes

    def prune(self) -> bool:
        """Leave out what nobody waits for any more."""
        self._acks = {t: piece for t, piece in self._acks.items() if not _over(piece)}
        self._sends = {i: each for i, each in self._sends.items() if not _over(each[0])}
        self._takes.prune()
        return bool(self._acks or self._sends or self._takes)

    def call(self, held: Container[str]) -> Call:
        """`step`."""
        tokens = [codec.fenced(token) for token in self._acks]
        return Call(
            "step",
            [message_id for message_id, _ in tokens],
            [fence for _, fence in tokens],
            *codec.plain_columns([send for _, send in self._sends.values()]),
            *self._takes.columns(),
        )

    def answered(self, rows: list[Any], news: News) -> list[Batch]:
        """Verdicts, what was claimed, and a batch of the sends that are not that plain."""
        [row] = rows
        self._judge_acks(row["lost"] or (), news)
        again = self._judge_sends(row["left_over"] or (), news)
        self._takes.answered(row, news)
        return again

    def _judge_acks(self, lost: Container[int], news: News) -> None:
        fates = []
        for number, (token, (put, index)) in enumerate(self._acks.items(), 1):
            if number in lost:
                put.judge(index, Verdict(Refusal("lease_lost")))
            else:
                fates.append(FATE + codec.fenced(token)[0])
                put.judge(index, Verdict())
        news.topics(fates)

    def _judge_sends(self, left_over: Container[str], news: News) -> list[Batch]:
        again = Turns()
        mail = []
        for message_id, (piece, send) in self._sends.items():
            if message_id in left_over:
                again.add(piece, piece[0].turns[piece[1]])
                continue
            if send.delay:
                news.soon(send.delay)
            else:
                mail.append(MAIL + send.mailbox)
            if send.ttl is not None:
                news.soon(send.ttl)
            piece[0].judge(piece[1], Verdict(None, (Accepted(message_id),)))
        news.topics(mail)
        return [again] if again else []

    def parts(self) -> list[Batch]:
        """Each ack, each send, each claim."""
        parts: list[Batch] = []
        for token, piece in self._acks.items():
            parts.append(step := Step())
            step.ack(piece, token)
        for piece, send in self._sends.values():
            parts.append(step := Step())
            step.send(piece, send)
        return parts + self._takes.parts()


class Turns:
    """Turns of any kind, and claims."""

    repeatable = False

    def __init__(self) -> None:
        self._pieces: list[tuple[Piece, Turn]] = []
        self._takes = Takes()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, piece: Piece, turn: Turn) -> bool:
        """Take a turn in; False if there is no place for it."""
        if len(self._pieces) >= MOST_TURNS:
            return False
        self._pieces.append((piece, turn))
        return True

    def take(self, take: Take) -> bool:
        """Take a claim in; False if there is no place for it."""
        return self._takes.add(take)

    def operations(self) -> Iterable[Operation]:
        """All that take part."""
        yield from (piece[0] for piece, _ in self._pieces)
        yield from self._takes

    def prune(self) -> bool:
        """Leave out what nobody waits for any more."""
        self._pieces = [each for each in self._pieces if not _over(each[0])]
        self._takes.prune()
        return bool(self._pieces or self._takes)

    def call(self, held: Container[str]) -> Call:
        """`take_turns`, with claims behind it if there are any."""
        turns = codec.turn_columns([turn for _, turn in self._pieces], held)
        if self._takes:
            return Call("take_turns_then_claim", *turns, *self._takes.columns())
        return Call("take_turns", *turns)

    def answered(self, rows: list[Any], news: News) -> list[Batch]:
        """A verdict for each turn; those that name a message to be compared are asked again."""
        again = self._judge(rows[: len(self._pieces)], news)
        if self._takes:
            self._takes.answered(rows[-1], news)
        return again

    def _judge(self, rows: list[Any], news: News) -> list[Batch]:
        again = Turns()
        for (piece, turn), row in zip(self._pieces, rows, strict=True):
            died = tuple(row["died"])
            if row["refusal"] == "compare":
                news.untold(died)
                compared = _compared(turn, row)
                if isinstance(compared, Turn):
                    again.add(piece, compared)
                    continue
                verdict = Verdict(compared)
            elif row["refusal"] is not None:
                verdict = Verdict(codec.refusal(row), (), died)
            else:
                verdict = Verdict(None, codec.accepted(row["ids"], row["how"]), died)
                _tell(turn, row, news)
            news.topics([*map(FATE.__add__, died), *map(MAIL.__add__, row["ready"])])
            if died and piece[0].future.done():
                news.untold(died)
            piece[0].judge(piece[1], verdict)
        return [again] if again else []

    def parts(self) -> list[Batch]:
        """Each turn, each claim."""
        parts: list[Batch] = []
        for piece, turn in self._pieces:
            parts.append(turns := Turns())
            turns.add(piece, turn)
        return parts + self._takes.parts()


def _claimed(take: Take, known: bool, taken: Taken, news: News) -> bool:
    """Give a claim what it took; whether somebody was told who died."""
    if not known:
        take.fail(UnknownAgentError(take.claim.mailbox))
        return False
    if taken.leased:
        news.soon(take.claim.lease)
    if take.future.cancelled():
        take.undo(replace(taken, died=()))
    if take.future.done():  # given up, or cancelled
        return False
    take.succeed(taken)
    return True


def _over(piece: Piece) -> bool:
    return piece[0].future.done()


def _compared(turn: Turn, row: Any) -> Turn | Refusal:
    """The turn without the comparison that its send passed, or the conflict."""
    known = fingerprint(row["body"])
    for number, send in enumerate(turn.sends):
        if send.mailbox == row["mailbox"] and send.compare and send.id == row["id"]:
            if fingerprint(send.body) != known:
                return Refusal("conflict", row["mailbox"], row["id"])
            same = replace(send, compare=False)
            return replace(turn, sends=(*turn.sends[:number], same, *turn.sends[number + 1 :]))
    return Refusal("conflict", row["mailbox"], row["id"])


def _tell(turn: Turn, row: Any, news: News) -> None:
    """What a turn that was taken means for those who wait."""
    topics = []
    if turn.token is not None and turn.outcome is not None:
        topics.append(FATE + codec.fenced(turn.token)[0])
        seconds = getattr(turn.outcome, "delay", getattr(turn.outcome, "seconds", None))
        if seconds:
            news.soon(seconds)
    for send, became in zip(turn.sends, row["how"], strict=True):
        if became == codec.RESULT and send.answers is not None:
            topics += FATE + send.answers, FATE + send.id
        elif became in (codec.READY, codec.STORED):
            for seconds in filter(None, (send.delay, send.ttl)):
                news.soon(seconds)
    news.topics(topics)
