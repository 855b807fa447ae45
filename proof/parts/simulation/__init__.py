"""Agents on simulated time, with a seed for everything that chance decides."""

from __future__ import annotations

from ...trial import Part, Trial
from .trials import replay, stories

PART = Part(
    name="simulation",
    title="Deterministic simulation",
    about="""\
A story is told by a seed: three agents, some of them with ordered or small mailboxes, on a memory
store, used by two processes. Time is simulated, one seeded choice after the other says which
callback runs next, and ids and jitter come of the seed too. Users send with and without keys, the
same key from two tasks at once, with priorities, delays, ttls and threads; they ask, broadcast,
cancel, redrive and look. Consumers serve with a handler, work in blocks, claim and settle, or
receive; handlers fail, reject, ask to retry, hang, block the event loop beyond their lease, extend
it, send with the ack or beside it, and ask others. Meanwhile calls of the store are late or raise
`StoreError`, before or after they took effect; hints get lost, in a third of the stories all of
them; processes are killed and replaced, or cut off from the store; for seconds nothing runs;
consumers and calls of users are cancelled at any callback.

Then the trouble ends, and within 300 s of the story everything must be worked off. The history that
the users saw is judged as that of the other parts is. Besides: each claim takes what `peek` shows
first; of a thread of an ordered mailbox only the oldest open message is claimed; in every snapshot
exactly what was accepted is there, and `stats` counts it; requests end in time, and with their own
answer; what was settled is not settled again; in the end no task, no lease and no listener is left.

In the second line each story is told twice, in two processes and in another order, and the two
traces must be the same bytes. `python -m proof.parts.simulation SEED` prints the one of a seed.

What is simulated is the library's own core over the memory store. Processes are buses over one
store and share an event loop; a killed one keeps running, cut off from everybody. Leases are
renewed by the store, not by a thread. The other stores are not in it.""",
    trials=(
        Trial(
            "stories",
            stories,
            small=20_000,
            large={"": 1_000_000},
            batch=20_000,
            stores=("memory",),
        ),
        Trial(
            "replay",
            replay,
            small=100,
            large={"": 10_000},
            batch=2_000,
            stores=("memory",),
        ),
    ),
)
