"""What the processes of a team have in common."""

from __future__ import annotations

from afk.messaging import RetryPolicy

PATIENCE, LEASE = 2.0, 2.0
OPTIONS = f"patience={PATIENCE}&lease={LEASE}"
RETRY = RetryPolicy(max_attempts=50, base=0.05, cap=0.5)
ASKING = 4.0
"""Seconds that a request waits for its answer before it is made again."""
AGAIN = 0.02
PAUSE = 0.2
"""Seconds between sends, at most: traffic that the machine carries with ease."""
BOTH = "both"


def answer_to(question: dict[str, str]) -> dict[str, str]:
    """The one right answer."""
    return {"answer": question["question"]}


def report_of(question: dict[str, str]) -> dict[str, str]:
    """What leaves together with the answer."""
    return {"report": question["question"]}
