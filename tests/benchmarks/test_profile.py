"""Whose code the samples of a profile are counted as."""

from __future__ import annotations

import pytest

from benchmarks.parts.profile import LAYERS, REST, layers

LIBRARY = "/somewhere/src/afk/messaging"
PYTHON = "/usr/lib/python3.11"

LEAVES = {
    f"send ({LIBRARY}/mailbox.py:52)": "mailboxes",
    f"take ({LIBRARY}/stores/ledger/ledger.py:60)": "ledger",
    f"_insert ({LIBRARY}/stores/sqlite/put.py:260)": "store",
    f"_packed ({LIBRARY}/stores/redis/link.py:290)": "store",
    "publish (/site-packages/nats/aio/client.py:900)": "driver",
    f"_run_once ({PYTHON}/asyncio/base_events.py:1922)": "event loop",
    f"select ({PYTHON}/selectors.py:468)": "event loop",
    "some (/somewhere/benchmarks/loads/library.py:64)": REST,
}


@pytest.mark.parametrize(("leaf", "layer"), LEAVES.items())
def test_a_sample_counts_as_the_code_that_ran(leaf: str, layer: str) -> None:
    outer = f"thread (1): MainThread;run ({PYTHON}/asyncio/runners.py:190)"
    found = layers(f"{outer};{leaf} 500\n")  # a second of samples
    assert found == {name: float(name == layer) for name in (*LAYERS, REST)}


def test_imports_are_no_part_of_a_message() -> None:
    imports = f"_find (<frozen importlib._bootstrap>:1);<module> ({LIBRARY}/core.py:1) 9\n"
    took = layers(imports + f"take ({LIBRARY}/stores/ledger/ledger.py:60) 500\n")
    assert sum(took.values()) == took["ledger"] == 1.0


def test_a_layers_samples_add_up() -> None:
    one, more = f"a ({LIBRARY}/core.py:1) 50\n", f"b ({PYTHON}/threading.py:1) 150\n"
    took = layers(one + more)
    assert (took["mailboxes"], took["event loop"]) == (0.1, 0.3)
