"""What a check expects to go wrong, without a test runner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

E = TypeVar("E", bound=BaseException)


class Raised(Generic[E]):
    """The error that was raised; there once the block is left."""

    error: E

    def __str__(self) -> str:
        return str(self.error)


@contextmanager
def raises(kind: type[E], *words: str) -> Iterator[Raised[E]]:
    """The block must raise `kind`, and its text must contain each of `words`."""
    raised: Raised[E] = Raised()
    try:
        yield raised
    except kind as error:
        raised.error = error
    if not hasattr(raised, "error"):
        raise AssertionError(f"{kind.__name__} was not raised")
    missing = [word for word in words if word not in str(raised)]
    assert not missing, f"{kind.__name__} does not say {missing}: {raised}"
