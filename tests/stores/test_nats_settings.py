"""What a NATS server is, how it is named, and which clients lead to it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
import time
import traceback
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import nkeys
import pytest

from afk.messaging import (
    ConfigurationError,
    MessageBus,
    MessagingError,
    NATSA2ADeliveryStore,
    NATSMessageBus,
    StoreError,
    connect,
)
from afk.messaging.stores.nats.stream import Names
from afk.messaging.testing.servers import NATS, find, free_port
from afk.messaging.testing.steps import claimed, contents

from .over_nats import bus_at, jetstream, log_of, space, store_of

SECRET = "s3cret/0f:mine@%&"
QUOTED = "s3cret%2F0f%3Amine%40%25%26"
AT_ONCE = 3.0
"""Seconds within which what cannot work is said."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], NATS]]:
    """Starts servers of the test's own, with this configuration."""
    servers: list[NATS] = []

    def start(config: str) -> NATS:
        server = NATS(find("nats"), tmp_path / f"server-{len(servers)}", config)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and certificates and keys of a server at 127.0.0.1 and of a client, signed by it."""
    folder = tmp_path_factory.mktemp("papers")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")

    def openssl(*words: str) -> None:
        program = shutil.which("openssl")
        assert program, "openssl was not found; to get it: apt-get install openssl"
        subprocess.run([program, *words], cwd=folder, check=True, capture_output=True)

    signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # Python 3.13 asks for it
    out = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    openssl("req", "-x509", *new_key, *signs, *out)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    for name in ("server", "client"):
        request = ("-keyout", f"{name}.key", "-out", "request.pem", "-subj", f"/CN={name}")
        openssl("req", *new_key[:-2], *request)
        openssl("x509", "-req", "-in", "request.pem", *signing, "-out", f"{name}.pem", "-days", "2")
    return folder


async def carries(bus: MessageBus) -> None:
    """A message goes in, is held for a while, and comes out."""
    mailbox = await bus.register("a")
    await mailbox.send("a", "content")
    async with await claimed(mailbox) as delivery:
        await delivery.hold(5)
    await mailbox.send("a", "content")
    assert await contents(mailbox) == ["content"]


async def refusal_of(bus: MessageBus) -> MessagingError:
    """Why the bus cannot be opened, said at once."""
    began = time.monotonic()
    with pytest.raises(MessagingError) as raised:
        await bus.register("a")
    assert time.monotonic() - began < AT_ONCE
    await bus.aclose()
    return raised.value


def hides(error: BaseException, caplog: pytest.LogCaptureFixture, *more: object) -> None:
    """The secret is in nothing that anyone sees."""
    shown = "".join(traceback.format_exception(error)) + caplog.text + repr(more)
    for secret in (SECRET, QUOTED):
        assert secret not in shown
        assert repr(secret)[1:-1] not in shown


# -- what an accepted message survives ---------------------------------------------------


async def made(url: str, storage: str, **more: Any) -> str:
    """A namespace whose stream somebody else has made."""
    namespace = space()
    names = log_of(namespace)
    request = {"name": names.log, "subjects": [names.steps], "storage": storage, **more}
    client = await nats.connect(url)
    answer = await client.request(
        f"$JS.API.STREAM.CREATE.{names.log}", json.dumps(request).encode(), timeout=5
    )
    await client.close()
    assert b'"error"' not in answer.data
    return namespace


async def test_the_durability_is_that_of_the_stream(nats_server: NATS) -> None:
    url = nats_server.url
    given = {
        space(): "process",
        await made(url, "file"): "process",
        await made(url, "memory"): "memory",
        await made(url, "file", persist_mode="async"): "memory",
    }
    for namespace, durability in given.items():
        async with bus_at(url, namespace) as bus:
            receipt = await (await bus.register("a")).send("a", 1)
            assert receipt.durability == bus.durability == durability
            assert not bus.capabilities.asserted
        for wanted in ("memory", "process", "disk"):
            other = NATSMessageBus(url, namespace=namespace, durability=wanted)
            if durability == "memory" != wanted:
                error = await refusal_of(other)
                assert isinstance(error, ConfigurationError)
                for word in ("durability", repr(wanted), log_of(namespace).log):
                    assert word in str(error)
                continue
            async with other:
                assert other.durability == "memory" or await other.agents() == ["a"]
                await other.agents()
                assert other.durability == wanted
                assert other.capabilities.asserted == (wanted == "disk")


# -- where it is -------------------------------------------------------------------------


async def test_one_of_several_hosts_is_enough(nats_server: NATS) -> None:
    nobody = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    url = f"nats://{nobody[0]},127.0.0.1:{nats_server.port},{nobody[1]}?namespace={space()}"
    async with connect(url) as bus:
        await carries(bus)


@pytest.mark.parametrize(
    ("config", "login"),
    [
        (f'authorization {{ user: ann, password: "{SECRET}" }}', f"ann:{QUOTED}@"),
        (f'authorization {{ token: "{SECRET}" }}', f"{QUOTED}@"),
    ],
    ids=["password", "token"],
)
async def test_a_login_in_the_url(
    started: Callable[[str], NATS], config: str, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = started(config)
    url = server.url.replace("//", f"//{login}")
    async with connect(url) as bus:
        await carries(bus)
        assert SECRET not in repr(store_of(bus))
        server.kill()
        await asyncio.sleep(0.1)
    server.start()
    for wrong in (url.replace("s3cret", "wr0ng"), server.url, url.replace("ann:", "eve:")):
        if wrong == url:
            continue
        bus = connect(wrong)
        error = await refusal_of(bus)
        assert isinstance(error, StoreError)
        assert "uthorization" in str(error)
        hides(error, caplog, bus, store_of(bus))
        assert "wr0ng" not in str(error)
    nowhere = connect(url.replace(str(server.port), str(free_port())))
    error = await refusal_of(nowhere)
    assert isinstance(error, StoreError)
    assert "cannot be reached" in str(error)
    hides(error, caplog, nowhere)


async def test_a_revoked_password_is_said(
    started: Callable[[str], NATS], caplog: pytest.LogCaptureFixture
) -> None:
    server = started(f'authorization {{ user: ann, password: "{SECRET}" }}')
    url = server.url.replace("//", f"//ann:{QUOTED}@")
    async with connect(url, patience=2.0) as bus:
        mailbox = await bus.register("a")
        server.stop()
        server.config = 'authorization { user: ann, password: "another" }'
        server._answers = lambda: True  # type: ignore[method-assign]
        await asyncio.to_thread(server.start)
        with pytest.raises(StoreError, match="uthorization") as raised:
            await mailbox.send("a", 1)
        hides(raised.value, caplog)


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_with_a_ca_of_ones_own(
    started: Callable[[str], NATS], papers: Path, mutual: bool
) -> None:
    verify = f', ca_file: "{papers}/ca.pem", verify: true' if mutual else ""
    files = f'cert_file: "{papers}/server.pem", key_file: "{papers}/server.key"{verify}'
    server = started(f"tls {{ {files} }}")
    url = server.url.replace("nats:", "tls:")
    known = f"{url}?ssl_ca_certs={papers}/ca.pem"
    if mutual:
        assert isinstance(await refusal_of(connect(known)), StoreError)
        known += f"&ssl_certfile={papers}/client.pem&ssl_keyfile={papers}/client.key"
    async with connect(known) as bus:
        await carries(bus)
    for unknown in (connect(url), connect(server.url)):
        error = await refusal_of(unknown)
        assert isinstance(error, StoreError)
        assert "certificate" in str(error).lower()
    with pytest.raises(ConfigurationError, match="ssl_ca_certs"):
        connect(f"{server.url}?ssl_ca_certs={papers}/ca.pem")


def seed() -> tuple[str, str]:
    """A user's seed, and the public key of it."""
    text = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return text.decode(), nkeys.from_seed(bytearray(text)).public_key.decode()


async def test_a_file_with_an_nkey(started: Callable[[str], NATS], tmp_path: Path) -> None:
    secret, public = seed()
    (tmp_path / "user.nk").write_text(secret)
    (tmp_path / "other.nk").write_text(seed()[0])
    (tmp_path / "no.nk").write_text("nothing")
    server = started(f"authorization {{ users: [{{ nkey: {public} }}] }}")
    async with connect(f"{server.url}?nkey={tmp_path}/user.nk") as bus:
        await carries(bus)
    for name in ("other.nk", "no.nk"):
        error = await refusal_of(connect(f"{server.url}?nkey={tmp_path}/{name}"))
        assert secret not in str(error)
    with pytest.raises(ConfigurationError, match="no file"):
        connect(f"{server.url}?nkey={tmp_path}/missing.nk")


def token(claims: dict[str, Any], issuer: nkeys.KeyPair) -> str:
    """A JWT as NATS has it."""
    claims |= {"iat": 1_700_000_000, "iss": issuer.public_key.decode(), "jti": uuid.uuid4().hex}
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, claims]
    text = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return (text + b"." + urlsafe_b64encode(issuer.sign(text)).rstrip(b"=")).decode()


def pair(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


async def test_a_credentials_file(started: Callable[[str], NATS], tmp_path: Path) -> None:
    operator, account = pair(nkeys.PREFIX_BYTE_OPERATOR), pair(nkeys.PREFIX_BYTE_ACCOUNT)
    secret, public = seed()
    system = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    everything = {"subs": -1, "conn": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1}
    room = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}

    def claims(subject: str, name: str, **more: Any) -> dict[str, Any]:
        return {"sub": subject, "name": name, "nats": {"version": 2, **more}}

    own = token(claims(operator.public_key.decode(), "op", type="operator"), operator)
    accounts = {
        key.public_key.decode(): token(
            claims(key.public_key.decode(), name, type="account", limits=everything | more),
            operator,
        )
        for key, name, more in ((account, "A", room), (system, "SYS", {}))
    }
    user = token(
        claims(public, "ann", type="user", subs=-1, data=-1, payload=-1),
        account,
    )
    preload = "\n".join(f"{key}: {jwt}" for key, jwt in accounts.items())
    server = started(
        f"operator: {own}\nresolver: MEMORY\nsystem_account: {system.public_key.decode()}\n"
        f"resolver_preload {{ {preload} }}"
    )
    jwt = f"-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n"
    nkey = f"-----BEGIN USER NKEY SEED-----\n{secret}\n------END USER NKEY SEED------\n"
    (tmp_path / "user.creds").write_text(jwt + "\n" + nkey)
    async with connect(f"{server.url}?creds={tmp_path}/user.creds") as bus:
        await carries(bus)
    client = await nats.connect(server.url, user_credentials=str(tmp_path / "user.creds"))
    async with NATSMessageBus(client) as bus:
        await carries(bus)
    await client.close()
    for text in ("", jwt, nkey, "anything"):
        (tmp_path / "bad.creds").write_text(text)
        with pytest.raises(ConfigurationError, match="creds"):
            connect(f"{server.url}?creds={tmp_path}/bad.creds")


# -- a client of the user's --------------------------------------------------------------


async def test_the_settings_of_a_client_are_taken_over_and_it_is_not_closed(
    started: Callable[[str], NATS],
) -> None:
    permissions = '{ subscribe: ["mine.>", "afk.>"], publish: ">" }'
    server = started(
        "authorization { users: [ "
        f'{{ user: ann, password: "{SECRET}", permissions: {permissions} }} ] }}'
    )
    for options in (
        {"servers": server.url, "user": "ann", "password": SECRET},
        {"servers": server.url.replace("//", f"//ann:{SECRET[:-1]}wrong@"), "password": SECRET},
    ):
        if "user" not in options:
            continue
        client = await nats.connect(inbox_prefix="mine", **options)
        async with NATSMessageBus(client, namespace=space()) as bus:
            await carries(bus)
            assert SECRET not in repr(store_of(bus))
        assert client.is_connected
        await client.close()


@pytest.mark.parametrize(
    "given",
    [
        nats.aio.client.Client(),
        None,
        7,
        object(),
        "redis://127.0.0.1",
        "nats://127.0.0.1:4222?creds=x",
        "nats://127.0.0.1:4222/path",
        "nats://127.0.0.1:port",
        "nats://:4222",
        "nats://a:99999",
        "http://127.0.0.1",
        b"nats://127.0.0.1",
    ],
)
def test_what_leads_nowhere_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"client|url|URL"):
        NATSA2ADeliveryStore(given)


@pytest.mark.parametrize(
    "options",
    [
        {"replicas": 0},
        {"replicas": 6},
        {"patience": 0},
        {"patience": float("nan")},
        {"durability": "gold"},
        {"namespace": ""},
        {"namespace": "a b"},
        {"namespace": "a*"},
        {"namespace": ">"},
    ],
    ids=repr,
)
def test_what_is_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        NATSA2ADeliveryStore("nats://127.0.0.1", **options)


async def test_an_old_server_is_refused() -> None:
    info = {"server_id": "x", "version": "2.10.29", "headers": True, "max_payload": 1048576}

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while b"PING" not in await reader.readline():
            pass
        writer.write(b"PONG\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal_of(bus_at(f"nats://127.0.0.1:{port}"))
        assert isinstance(error, ConfigurationError)
        assert "2.10" in str(error)
        assert "2.12" in str(error)


async def test_what_is_no_nats_server_is_said() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert isinstance(await refusal_of(bus_at(f"nats://127.0.0.1:{port}")), StoreError)


# -- names -------------------------------------------------------------------------------

ODD = [
    "a.b",
    "a_2eb",
    "a_b",
    "a-b",
    "a:b",
    "a/b",
    "a@b",
    "A.b",
    "_",
    "_5f",
    "a",
    "x" * 128,
    "/" * 128,
    "/" * 127 + ".",
]


def test_no_two_namespaces_have_one_name() -> None:
    names = [Names(each) for each in ODD]
    for kind in ("log", "steps", "images", "manifest"):
        assert len({getattr(each, kind) for each in names}) == len(ODD)
    for each in names:
        assert re.fullmatch(r"[A-Za-z0-9_-]+", each.log)
        assert len(each.log) <= 255


async def test_namespaces_do_not_reach_each_other(nats_server: NATS) -> None:
    start = uuid.uuid4().hex[:8]
    for namespace in ODD[:11]:
        async with bus_at(nats_server.url, start + namespace) as bus:
            assert await bus.agents() == []
            mailbox = await bus.register("a")
            await mailbox.send("a", namespace)
    for namespace in ODD[:11]:
        async with bus_at(nats_server.url, start + namespace) as bus:
            assert await contents(await bus.register("a")) == [namespace]
    longest = "/" * 120 + start
    async with bus_at(nats_server.url, longest) as bus:
        await carries(bus)


async def test_names_of_agents_are_no_matter_of_subjects(nats_server: NATS) -> None:
    async with bus_at(nats_server.url, space()) as bus:
        names = ["a.b", "a", "a/b:c@d", "_INBOX.x", "x" * 128]
        boxes = [await bus.register(name) for name in names]
        for box in boxes:
            for name in names:
                await box.send(name, [box.name, name], thread_id="a.>.*", idempotency_key="*.>")
        for box in boxes:
            assert await contents(box) == [[name, box.name] for name in names]


async def test_the_subject_is_for_the_log_alone(nats_server: NATS) -> None:
    namespace = space()
    async with bus_at(nats_server.url, namespace) as bus, jetstream(nats_server.url) as js:
        await (await bus.register("a")).send("a", 1)
        info = await js.stream_info(log_of(namespace).log)
        assert info.config.subjects == [log_of(namespace).steps]
