"""Reading: rows, counts, the directory, and what those who wait should hear of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...lifecycle import State, delivery_order, seen_state
from ...messages import PRIORITIES
from ...store import FATE, MAIL, Box, MailboxStats, Query, Roster, Row
from .claim import next_due
from .put import roster_version
from .step import BLOCKED, DEAD, DONE, LEASED, READY, STATES, Step

_COLUMNS = (
    "d.seq, d.id, d.mailbox, d.body, d.fade, d.state, d.line, d.start, d.due, d.lease, d.last,"
    " d.until, d.attempt, d.accepted, d.leased, d.settled, d.reason, d.error, d.redrives, d.fence,"
    " d.thread, d.awaited, d.dead, a.body"
)
_FROM = " FROM afk_delivery d LEFT JOIN afk_delivery a ON a.space = d.space AND a.id = d.answer"
_READY = "mailbox = ? AND line = 0"
_DECIDED = f"id = ? AND (state > {DONE} OR answer IS NOT NULL OR state = {DONE} AND awaited <> 1)"
FEW = 64
"""Above so many topics it is cheaper to ask where mail waits than for each whether it does."""
_ORDER = {
    "accepted": ("d.seq", "d.seq"),
    "delivery": ("d.seq", "d.rank, d.seq"),
    "ended": ("d.dead", "d.dead"),
}


def browse(step: Step, query: Query) -> list[Row]:
    """Rows as they are."""
    if query.order == "delivery":
        return _as_delivered(step, query)
    return _browse(step, query)


def _as_delivered(step: Step, query: Query) -> list[Row]:
    """What waits in a mailbox; of an ordered one all of it is looked at for the order."""
    shelf = step.shelf(query.mailbox or "")
    if shelf is None or not shelf.box.ordered:
        return _browse(step, query)
    waiting = step.db.execute(
        "SELECT rank, seq, coalesce(thread, '') FROM afk_delivery"
        " WHERE space = ? AND mailbox = ? AND line IN (0, 1) AND start <= ?",
        (step.space, query.mailbox, step.now),
    ).fetchall()
    rows = (_at(step, seq) for seq in delivery_order(waiting)[: query.limit])
    return [row for row in rows if query.state in (None, row.state)]


def _at(step: Step, seq: int) -> Row:
    columns = step.db.execute(f"SELECT {_COLUMNS}{_FROM} WHERE d.seq = ?", (seq,)).fetchone()
    return _row(columns, step.now, by_death=False)


def _browse(step: Step, query: Query) -> list[Row]:
    conditions, values = _conditions(step.space, step.now, query)
    cursor, order = _ORDER[query.order]
    if query.after is not None:
        conditions.append(f"{cursor} > ?")
        values.append(query.after)
    # In the order of acceptance the table itself is read, by places: the plus keeps away an index
    # that begins with the space, from which all there is would be sorted first.
    by_place = query.order == "accepted" and query.ids is None
    sql = (
        f"SELECT {_COLUMNS}{_FROM} WHERE {'+' * by_place}d.space = ?"
        f" AND {' AND '.join(conditions)} ORDER BY {order}"
    )
    found: list[Row] = []
    for columns in step.db.execute(sql, (step.space, *values)):
        row = _row(columns, step.now, query.order == "ended")
        if query.state is None or row.state == query.state:
            found.append(row)
            if len(found) == query.limit:
                break
    return found


def _conditions(space: int, now: float, query: Query) -> tuple[list[str], list[Any]]:
    conditions = ["coalesce(d.gone, ?) >= ?"]  # the next write lets go of the others
    values: list[Any] = [now, now]
    if query.ids is not None:
        conditions.append(f"d.id IN ({', '.join('?' * len(query.ids))})")
        values += query.ids
    if query.chain is not None:
        # Two look-ups by index; an OR of both would read the whole table.
        conditions.append(
            "d.seq IN (SELECT seq FROM afk_delivery WHERE space = ? AND chain = ?"
            " UNION SELECT seq FROM afk_delivery WHERE space = ? AND id = ?)"
        )
        values += [space, query.chain, space, query.chain]
    for column, value in (("mailbox", query.mailbox), ("reason", query.reason)):
        if value is not None:
            conditions.append(f"d.{column} = ?")
            values.append(value)
    if query.order == "delivery":
        conditions.append(f"d.line = {READY}")
    elif query.order == "ended":
        conditions.append("d.dead IS NOT NULL")
    return conditions, values


def _row(columns: tuple[Any, ...], now: float, by_death: bool) -> Row:
    (seq, message_id, mailbox, body, fade, state, line, start, due, lease, last, expires, attempt,
     accepted, leased, settled, reason, error, redrives, fence, thread, awaited, dead, answer,
     ) = columns  # fmt: skip
    return Row(
        id=message_id,
        mailbox=mailbox,
        body=None if fade is not None and fade <= now else body,
        state=_state(state, line, start, due, lease, last, expires, now),
        attempt=attempt,
        accepted_at=accepted,
        leased_at=leased,
        settled_at=settled,
        reason=reason,
        error=error,
        redrives=redrives,
        fence=fence,
        thread=thread or "",
        awaited=awaited == 1,
        answer=answer,
        cursor=dead if by_death else seq,
    )


def _state(
    state: int,
    line: int | None,
    start: float,
    due: float | None,
    lease: float | None,
    last: int,
    expires: float | None,
    now: float,
) -> State:
    stored: State = STATES[state]
    if line == BLOCKED and start > now:
        stored, due = "scheduled", start
    return seen_state(
        stored, now, due=due or 0.0, lease_end=lease or 0.0, last=bool(last), expires=expires
    )


def counts(step: Step, mailbox: str | None) -> dict[str, MailboxStats]:
    """The counts of every mailbox, or of this one."""
    values: dict[str, object] = {"space": step.space, "mailbox": mailbox, "now": step.now}
    names = (
        "SELECT name FROM afk_mailbox"
        " WHERE space = :space AND (:mailbox IS NULL OR name = :mailbox)"
    )
    boxes = step.db.execute(names.replace("name", "name, seen", 1), values).fetchall()
    pending = {name: dict.fromkeys(PRIORITIES, 0) for name, _ in boxes}
    oldest: dict[str, float] = {}
    for name, rank, number, first in step.db.execute(
        "SELECT mailbox, rank, count(*), min(seq) FROM afk_delivery"
        f" WHERE space = :space AND mailbox IN ({names}) AND line = {READY} GROUP BY mailbox, rank",
        values,
    ).fetchall():
        pending[name][PRIORITIES[rank]] += number
        _older(step, oldest, name, first)
    other = {name: {"scheduled": 0, "leased": 0, "dead": 0} for name, _ in boxes}
    for name, rank, first, delayed in step.db.execute(
        f"SELECT mailbox, rank, seq, start > :now FROM afk_delivery WHERE space = :space"
        f" AND mailbox IN ({names}) AND line = {BLOCKED}",
        values,
    ).fetchall():
        if delayed:
            other[name]["scheduled"] += 1
        else:
            pending[name][PRIORITIES[rank]] += 1
            _older(step, oldest, name, first)
    for name, state, number in _tally(step, values):
        if name in other:
            other[name][state] += number
    return {
        name: MailboxStats(
            pending=pending[name] | {"all": sum(pending[name].values())},
            oldest_age=step.now - oldest[name] if name in oldest else None,
            last_seen=seen,
            **other[name],
        )
        for name, seen in boxes
    }


def _older(step: Step, oldest: dict[str, float], name: str, seq: int) -> None:
    (accepted,) = step.db.execute(
        "SELECT accepted FROM afk_delivery WHERE seq = ?", (seq,)
    ).fetchone()
    oldest[name] = min(oldest.get(name, accepted), accepted)


def _tally(step: Step, values: dict[str, object]) -> Iterable[tuple[str, str, int]]:
    """(mailbox, state, number) of what is leased, scheduled or dead."""
    one = "(:mailbox IS NULL OR mailbox = :mailbox)"
    yield from step.db.execute(
        f"SELECT mailbox, CASE WHEN state = {LEASED} AND lease > :now THEN 'leased'"
        f" ELSE 'scheduled' END AS seen, count(*) FROM afk_delivery"
        f" WHERE space = :space AND due IS NOT NULL AND {one} GROUP BY mailbox, seen",
        values,
    ).fetchall()
    yield from step.db.execute(
        f"SELECT mailbox, '{STATES[DEAD]}', count(*) FROM afk_delivery"
        f" WHERE space = :space AND dead IS NOT NULL AND {one} GROUP BY mailbox",
        values,
    ).fetchall()


def roster(step: Step) -> Roster:
    """The directory now."""
    rows = step.db.execute(
        "SELECT name, ordered, capacity, max_bytes FROM afk_mailbox WHERE space = ?", (step.space,)
    ).fetchall()
    boxes = {
        name: Box(name=name, ordered=bool(ordered), capacity=capacity, max_bytes=max_bytes)
        for name, ordered, capacity, max_bytes in rows
    }
    return Roster(roster_version(step), boxes)


def heard(step: Step, topics: list[str]) -> tuple[list[str], float]:
    """Which of the topics those who wait should look at, and when something is next due."""
    news = []
    waiting = _waiting(step) if len(topics) > FEW else None
    due = {
        name
        for (name,) in step.db.execute(
            "SELECT DISTINCT mailbox FROM afk_delivery WHERE space = ? AND due <= ?",
            (step.space, step.now),
        )
    }
    for topic in topics:
        if topic.startswith(MAIL):
            name = topic[len(MAIL) :]
            has = name in waiting if waiting is not None else _has(step, _READY, name)
            if has or name in due:
                news.append(topic)
        elif _has(step, _DECIDED, topic[len(FATE) :]):
            news.append(topic)
    return news, next_due(step)


def _waiting(step: Step) -> set[str]:
    """Every mailbox with ready mail, found by jumping from one to the next in the index."""
    rows = step.db.execute(
        "WITH RECURSIVE box(name) AS ("
        " SELECT min(mailbox) FROM afk_delivery WHERE space = :space AND line = 0"
        " UNION ALL SELECT (SELECT min(mailbox) FROM afk_delivery WHERE space = :space AND line = 0"
        " AND mailbox > box.name) FROM box WHERE box.name IS NOT NULL)"
        " SELECT name FROM box WHERE name IS NOT NULL",
        {"space": step.space},
    )
    return {name for (name,) in rows}


def _has(step: Step, condition: str, value: str) -> bool:
    found = step.db.execute(
        f"SELECT 1 FROM afk_delivery WHERE space = ? AND {condition} LIMIT 1", (step.space, value)
    ).fetchone()
    return found is not None
