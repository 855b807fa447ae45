"""Values that break parsers, and strategies that make more of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

TEXTS = (
    *("", "\x00", "a\x00b", "\u202egnp.exe", "\x1b[31m", "\r\n", "'; DROP TABLE x; --", '"', "\\"),
    *("*", ">", "%", "%00", "%s%n", "{}", "a.b.>", "$JS.API", "\ud800", "\udfff\ud800", "\ufeff"),
    *("e\u0301", "\U0001f600", "../../etc", "afk.x", "NaN", "__proto__", "x" * 600),
)
"""What names, keys and texts are made of by somebody who means harm."""

_texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=20), st.text("abc.-_:/@", max_size=9))
texts: st.SearchStrategy[str] = st.one_of(
    _texts, st.text(st.characters(categories=("Cs", "Cc", "Cf", "Lo", "Zs")), max_size=8)
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**4299, -0.0, 5e-324]),
    st.floats(),
    texts,
    st.binary(max_size=5),
)
_containers = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts, inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)


def nested(inner: Any, depth: int, key: str | None) -> Any:
    """The value so deep in lists, or in dicts."""
    for _ in range(depth):
        inner = [inner] if key is None else {key: inner}
    return inner


contents: st.SearchStrategy[Any] = st.one_of(
    _containers,
    st.builds(
        nested,
        _scalars,
        st.sampled_from([1, 98, 99, 100, 101, 500, 3000]),
        st.sampled_from([None, "k"]),
    ),
)
"""Anything somebody may pass as a content: JSON or not."""

_FIELDS = {"v": 1, "id": "x", "sender": "a", "recipient": "bob", "timestamp": 1.0, "content": 1}
_JSON = (
    *("1", "{}", "[1]", '"x"', "null", "NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"'),
    *('{"a":1,"a":2}', '"\\u0000"', "[" * 1000 + "]" * 1000, "[" * 90_000, '{"a":' * 2000),
    *('"\\u202e"', "1e308", "-1", "0", "true", '"low"', '"request"', "1" + "0" * 400, "'", ""),
)
_NAMES = (*_FIELDS, "metadata", "trace", "hops", "seq", "key", "kind", "priority", "zzz", "awaited")


def _record(changes: dict[str, str], twice: bool) -> bytes:
    fields = {name: json.dumps(value) for name, value in _FIELDS.items()}
    items = list((fields | changes).items()) + (list(changes.items()) if twice else [])
    return ("{" + ",".join(f'"{name}":{text}' for name, text in items) + "}").encode()


def _spoilt(record: bytes, at: int, junk: bytes) -> bytes:
    at %= len(record) + 1
    return record[:at] + junk + record[at + len(junk) :]


_records = st.builds(
    _record,
    st.dictionaries(st.sampled_from(_NAMES), st.sampled_from(_JSON), max_size=3),
    st.booleans(),
)
bodies: st.SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=64),
    _records,
    st.builds(_spoilt, _records, st.integers(0, 10_000), st.binary(max_size=3)),
)
"""Bytes that may stand where a record should: some are one, some nearly."""

SCHEMES = (
    *("memory", "sqlite", "redis", "rediss", "unix", "redis+sentinel", "redis+cluster"),
    *("postgresql", "postgres", "nats", "tls", "http", "", "REDIS"),
)
_PARTS = (
    *("://", ":", "/", "//", "@", "?", "#", "&", "=", "%", "[", "]", "[::1]", ":0", ":99999", ","),
    *("host", "user:p@ss", "db", "namespace=", "lease=nan", "capacity=1e9", "retention=", "0"),
    *("durability=disk", "replicas=x", "max_bytes=9" + "9" * 5000, "sslmode=", "%2F", "%ff"),
    *TEXTS,
)
urls: st.SearchStrategy[str] = st.builds(
    lambda scheme, start, parts: scheme + start + "".join(parts),
    st.sampled_from(SCHEMES),
    st.sampled_from(["://", ":///", ":", "://host/"]),
    st.lists(st.one_of(st.sampled_from(_PARTS), st.text(max_size=4)), max_size=6),
)
"""What may be given to `connect`."""
