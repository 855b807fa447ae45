"""What a trial brings about on purpose is no news."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged meanwhile; in a process that goes on to something else afterwards."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
