"""Input that is made to break what reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ...fuzz import lacks
from ...quiet import quiet
from ...trial import Ground, Outcome, Part, Run, Trial
from . import targets
from .fuzzed import fuzzed
from .hostile import SCHEMES, bodies, contents, texts, urls
from .stored import Desk, letters, names, raw

_parts = st.tuples(
    contents,
    st.one_of(st.just({}), st.dictionaries(texts, contents, max_size=2), contents),
    st.one_of(st.none(), texts),
    st.one_of(st.none(), texts),
    texts,
)


async def search(
    outcome: Outcome, seed: int, what: st.SearchStrategy[Any], check: Callable[[Any], None]
) -> None:
    """Try `outcome.rounds` examples; the smallest that breaks the check is the violation."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=outcome.rounds,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(what)
    def test(value: Any) -> None:
        outcome.counts["inputs"] += 1
        check(value)

    try:
        with quiet():  # each message that cannot be read is told of
            await asyncio.to_thread(test)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not documented
        notes = getattr(error, "__notes__", [])
        outcome.violations.append("\n".join([repr(error), *notes])[:3000])


def given(what: st.SearchStrategy[Any], target: Callable[[Any], None]) -> Run:
    """Only documented errors, and each in time."""

    async def trial(ground: Ground, rounds: int, seed: int) -> Outcome:
        for scheme in SCHEMES:  # what is imported at the first use is none of an input's time
            targets.url(f"{scheme}://host/name")

        def check(value: Any) -> None:
            taken = targets.timed(target, value)
            assert taken <= targets.SLOWEST, f"took {taken:.3f} s"

        outcome = Outcome(rounds)
        await search(outcome, seed, what, check)
        return outcome

    return trial


def at_a_desk(what: st.SearchStrategy[Any], check: Callable[[Desk, Any], Any]) -> Run:
    """The same at a store."""

    async def trial(ground: Ground, rounds: int, seed: int) -> Outcome:
        outcome, desk = Outcome(rounds), await asyncio.to_thread(Desk, ground)
        await search(outcome, seed, what, lambda value: desk.run(check(desk, value)))
        await asyncio.to_thread(desk.close)
        return outcome

    return trial


ALL = ("memory", "sqlite", "redis", "postgres", "nats")
ONCE = ("memory",)

PART = Part(
    name="inputs",
    title="Bad input",
    about="""\
Hypothesis makes up input that breaks parsers: any bytes, records with fields of the wrong kind,
twice, or spoilt; nesting of 90,000 levels, NaN, integers of thousands of digits, lone surrogates,
NUL, text that turns its direction, quotes and what means something in SQL, NATS subjects and
formats. It goes to the decoder of stored records, to what makes a record of a message, to names and
to `connect`. Only the documented errors may come of it, and no input may take more than 50 ms of
processor time. A fuzzer (atheris) that sees what of the package each input reaches makes more for
the decoder, for names and for `connect`.

On each store, whatever `send` accepts, under any name, key, correlation and thread, must come back
equal, from another store too that is given the bytes this one keeps, and what it refuses must not
be there. And records that cannot be read, put into the store below the library, must become dead
letters (`undecodable`) with their bytes kept, while what waits behind them is delivered, and `peek`
and `messages` go on working. A round is one input; the smallest that fails is shown.""",
    trials=(
        Trial("records read", given(bodies, targets.read), 150, {"": 50_000}, 10_000, ONCE),
        Trial("messages made", given(_parts, targets.compose), 60, {"": 50_000}, 5_000, ONCE),
        Trial("names", given(texts, targets.name), 200, {"": 20_000}, 10_000, ONCE),
        Trial("URLs", given(urls, targets.url), 100, {"": 50_000}, 5_000, ONCE),
        *(
            Trial(
                f"{what}, fuzzed", fuzzed(target), 2000, {"": 1_000_000}, 100_000, ONCE, needs=lacks
            )
            for what, target in {"records": "read", "names": "name", "URLs": "url"}.items()
        ),
        Trial(
            "stored and read back",
            at_a_desk(st.tuples(names, letters), lambda desk, it: desk.round_trip(*it)),
            15,
            {"": 2_000},
            500,
            ALL,
        ),
        Trial(
            "unreadable records buried",
            at_a_desk(raw, lambda desk, some: desk.buried(some)),
            10,
            {"": 2_000},
            500,
            ALL,
        ),
    ),
)
