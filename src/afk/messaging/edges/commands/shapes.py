"""What `--json` prints. The keys are part of the interface: docs/reference/cli.md lists them."""

from __future__ import annotations

import json
import sys
from typing import Any

from afk.messaging import AgentMessage, DeadLetter, MailboxStats
from afk.messaging.trace import Entry


def put(value: Any) -> None:
    """Print a value as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def message(message: AgentMessage | None) -> dict[str, Any] | None:
    """A message; None if its body is gone."""
    if message is None:
        return None
    return {
        "id": message.id,
        "sender": message.sender,
        "recipient": message.recipient,
        "content": message.content,
        "priority": message.priority,
        "timestamp": message.timestamp,
        "correlation_id": message.correlation_id,
        "causation_id": message.causation_id,
        "thread_id": message.thread_id or None,
        "metadata": message.metadata,
    }


def entry(entry: Entry) -> dict[str, Any]:
    """A message and what became of it."""
    return {
        "id": entry.id,
        "agent": entry.agent,
        "state": entry.state,
        "attempts": entry.attempts,
        "accepted_at": entry.accepted_at,
        "leased_at": entry.leased_at,
        "settled_at": entry.settled_at,
        "reason": entry.reason,
        "error": entry.error or None,
        "redrives": entry.redrives,
        "message": message(entry.message),
    }


def letter(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter; `raw` only where the message cannot be read."""
    return {
        "id": letter.id,
        "agent": letter.agent,
        "reason": letter.reason,
        "error": letter.error,
        "attempts": letter.attempts,
        "redrives": letter.redrives,
        "failed_at": letter.failed_at,
        "message": message(letter.message),
        "raw": None if letter.message else letter.raw.decode("utf-8", "backslashreplace"),
    }


def mailbox(name: str, stats: MailboxStats) -> dict[str, Any]:
    """The counts of one mailbox."""
    return {
        "agent": name,
        "pending": stats.pending["all"],
        "by_priority": {key: count for key, count in stats.pending.items() if key != "all"},
        "leased": stats.leased,
        "scheduled": stats.scheduled,
        "dead": stats.dead,
        "oldest_age": stats.oldest_age,
        "last_seen": stats.last_seen,
    }
