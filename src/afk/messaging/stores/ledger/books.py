"""Every message by id and key, and how long a finished one is kept."""

from __future__ import annotations

from operator import attrgetter

from ...lifecycle import keeping
from ...records import fingerprint
from .rows import Entry
from .timers import Timers


class Books:
    """The messages in order of acceptance; those that ended, until nothing covers them.

    dead: the dead letters, in the order they died. chains: the messages of each correlation id.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Entry] = {}
        self.keys: dict[tuple[str, str, str | None], Entry] = {}
        self.chains: dict[str, dict[str, Entry]] = {}
        self.dead: dict[str, Entry] = {}
        self.fading = Timers()
        self.trims = Timers()
        self.ended = 0

    def add(self, row: Entry) -> None:
        """A message was accepted."""
        self.rows[row.id] = row
        if row.key is not None:
            self.keys[row.mailbox, row.sender, row.key] = row
        if row.chain is not None:
            self.chains.setdefault(row.chain, {})[row.id] = row

    def chain(self, name: str) -> list[Entry]:
        """The messages of a correlation id, and the one that has it as its id, oldest first."""
        found = dict(self.chains.get(name, {}))
        if (root := self.rows.get(name)) is not None:
            found[name] = root
        return sorted(found.values(), key=attrgetter("place"))

    def end(self, row: Entry, now: float) -> None:
        """A message ended now; its state says how."""
        self.ended += 1
        past = row.lived()
        past.ended = self.ended
        if row.state == "dead":
            self.dead[row.id] = row
        keep = keeping(
            row.state,
            past.reason,
            now,
            history=row.history,
            retention=row.retention,
            keyed=row.kept,
            answer=row.is_answer,
        )
        if keep is not None:
            past.row_until = keep.row
            self.fading.set(row, keep.body)
            if row.state != "dead" and not row.is_answer:
                self.trims.set(row, past.ended + row.history_max)

    def keep(self, row: Entry, until: float) -> None:
        """What has ended is found until then, a dead letter whole."""
        past = row.lived()
        if until > past.row_until:
            past.row_until = until
            if row.state == "dead" and past.reason == "expired":  # others are kept anyhow
                self.fading.set(row, until)

    def reopen(self, row: Entry) -> None:
        """A dead letter is open again, and was accepted last."""
        del self.dead[row.id]
        self.fading.drop(row)
        self.rows[row.id] = self.rows.pop(row.id)

    def let_go(self, row: Entry) -> None:
        """A dead letter is discarded; its digest tells the same message from another."""
        del self.dead[row.id]
        self._digest(row)

    def forget(self, now: float) -> None:
        """Let go of what history and retention no longer cover."""
        if self.trims.first <= self.ended:
            for row in self.trims.due(self.ended):
                self._fade(row)
        if self.fading.first <= now:
            for row in self.fading.due(now):
                self._fade(row)
                if row.past.row_until <= now:
                    self._drop(row)
                else:
                    self.fading.set(row, row.past.row_until)

    def _fade(self, row: Entry) -> None:
        self.trims.drop(row)
        if row.kept:
            self._digest(row)
        else:
            self._drop(row)

    def _digest(self, row: Entry) -> None:
        if row.body is not None:
            row.lived().digest, row.body = fingerprint(row.body), None

    def _drop(self, row: Entry) -> None:
        self.fading.drop(row)
        self.trims.drop(row)
        self.dead.pop(row.id, None)
        self.rows.pop(row.id, None)
        if row.key is not None:
            self.keys.pop((row.mailbox, row.sender, row.key), None)
        if row.chain is not None and (chain := self.chains.get(row.chain)) is not None:
            chain.pop(row.id, None)
            if not chain:
                del self.chains[row.chain]
