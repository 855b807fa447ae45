"""Calls of every kind, cancelled at any moment."""

from __future__ import annotations

from dataclasses import replace

from ...trial import Part, Trial
from .storm import storm
from .turns import at_every_turn, at_some_turns

STORES = ("memory", "sqlite", "redis", "postgres", "nats")

_STORM = Trial("storm of cancels", storm, 600, {"": 100_000}, 5_000)

PART = Part(
    name="cancel",
    title="Cancellation",
    about="""\
In the storm twenty tasks send, receive, claim and settle, take turns in a block, ask and look, over
one bus; each call is cancelled within 40 turns of the event loop, or within a tenth of a
millisecond to 0.2 seconds, whatever it is doing then. A round is a call.

In a round of the other trial every coroutine that a user can call is cancelled after no turn of the
event loop, after one, after two, until it has ended before it is cancelled. They are found by
looking: all public ones of all public classes, the store's own among them; one that nobody has
written a scene for is a failure. What was cancelled is then called again and must do what it does.
`coroutines` were cancelled `calls` times, and `cancelled` of these had not ended before.

What was cancelled is in doubt and nothing more: in the end every message that was accepted has
ended, once, none came again but for a reason or waits for the end of a lease, each answer was of
its question, no call raised anything but its cancellation, and no task is left.""",
    trials=(
        _STORM,
        Trial("every coroutine at every turn", at_every_turn, 1, {"": 5}, 1, STORES),
    ),
)

SMALL = replace(
    PART,
    trials=(_STORM, Trial("some coroutines at some turns", at_some_turns, 1, {}, 1, STORES)),
)
"""Less of the same: every test run makes these rounds."""
