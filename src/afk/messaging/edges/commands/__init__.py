"""What `afk` can do. Bad input is one line on standard error and exit code 2."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from cyclopts import App

from . import (
    bench,
    dead,
    demo,
    dev,
    doctor,
    following,
    migrate,
    naming,
    reading,
    receiving,
    sending,
)


def _version() -> str:
    try:
        return version("afk-messaging")
    except PackageNotFoundError:
        return "unknown (not installed)"


app = App(
    name="afk",
    help="Durable messages between agents.",
    version=_version,
    suppress_keyboard_interrupt=False,  # `main` sees to it
)
for group in (sending, receiving, reading, following, doctor, bench, migrate, demo):
    app.update(group.commands)
for group in (dead, dev, naming):
    app.command(group.commands)
app.register_install_completion_command()
