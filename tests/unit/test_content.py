"""JSON content: what goes through unchanged, and what is refused with its place."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afk.messaging import InvalidMessageError
from afk.messaging.content import (
    INT_MAX,
    INT_MIN,
    MAX_DEPTH,
    canonical,
    decode_content,
    encode_content,
)

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(INT_MIN, INT_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_json_comes_back_as_it_went(value: Any) -> None:
    back = decode_content(encode_content(value))
    assert back == value
    assert repr(back) == repr(value), "the types are the same too"


@given(values)
def test_the_text_is_json_for_everyone(value: Any) -> None:
    assert json.loads(bytes(encode_content(value))) == value


@given(values)
def test_the_copy_is_its_own(value: Any) -> None:
    raw = encode_content([value])
    first = decode_content(raw)
    first.append("changed")
    assert decode_content(raw) == [value]


@given(values)
def test_a_tuple_is_a_list(value: Any) -> None:
    assert decode_content(encode_content({"t": (value, (value,))})) == {"t": [value, [value]]}


@given(st.dictionaries(text, values, min_size=2), st.randoms())
def test_the_order_of_keys_is_not_part_of_the_value(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    shuffled = {key: value[key] for key in keys}
    assert canonical(encode_content(shuffled)) == canonical(encode_content(value))


@given(values, values)
def test_other_values_have_another_canonical_text(one: Any, other: Any) -> None:
    same = canonical(encode_content(one)) == canonical(encode_content(other))
    assert not same or one == other


class Alien:
    """Nothing JSON knows."""


aliens = st.sampled_from(
    [
        Alien(),
        Alien,
        {1, 2},
        frozenset(),
        b"bytes",
        1j,
        math.nan,
        math.inf,
        -math.inf,
        INT_MAX + 1,
        INT_MIN - 1,
        10**400,
        "\ud800",
        "a\udfffb",
        {1: "a"},
        {None: "a"},
        {("a",): 1},
        {b"k": 1},
        {"\ud800": 1},
        range(3),
        msgspec.UNSET,
    ]
)
paths = st.lists(st.integers(0, 3) | text, max_size=5)


@given(aliens, paths)
def test_anything_else_is_refused_with_its_place(alien: Any, path: list[int | str]) -> None:
    value, place = alien, ""
    for step in path:
        place = f"[{step!r}]" + place
        value = [None] * step + [value] if isinstance(step, int) else {step: value}
    with pytest.raises(InvalidMessageError) as raised:
        encode_content(value, "payload")
    assert str(raised.value).startswith("payload" + place)


@pytest.mark.parametrize("leaf", [[], {}, [1], {"k": None}, "x", 1])
def test_depth_counts_containers(leaf: Any) -> None:
    own = isinstance(leaf, (list, dict))
    most = MAX_DEPTH - own
    for wrap in (lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,)):
        deep: Any = leaf
        for _ in range(most):
            deep = wrap(deep)
        assert decode_content(encode_content(deep)) is not None
        with pytest.raises(InvalidMessageError, match="deeper than 100"):
            encode_content(wrap(deep))


def test_wide_is_not_deep() -> None:
    wide = [[[]] for _ in range(1000)]
    assert decode_content(encode_content(wide)) == wide
    text_only = "[{" * 1000
    assert decode_content(encode_content(text_only)) == text_only


@pytest.mark.parametrize("levels", [101, 999, 1001, 100_000])
def test_however_deep_it_is_refused(levels: int) -> None:
    deep: Any = []
    for _ in range(levels):
        deep = [deep]
    with pytest.raises(InvalidMessageError, match="deeper than 100"):
        encode_content(deep)
    while deep:  # or Python would free it by recursion
        deep = deep.pop()


def test_what_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidMessageError, match="deeper than 100"):
        encode_content(loop)


class Inner(msgspec.Struct):
    number: float


class Outer(msgspec.Struct):
    inner: Inner
    names: list[str]


def test_a_struct_is_encoded_whole() -> None:
    value = Outer(Inner(0.5), ["a"])
    assert decode_content(encode_content(value)) == {"inner": {"number": 0.5}, "names": ["a"]}


@pytest.mark.parametrize("number", [math.nan, math.inf, INT_MAX + 1])
def test_a_struct_is_held_to_the_same_rules(number: float) -> None:
    with pytest.raises(InvalidMessageError, match=r"content\['inner'\]\['number'\]"):
        encode_content(Outer(Inner(number), []))


def test_a_pydantic_model_is_encoded() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", n=(float, ...))
    assert decode_content(encode_content(model(n=1.5))) == {"n": 1.5}
    with pytest.raises(InvalidMessageError):
        encode_content(model(n=math.nan))
