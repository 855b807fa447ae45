"""One command to a server by its wire protocol, without a client library."""

from __future__ import annotations

import socket
from typing import Any, BinaryIO


class CommandError(RuntimeError):
    """The server refused a command; the text is its own."""


def ask(
    host: str, port: int, *args: str | int, password: str | None = None, timeout: float = 5.0
) -> Any:
    """The answer to one command, over a connection of its own.

    Strings come and go as UTF-8; bytes that are none survive the way there and back. Raises
    CommandError when the server says no, OSError when it does not answer.
    """
    with (
        socket.create_connection((host, port), timeout) as connection,
        connection.makefile("rb") as stream,
    ):
        if password is not None:
            connection.sendall(_encoded("AUTH", password))
            _answer(stream)
        connection.sendall(_encoded(*args))
        return _answer(stream)


def fields(text: str) -> dict[str, str]:
    """The `name:value` lines of an INFO."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def pairs(flat: list[str]) -> dict[str, str]:
    """A map that came as a list of names and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _encoded(*args: str | int) -> bytes:
    words = [str(arg).encode(errors="surrogateescape") for arg in args]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def _answer(stream: BinaryIO) -> Any:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the server closed the connection")
    kind, rest = line[:1], line[1:-2].decode(errors="surrogateescape")
    if kind == b"-":
        raise CommandError(rest)
    if kind == b"+":
        return rest
    number = int(rest)
    if kind == b":":
        return number
    if number < 0:
        return None
    if kind == b"*":
        return [_answer(stream) for _ in range(number)]
    return stream.read(number + 2)[:-2].decode(errors="surrogateescape")
