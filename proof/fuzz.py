"""A process that fuzzes: libFuzzer, by atheris, makes the input that reaches more of the package.

`python -m proof.fuzz TARGET FOLDER [OPTION]...`: a function of `proof.parts.inputs.targets`, a
folder of examples to begin with, options of libFuzzer. It ends with 0 if nothing was found.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lacks() -> str:
    """What keeps it from running here; "" if nothing does."""
    if find_spec("atheris") is None:
        return "atheris not found; to get it: pip install --group fuzz"
    return ""


def main() -> None:
    """Fuzz."""
    atheris: Any = import_module("atheris")
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["afk.messaging"]):  # before anyone else imports it
        from proof.parts.inputs import targets

    target = getattr(targets, name)

    def try_it(data: bytes) -> None:
        target(data if name == "read" else _text(atheris.FuzzedDataProvider(data)))

    atheris.Setup([sys.argv[0], *options], try_it)
    atheris.Fuzz()


def _text(data: Any) -> str:
    text: str = data.ConsumeUnicode(1000)
    return text


if __name__ == "__main__":
    main()
