"""What the documentation says of the code is checked against the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import afk.messaging
from afk.messaging import MessagingError, RetryPolicy, errors
from afk.messaging.lifecycle import TRANSITIONS, DeadReason
from afk.messaging.records import Record
from afk.messaging.sending import SendOptions
from afk.messaging.settings import Settings
from afk.messaging.store import Capabilities
from afk.messaging.testing.promises import PROMISES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


def read(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def first_cells(text: str) -> list[str]:
    """The `code` in the first cell of each table row."""
    return re.findall(r"^\| `(\w+)`", text, re.MULTILINE)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def script(name: str) -> ModuleType:
    """A program that writes a part of the documentation."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lifecycle_diagram_is_up_to_date() -> None:
    text = read("lifecycle.md")
    assert script("make_lifecycle").page(text) == text, "run: python docs/make_lifecycle.py"


def test_the_comparison_of_stores_is_up_to_date() -> None:
    text = read("stores/index.md")
    assert script("make_comparison").page(text) == text, "run: python docs/make_comparison.py"


def test_the_comparison_names_the_promises_of_the_contract() -> None:
    titles = re.findall(r"^\*\*(\d+)\. (.+?)[.:]?\*\*", read("contract.md"), re.MULTILINE)
    promised = [(str(p.number), p.title) for p in PROMISES if not p.title.startswith("...")]
    assert [*promised, ("15", "Said plainly")] == titles


def test_every_capability_is_compared_or_explained() -> None:
    compared = {promise.flag for promise in PROMISES} | {"shared", "outbox"}
    assert compared - {None} | {"asserted", "instant"} == set(Capabilities.__struct_fields__)
    assert set(Capabilities.__struct_fields__) <= set(first_cells(read("contract.md")))


def test_every_transition_is_drawn() -> None:
    diagram = script("make_lifecycle").diagram()
    for (state, event), following in TRANSITIONS.items():
        arrows = [
            line
            for line in diagram.splitlines()
            if line.strip().startswith(f"{state or '[*]'} --> {following}:")
        ]
        assert len(arrows) == 1
        assert event in arrows[0]


def test_every_field_of_the_record_is_documented() -> None:
    assert first_cells(read("wire-format.md")) == list(Record.__struct_fields__)


def test_the_defaults_of_the_record_are_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", read("wire-format.md"), re.MULTILINE)
    said = {name: default.strip().strip("`") for name, default in rows}
    for field in msgspec.structs.fields(Record):
        if field.required:
            assert said[field.name] == "required"
        elif isinstance(field.default, (str, int, bool)) or field.default is None:
            assert said[field.name] == msgspec.json.encode(field.default).decode()
        else:
            assert said[field.name] == "{}"


def test_every_option_is_documented_with_its_default() -> None:
    text = section(read("reference/options.md"), "Bus options")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    fields = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert set(rows) == {*fields, "namespace", "durability"}
    for name, default in fields.items():
        if name != "retry":
            assert rows[name].strip() == str(default)


def test_the_retry_policy_is_documented_with_its_defaults() -> None:
    text = section(read("reference/options.md"), "RetryPolicy")
    rows = dict(re.findall(r"^\| `(\w+)` \| `?\"?([^|`\"]+?)\"?`? \|", text, re.MULTILINE))
    assert rows == {f.name: str(f.default) for f in msgspec.structs.fields(RetryPolicy)}


def test_every_way_to_send_is_documented() -> None:
    text = section(read("reference/options.md"), "Sending")
    assert set(first_cells(text)) == set(SendOptions.__annotations__)


def test_every_dead_letter_reason_is_documented() -> None:
    text = section(read("how-to/retries-and-dead-letters.md"), "Dead letters")
    assert first_cells(text) == list(DeadReason.__args__)


def test_the_error_tree_is_that_of_the_code() -> None:
    text = read("reference/errors.md")
    tree = text.split("```text\n", 1)[1].split("\n```", 1)[0]
    assert errors.__doc__ is not None
    assert tree == errors.__doc__.split("\n\n", 1)[1].rstrip()
    public = {
        name
        for name in afk.messaging.__all__
        if isinstance(error := getattr(afk.messaging, name), type)
        and issubclass(error, MessagingError)
    }
    assert set(first_cells(text)) == public - {"MessagingError"}


def test_the_plain_commands_are_those_of_make_test() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = makefile.split("\ntest:", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    checks = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe]
    installs = re.findall(r"@\$\(BIN\)/pip install --quiet ([^#\n]+)", makefile)
    assert len(checks) > 3
    assert len(installs) > 1
    said = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^\$ ([^#\n]+)", said, re.MULTILINE)
    commands = [command.strip() for command in commands]
    assert [check for check in checks if check not in commands] == []
    assert ".venv/bin/pip install '.[cli]'" in commands
    for arguments in installs[1:]:  # the first is the demo's, which need not be editable
        assert f".venv/bin/pip install {arguments.strip()}" in commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    local = [target for target in targets if "://" not in target and not target.startswith("/")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = read("index.md")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert [page for page in pages if page != "index.md" and f"({page})" not in index] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_skipped_snippet_says_why(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"<!-- skip:(?! next \")", text) == []
    assert "```python no-run" not in text
