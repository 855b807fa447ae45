"""The pure parts of the Redis store: URLs, times, what a refusal means, what a script is."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import MovedError, ReadOnlyError, ResponseError

from afk.messaging import ConfigurationError, connect
from afk.messaging.stores.redis import scripts
from afk.messaging.stores.redis.codec import FOREVER, ms
from afk.messaging.stores.redis.faults import code_of, moved_to
from afk.messaging.stores.redis.server import Server, promised
from afk.messaging.stores.redis.url import place_at

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster")
hosts = st.lists(st.from_regex(r"[a-z]{1,9}(:[1-9][0-9]{0,3})?", fullmatch=True), min_size=1)
secrets = st.text(st.characters(codec="utf-8"), min_size=6).filter(
    lambda text: text not in "redis sentinel cluster localhost"
)


@given(st.sampled_from(SCHEMES), secrets, hosts, st.text(max_size=9))
def test_no_password_is_ever_shown(scheme: str, secret: str, names: list[str], path: str) -> None:
    password = f"pw-{secret}"
    url = f"{scheme}://user:{quote(password, safe='')}@{','.join(names)}/{quote(path)}"
    try:
        shown = repr(place_at(url, {}))
    except ConfigurationError as error:
        shown = str(error)
    assert password not in shown
    assert quote(password, safe="") not in shown


@given(st.text())
def test_any_text_is_a_bus_or_one_clear_error(text: str) -> None:
    with suppress(ConfigurationError):
        connect(f"redis://{text}")


@given(st.floats(min_value=0, max_value=1e300))
def test_times_are_whole_ms_that_lua_can_count(seconds: float) -> None:
    time = ms(seconds)
    assert 0 <= time <= FOREVER
    assert (time == 0) == (seconds == 0)
    if 0.001 <= seconds < FOREVER / 1000:
        assert abs(time - seconds * 1000) <= 0.5 + seconds * 1e-12


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MovedError("3999 127.0.0.1:6381"), "MOVED"),
        (ResponseError("MOVED 3999 127.0.0.1:6381"), "MOVED"),
        (ReadOnlyError("You can't write against a read only replica."), "READONLY"),
        (
            ResponseError("ERR Error running script: @user_script:1: -READONLY You can't"),
            "READONLY",
        ),
        (ResponseError("Script attempted to access a non local key in a cluster node"), "ASK"),
        (ResponseError("AFKRESET another epoch"), "AFKRESET"),
        (ResponseError("WRONGTYPE Operation against a key"), "WRONGTYPE"),
    ],
)
def test_a_refusal_is_known_however_it_is_worded(error: ResponseError, code: str) -> None:
    assert code_of(error) == code


def test_where_a_slot_went() -> None:
    assert moved_to(MovedError("3999 127.0.0.1:6381")) == ("127.0.0.1", 6381)
    assert moved_to(ResponseError("MOVED 3999 ::1:6381")) == ("::1", 6381)
    assert moved_to(ResponseError("nowhere")) is None


def test_no_more_durability_is_promised_than_there_is() -> None:
    def server(given: str | None, least: str = "memory") -> Server:
        return Server(epoch="e", durability=given, least=given or least)

    assert promised(server("process"), None) == ("process", False)
    assert promised(server("disk"), "process") == ("process", False)
    assert promised(server(None, "process"), None) == ("process", False)
    assert promised(server(None, "process"), "disk") == ("disk", True)
    assert promised(server(None, "process"), "process") == ("process", False)
    with pytest.raises(ConfigurationError, match="appendfsync always"):
        promised(server("process"), "disk")


@pytest.mark.parametrize("name", scripts.NAMES)
def test_every_script_says_what_it_takes(name: str) -> None:
    own = scripts.read(name)
    head = re.match(r"(--.*\n)+", own)
    assert head, name
    assert "Answers" in head[0], name
    for argument in re.findall(r"ARGV\[(\d+)\]", own[head.end() :]):
        assert re.search(rf"\[{argument}\]|\[\d+\.\.\]", head[0]), f"{name}: ARGV[{argument}]"


def test_the_documented_rights_are_what_the_scripts_need() -> None:
    page = Path(__file__).parents[2] / "docs" / "stores" / "redis.md"
    rights = re.search(r'commands = """(.*?)"""', page.read_text(), re.DOTALL)
    assert rights
    called = set()
    for name in (*scripts.NAMES, "enter"):
        called |= set(re.findall(r"call\('([A-Z]+)'", scripts.source(name)))
    allowed = set(rights[1].split())
    own = {"info", "config|get", "script|load", "eval", "evalsha", "blpop", "lpop"}
    assert {name.lower() for name in called} | own == allowed
