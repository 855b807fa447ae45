"""JSON content: one encode is the check, the copy and the wire form.

What does not come back equal from an encode and decode was not JSON. Only then is the
value walked, to name the place, or to turn what is allowed to change (a tuple) into JSON.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from .errors import InvalidMessageError

MAX_DEPTH = 100
INT_MIN, INT_MAX = -(2**63), 2**64 - 1

_PLAIN = {dict, list, tuple, str, int, float, bool, type(None)}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
# msgpack refuses integers beyond 64 bits, at a tenth of the price of looking at each value.
_check_ints = msgspec.msgpack.Encoder().encode


def _enc_hook(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # a pydantic model, without importing pydantic
        return value.model_dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} is not JSON")


def encode_content(value: Any, where: str = "content") -> msgspec.Raw:
    """JSON text of `value`, its own copy; InvalidMessageError names the place that is not JSON.

    A msgspec Struct, a dataclass or a pydantic model is encoded by its own rules.
    """
    if type(value) not in _PLAIN and _is_typed(value):
        try:
            # Not by way of JSON, which would turn a NaN inside into null unseen.
            value = msgspec.to_builtins(value, str_keys=True, enc_hook=_enc_hook)
        except (TypeError, ValueError, NotImplementedError, RecursionError) as error:
            raise InvalidMessageError(f"{where}: {error}") from error
    try:
        _check_ints(value)
        text = _encode(value)
        deep = text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deep(value)
        if not deep and _decode(text) == value:
            return msgspec.Raw(bytes(memoryview(text)))  # without the slack of the encoder's buffer
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # the walk below says where
    return msgspec.Raw(_encode(_walk(value, where, 0)))


def decode_content(raw: msgspec.Raw) -> Any:
    """The value of a stored content; ValueError where it cannot be read."""
    try:
        return _decode(raw)
    except RecursionError as error:
        raise ValueError(f"no content: {error}") from None


def canonical(raw: msgspec.Raw) -> bytes:
    """The same bytes for the same JSON value, whatever the order of keys."""
    return msgspec.json.encode(decode_content(raw), order="sorted")


def decode_as(raw: msgspec.Raw, kind: Any) -> Any:
    """The content as `kind`: a msgspec type, dataclass, TypedDict or pydantic model.

    Raises ValueError (msgspec's and pydantic's errors are ValueErrors) when it does not fit.
    """
    if hasattr(kind, "model_validate_json"):
        return kind.model_validate_json(bytes(raw))
    return msgspec.json.decode(raw, type=kind)


def _is_typed(value: Any) -> bool:
    kind = type(value)
    return (
        hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "model_dump")
    )


def _is_deep(value: Any) -> bool:
    """Whether it is nested past MAX_DEPTH, level by level, looking at containers only."""
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            child
            for item in layer
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list, tuple))
        ]
        if not layer:
            return False
    return True


def _walk(value: Any, where: str, depth: int) -> Any:
    """A JSON copy of `value`, or the error that names the first place that is not JSON."""
    if depth >= MAX_DEPTH and isinstance(value, (list, tuple, dict)):
        raise InvalidMessageError(f"{where[:80]}...: nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise InvalidMessageError(f"{where}: integers go from -2**63 to 2**64-1")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidMessageError(f"{where}: {value!r} is not JSON; send a string or None")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_walk(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {_key(k, where): _walk(v, f"{where}[{k!r}]", depth + 1) for k, v in value.items()}
    raise InvalidMessageError(
        f"{where}: {type(value).__name__} is not JSON; send None, bool, int, float, str, list"
        " or dict"
    )


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidMessageError(f"{where}: key {shown(key)} is not a string")
    return _text(key, where)


def shown(value: Any) -> str:
    """Its repr; integers of thousands of digits have none."""
    try:
        return repr(value)
    except ValueError:
        return f"this {type(value).__name__}"


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidMessageError(f"{where}: a lone surrogate is not valid text") from None
    return str(value)
