"""The checks, a module for each group of promises of docs/contract.md.

A check is a coroutine function named `check_...`, whose docstring is the promise in one
sentence. A module that checks a capability states which in the check itself.
"""

from __future__ import annotations

import importlib
import pkgutil

from ..subject import Check


def _collect() -> tuple[Check, ...]:
    found: list[Check] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        names = vars(importlib.import_module(f"{__name__}.{module}"))
        found += [value for name, value in names.items() if name.startswith("check_")]
    return tuple(found)


CHECKS: tuple[Check, ...] = _collect()
