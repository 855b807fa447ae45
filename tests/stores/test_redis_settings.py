"""What a server is, how it is named, and which clients lead to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import subprocess
import sys
import time
import traceback
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import asyncio as aioredis
from redis import sentinel as sync_sentinel

from afk.messaging import (
    AgentMessage,
    ConfigurationError,
    MessageBus,
    MessagingError,
    RedisMessageBus,
    StoreError,
    connect,
)
from afk.messaging.testing.servers import Cluster, Option, Sentinels, Server, find, free_port
from afk.messaging.testing.steps import claimed, contents, until

SECRET = "s3cret-0f-mine"
AT_ONCE = 2.0
"""Seconds within which what cannot work is said."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of the test's own, with these options."""
    servers: list[Server] = []

    def start(**options: Option) -> Server:
        server = Server(find("redis"), tmp_path / f"server-{len(servers)}", **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and the certificate and key of a server at 127.0.0.1, signed by it."""
    folder = tmp_path_factory.mktemp("papers")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")

    def openssl(*words: str) -> None:
        program = shutil.which("openssl")
        assert program, "openssl was not found; to get it: apt-get install openssl"
        subprocess.run([program, *words], cwd=folder, check=True, capture_output=True)

    signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # Python 3.13 asks for it
    out = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    openssl("req", "-x509", *new_key, *signs, *out)
    openssl("req", *new_key[:-2], "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=s")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl("x509", "-req", "-in", "request.pem", *signing, "-out", "server.pem", "-days", "2")
    return folder


@pytest.fixture(scope="module")
def tls_server(papers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The host and port that speak TLS alone, with a password; and what else the URL must say."""
    port = free_port()
    with Server(
        find("redis"),
        tmp_path_factory.mktemp("tls"),
        requirepass=SECRET,
        tls_port=port,
        tls_cert_file=str(papers / "server.pem"),
        tls_key_file=str(papers / "key.pem"),
        tls_ca_cert_file=str(papers / "ca.pem"),
        tls_auth_clients="no",
    ):
        yield f"127.0.0.1:{port}", f"ssl_ca_certs={papers / 'ca.pem'}"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a password."""
    with Server(find("redis"), tmp_path_factory.mktemp("locked"), requirepass=SECRET) as server:
        yield server


def space() -> str:
    """A namespace that nobody else uses."""
    return uuid.uuid4().hex


def place_of(bus: MessageBus) -> Any:
    """Where the bus takes its server to be."""
    store: Any = bus._core.store
    return store._here._place


async def carries(bus: MessageBus) -> None:
    """A message goes in and comes out."""
    mailbox = await bus.register("a")
    await mailbox.send("a", "content")
    assert await contents(mailbox) == ["content"]


async def durability_of(url: str, **options: Any) -> tuple[str, bool]:
    """What the bus says it gives, and whether that is only said; the receipt says the same."""
    async with connect(url, namespace=space(), **options) as bus:
        receipt = await (await bus.register("a")).send("a", 1)
        assert receipt.durability == bus.durability
        return bus.durability, bus.capabilities.asserted


async def refusal_of(url: str, **options: Any) -> MessagingError:
    """Why the bus cannot be opened, said at once, whoever asks first."""
    bus = connect(url, namespace=space(), **options)
    began = time.monotonic()
    with pytest.raises(MessagingError) as raised:
        await bus.register("a")
    assert time.monotonic() - began < AT_ONCE
    await bus.aclose()
    return raised.value


# -- what an accepted message survives ---------------------------------------------------


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "given"),
    [
        ("no", "everysec", "memory"),
        ("no", "always", "memory"),
        ("yes", "no", "process"),
        ("yes", "everysec", "process"),
        ("yes", "always", "disk"),
    ],
)
async def test_the_durability_is_the_servers(
    started: Callable[..., Server], appendonly: str, appendfsync: str, given: str
) -> None:
    server = started(appendonly=appendonly, appendfsync=appendfsync)
    assert await durability_of(server.url) == (given, False)


async def test_more_durability_than_the_server_gives_is_refused_with_the_line_to_change(
    started: Callable[..., Server],
) -> None:
    server = started(appendonly="no")
    for wanted in ("process", "disk"):
        error = await refusal_of(server.url, durability=wanted)
        assert isinstance(error, ConfigurationError)
        assert "CONFIG SET appendonly yes" in str(error)
        assert repr(wanted) in str(error)
        assert "'memory'" in str(error)
    server.call("CONFIG", "SET", "appendonly", "yes")  # the line it named
    assert await durability_of(server.url, durability="process") == ("process", False)

    error = await refusal_of(server.url, durability="disk")
    assert isinstance(error, ConfigurationError)
    assert "CONFIG SET appendfsync always" in str(error)
    server.call("CONFIG", "SET", "appendfsync", "always")
    assert await durability_of(server.url, durability="disk") == ("disk", False)


async def test_less_durability_than_the_server_gives_is_what_is_promised(
    redis_server: Server, disk_server: Server
) -> None:
    assert await durability_of(redis_server.url, durability="memory") == ("memory", False)
    for less in ("memory", "process"):
        assert await durability_of(disk_server.url, durability=less) == (less, False)


def let_in(server: Server, *rules: str) -> str:
    """The URL of a user who may do all but what the rules take away."""
    server.call("ACL", "SETUSER", "ann", "reset", "on", f">{SECRET}", "~*", "&*", "+@all", *rules)
    return f"redis://ann:{SECRET}@{server.host}:{server.port}"


async def test_with_config_closed_the_weakest_that_info_allows_is_promised(
    started: Callable[..., Server],
) -> None:
    server = started(appendonly="yes", appendfsync="always")
    url = let_in(server, "-config")
    assert await durability_of(url) == ("process", False)
    assert await durability_of(url, durability="process") == ("process", False)
    assert await durability_of(url, durability="disk") == ("disk", True)

    server.call("CONFIG", "SET", "appendonly", "no")
    assert await durability_of(url) == ("memory", False)
    error = await refusal_of(url, durability="disk")
    assert isinstance(error, ConfigurationError)
    assert "CONFIG SET appendonly yes" in str(error)


async def test_with_config_and_info_closed_nothing_is_promised_but_a_word_is_taken(
    redis_server: Server,
) -> None:
    url = let_in(redis_server, "-config", "-info")
    assert await durability_of(url) == ("memory", False)
    assert await durability_of(url, durability="memory") == ("memory", False)
    assert await durability_of(url, durability="process") == ("process", True)
    assert await durability_of(url, durability="disk") == ("disk", True)


@pytest.mark.parametrize(
    "policy", ["allkeys-lru", "volatile-lru", "allkeys-random", "volatile-ttl"]
)
@pytest.mark.parametrize("closed", [(), ("-config",)], ids=["open", "without CONFIG"])
async def test_a_server_that_may_evict_mail_is_refused_with_the_line_to_change(
    started: Callable[..., Server], policy: str, closed: tuple[str, ...]
) -> None:
    server = started(maxmemory_policy=policy)
    url = let_in(server, *closed)
    error = await refusal_of(url)
    assert isinstance(error, ConfigurationError)
    assert policy in str(error)
    assert "CONFIG SET maxmemory-policy noeviction" in str(error)
    server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert await durability_of(url) == ("process", False)


async def test_a_bus_that_was_refused_works_once_the_server_is_changed(
    started: Callable[..., Server],
) -> None:
    server = started(maxmemory_policy="allkeys-lru")
    async with AsyncCloser(connect(server.url, namespace=space())) as bus:
        with pytest.raises(ConfigurationError):
            await bus.register("a")
        server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await carries(bus)


class AsyncCloser:
    """Closes a bus that is not to be opened by the block."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus

    async def __aenter__(self) -> MessageBus:
        return self._bus

    async def __aexit__(self, *_: object) -> None:
        await self._bus.aclose()


async def test_a_user_without_scripts_is_refused_at_once(redis_server: Server) -> None:
    error = await refusal_of(let_in(redis_server, "-@scripting"))
    assert "script" in str(error).lower() or "eval" in str(error).lower()


# -- who may come in, and what is never shown --------------------------------------------


async def hides(
    secret: str, make: Callable[[], MessageBus], caplog: pytest.LogCaptureFixture
) -> MessagingError:
    """The error of a bus that cannot be opened, after a look for the secret everywhere."""
    caplog.set_level(logging.DEBUG)
    sockets = watched()
    began = time.monotonic()
    bus = make()
    with pytest.raises(MessagingError) as raised:
        await bus.register("a")
    assert time.monotonic() - began < AT_ONCE
    store: Any = bus._core.store
    place = place_of(bus)
    shown = [
        *traceback.format_exception(raised.value),
        repr(raised.value),
        *(repr(each) for each in chain(raised.value)),
        *(repr(each) for each in (bus, store, place, place._watchers)),
        str(place),
        caplog.text,
    ]
    await bus.aclose()
    await until(lambda: watched() <= sockets, "its sockets are closed")
    await asyncio.sleep(0)
    shown.append(caplog.text)
    assert not [text for text in shown if secret in text]
    return raised.value


def watched() -> int:
    """How many sockets the event loop watches."""
    loop: Any = asyncio.get_running_loop()
    return len(loop._selector.get_map())


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


KINDS = ["redis://", "redis+cluster://"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("login", ["", f":{SECRET}-not@", f"bob:{SECRET}-not@"])
async def test_a_wrong_password_or_none_is_said_at_once(
    locked: Server, kind: str, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{kind}{login}{locked.host}:{locked.port}"
    error = await hides(SECRET, lambda: connect(url), caplog)
    assert isinstance(error, (StoreError, ConfigurationError))
    assert f"{locked.host}:{locked.port}" in str(error)
    assert "password" in str(error) or "Authentication" in str(error)


async def test_a_password_for_a_server_without_one_is_said_at_once(
    redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://bob:{SECRET}@{redis_server.host}:{redis_server.port}"
    error = await hides(SECRET, lambda: connect(url), caplog)
    assert "password" in str(error)


async def test_the_right_password_lets_in(locked: Server) -> None:
    for kind in KINDS:
        url = f"{kind}:{SECRET}@{locked.host}:{locked.port}"
        async with connect(url, namespace=space()) as bus:
            await carries(bus)
            assert SECRET not in repr(place_of(bus))


@pytest.mark.parametrize(
    ("scheme", "rest"),
    [
        ("redis", ""),
        ("rediss", ""),
        ("redis+cluster", ""),
        ("rediss+cluster", ""),
        ("redis+sentinel", f"/mymaster?sentinel_password={SECRET}"),
        ("rediss+sentinel", f"/mymaster?sentinel_password={SECRET}"),
    ],
)
async def test_nobody_at_the_port_is_said_at_once(
    scheme: str, rest: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    url = f"{scheme}://ann:{SECRET}@127.0.0.1:{port}{rest}"
    error = await hides(SECRET, lambda: connect(url), caplog)
    assert isinstance(error, StoreError)
    assert str(port) in str(error)


async def test_no_socket_at_the_path_is_said_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"unix://ann:{SECRET}@{tmp_path}/no.sock"
    error = await hides(SECRET, lambda: connect(url), caplog)
    assert isinstance(error, StoreError)
    assert "no.sock" in str(error)


async def test_a_client_with_a_password_is_no_more_shown_than_a_url(
    locked: Server, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = f"{SECRET}-not"
    async with aioredis.Redis(host=locked.host, port=locked.port, password=wrong) as client:
        error = await hides(SECRET, lambda: RedisMessageBus(client), caplog)
    assert isinstance(error, (StoreError, ConfigurationError))


async def test_a_wrong_password_over_tls_is_said_at_once(
    tls_server: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    where, trust = tls_server
    for kind in ("rediss", "rediss+cluster"):
        url = f"{kind}://:{SECRET}-not@{where}?{trust}"
        error = await hides(SECRET, lambda url=url: connect(url), caplog)
        assert "password" in str(error)


async def test_sentinels_lead_to_the_primary_and_hide_its_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Sentinels(find("redis"), tmp_path, replicas=1, requirepass=SECRET) as group:
        hosts = ",".join(f"{host}:{port}" for host, port in group.sentinels)
        wrong = f"redis+sentinel://:{SECRET}-not@{hosts}/{group.service}"
        error = await hides(SECRET, lambda: connect(wrong), caplog)
        assert "password" in str(error)
        unknown = f"redis+sentinel://:{SECRET}@{hosts}/other"
        error = await hides(SECRET, lambda: connect(unknown), caplog)
        assert "'other'" in str(error)

        right = f"redis+sentinel://:{SECRET}@{hosts}/{group.service}"
        async with connect(right, namespace=space()) as bus:
            await carries(bus)
            assert group.service in repr(place_of(bus))

        settings = {"password": SECRET}
        watching = aioredis.sentinel.Sentinel(group.sentinels, **settings)
        async with watching.master_for(group.service) as client:
            await used_and_left(client, shown=group.service)
        for sentinel in watching.sentinels:
            await sentinel.aclose()
        plain = sync_sentinel.Sentinel(group.sentinels, **settings)
        with plain.master_for(group.service) as client:
            await used_and_left(client, shown=group.service)
        for sentinel in plain.sentinels:
            sentinel.close()


# -- clients -----------------------------------------------------------------------------


async def used_and_left(client: Any, shown: str) -> None:
    """A bus over the client works; the client works as before when the bus is closed."""
    before = client.ping()
    assert (await before) if isinstance(before, Awaitable) else before
    bus = RedisMessageBus(client, namespace=space())
    assert shown in repr(place_of(bus))
    await carries(bus)
    await bus.aclose()
    after = client.ping()
    assert (await after) if isinstance(after, Awaitable) else after


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_is_taken_as_it_is_and_left_so(
    redis_server: Server, decoded: bool, protocol: int
) -> None:
    where = {"host": redis_server.host, "port": redis_server.port}
    how = {"decode_responses": decoded, "protocol": protocol}
    async with aioredis.Redis(**where, **how) as client:
        await used_and_left(client, str(redis_server.port))
    with redis.Redis(**where, **how) as client:
        await used_and_left(client, str(redis_server.port))


async def test_a_client_made_from_a_url_or_a_pool(redis_server: Server) -> None:
    url = f"{redis_server.url}/3"
    async with aioredis.Redis.from_url(url) as client:
        await used_and_left(client, str(redis_server.port))
    with redis.Redis.from_url(url) as client:
        await used_and_left(client, str(redis_server.port))
        assert client.keys("afk:*"), "the mail is not in the client's database"
    pool = aioredis.BlockingConnectionPool.from_url(redis_server.url, max_connections=1)
    async with aioredis.Redis.from_pool(pool) as client:
        await used_and_left(client, str(redis_server.port))
    async with aioredis.Redis.from_url(redis_server.url, single_connection_client=True) as client:
        await used_and_left(client, str(redis_server.port))


async def test_a_cluster_client_is_taken_as_it_is_and_left_so(cluster: Cluster) -> None:
    node = cluster.nodes[1]
    async with aioredis.RedisCluster(host=node.host, port=node.port) as client:
        await used_and_left(client, str(node.port))
    with redis.RedisCluster(host=node.host, port=node.port) as client:
        await used_and_left(client, str(node.port))


async def test_a_cluster_client_that_was_not_used_yet(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    client = aioredis.RedisCluster(host=node.host, port=node.port, decode_responses=True)
    async with RedisMessageBus(client, namespace=space()) as bus:
        await carries(bus)
    await client.aclose()


async def test_any_namespace_is_served_through_any_node_of_a_cluster(cluster: Cluster) -> None:
    owners = set()
    for node in cluster.nodes:
        for number in range(4):
            namespace = f"ns-{number}"
            owners.add(cluster.owner(cluster.slot(f"afk:{{{namespace}}}:")).port)
            url = f"redis+cluster://{node.host}:{node.port}"
            async with connect(url, namespace=namespace) as bus:
                await carries(bus)
    assert len(owners) > 1, "all names were on one node: the test shows nothing"


async def test_what_is_no_client_is_refused() -> None:
    for other in (None, "redis://h", object(), 7):
        with pytest.raises(ConfigurationError, match="client"):
            RedisMessageBus(other)


async def test_a_unix_socket(started: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "a socket.sock"
    started(unixsocket=str(path))
    quoted = str(path).replace(" ", "%20")
    for url in (f"unix://{quoted}", f"unix://{quoted}?db=3"):
        async with connect(url, namespace=space()) as bus:
            await carries(bus)
            assert str(path) in repr(place_of(bus))
    async with aioredis.Redis(unix_socket_path=str(path)) as client:
        await used_and_left(client, str(path))
    with redis.Redis(unix_socket_path=str(path)) as client:
        await used_and_left(client, str(path))


# -- TLS ---------------------------------------------------------------------------------


async def test_tls_with_a_certificate_that_is_trusted(tls_server: tuple[str, str]) -> None:
    where, trust = tls_server
    for kind in ("rediss", "rediss+cluster"):
        async with connect(f"{kind}://:{SECRET}@{where}?{trust}", namespace=space()) as bus:
            await carries(bus)
    url = f"rediss://:{SECRET}@{where}?{trust}"
    async with aioredis.Redis.from_url(url) as client:
        await used_and_left(client, where)
    with redis.Redis.from_url(url) as client:
        await used_and_left(client, where)


def test_a_closed_bus_leaves_no_socket_of_tls(tls_server: tuple[str, str]) -> None:
    where, trust = tls_server
    url = f"rediss://:{SECRET}@{where}?{trust}"

    async def once() -> None:
        async with connect(url, namespace=space()) as bus:
            await carries(bus)
            await (await bus.register("a")).receive(timeout=0.01)

    for _ in range(20):
        asyncio.run(once())  # whose end is the end of the loop
        with warnings.catch_warnings(record=True) as unclosed:
            warnings.simplefilter("always")
            gc.collect()
        assert not [str(warning.message) for warning in unclosed]


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls_server: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    where, _ = tls_server
    for kind in ("rediss", "rediss+cluster"):
        url = f"{kind}://:{SECRET}@{where}"
        error = await hides(SECRET, lambda url=url: connect(url), caplog)
        assert "certificate" in str(error).lower()
    async with connect(f"{url}?ssl_cert_reqs=none", namespace=space()) as bus:
        await carries(bus)


async def test_a_certificate_for_another_name_is_refused(
    tls_server: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    where, trust = tls_server
    url = f"rediss://:{SECRET}@{where.replace('127.0.0.1', 'localhost')}?{trust}"
    error = await hides(SECRET, lambda: connect(url), caplog)
    assert "certificate" in str(error).lower()
    async with connect(f"{url}&ssl_check_hostname=no", namespace=space()) as bus:
        await carries(bus)


async def test_tls_where_there_is_none_and_none_where_there_is(
    redis_server: Server, tls_server: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    where, _ = tls_server
    plain = f"rediss://:{SECRET}@{redis_server.host}:{redis_server.port}?patience=1"
    assert isinstance(await hides(SECRET, lambda: connect(plain), caplog), StoreError)
    bare = f"redis://:{SECRET}@{where}"
    assert isinstance(await hides(SECRET, lambda: connect(bare), caplog), StoreError)


async def test_a_file_of_certificates_that_is_not_there_is_named(
    tls_server: tuple[str, str], tmp_path: Path
) -> None:
    where, _ = tls_server
    url = f"rediss://:{SECRET}@{where}?ssl_ca_certs={tmp_path}/not-there.pem"
    with pytest.raises(MessagingError, match=r"not-there\.pem") as raised:
        async with connect(url):
            pass
    assert SECRET not in str(raised.value)


# -- URLs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://ann:{}@host:port", "host:port"),
        ("redis://ann:{}@host:70000", "host:port"),
        ("redis://ann:{}@host:-1", "host:port"),
        ("redis://ann:{}@:6379", "host:port"),
        ("redis://ann:{}@[::1", "host"),
        ("redis://ann:{}@::1:6379", "host"),
        ("redis://ann:{}@one,two", "redis\\+cluster://"),
        ("redis://ann:{}@host/mail", "'mail' is not the number of a database"),
        ("redis://ann:{}@host/1/2", "'1/2' is not the number of a database"),
        ("redis://ann:{}@host?db=x", "'x' is not the number of a database"),
        ("redis+cluster://ann:{}@host/1", "database"),
        ("redis+cluster://ann:{}@host?db=1", "database"),
        ("redis+sentinel://ann:{}@host:26379", "service"),
        ("redis+sentinel://ann:{}@host/service/x", "'x' is not the number"),
        ("redis+sentinel://ann:{}@one,:2/service", "host:port"),
        ("unix://ann:{}@", "path of a socket"),
        ("unix://ann:{}@/s.sock?db=x", "'x' is not the number"),
        ("redis+tls://ann:{}@host", "redis\\+tls"),
        ("redis+unix://ann:{}@host", "redis\\+unix"),
        ("ann:{}@host", "no such store"),
        ("redis://ann:{}@host?namespce=x", "did you mean 'namespace'"),
        ("redis://ann:{}@host?ssl=true", "'ssl'"),
        ("redis://ann:{}@host?namespace=", "namespace"),
        ("redis://ann:{}@host?namespace={{x}}", "namespace"),
        ("redis://ann:{}@host?durability=ssd", "durability"),
        ("redis://ann:{}@host?patience=soon", "patience"),
        ("redis://ann:{}@host?patience=0", "patience"),
        ("redis://ann:{}@host?patience=nan", "patience"),
        ("redis://ann:{}@host?lease=-1", "lease"),
        ("rediss://ann:{}@host?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("rediss://ann:{}@host?ssl_check_hostname=perhaps", "ssl_check_hostname"),
        ("redis://ann:{}@host?ssl_ca_certs=/ca.pem", "ssl_ca_certs"),
        ("unix://ann:{}@/s.sock?ssl_ca_certs=/ca.pem", "ssl_ca_certs"),
        ("redis://ann:{}@host?sentinel_password={}", "sentinel_password"),
        ("redis+cluster://ann:{}@host?sentinel_password={}", "sentinel_password"),
    ],
)
def test_a_url_that_cannot_be_right_says_what_is_wrong(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as raised:
        connect(url.format(SECRET, SECRET))
    for error in chain(raised.value):
        assert SECRET not in str(error)


@pytest.mark.parametrize("letter", ["/", "?", "#", "@", ":", "&", "%"])
@pytest.mark.parametrize("kind", ["redis://ann:{}@host", "unix://ann:{}@/s.sock"])
def test_a_password_that_is_not_quoted_is_not_shown_either(letter: str, kind: str) -> None:
    url = kind.format(f"12{letter}{SECRET}")
    shown = []
    try:
        shown.append(repr(place_of(connect(url))))
    except ConfigurationError as error:
        shown += [str(each) for each in chain(error)]
    assert not [text for text in shown if SECRET in text]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "localhost:6379"),
        ("redis://host", "host:6379"),
        ("redis://[::1]", "::1"),
        ("redis://[::1]:7000/2", "::1"),
        ("rediss://u%40x:p%2F@host:1", "host:1"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("redis+cluster://one,two:7001", "one:6379, two:7001"),
        ("redis+sentinel://one,two:5/main/3", "one:26379, two:5"),
    ],
)
def test_a_url_that_is_right_leads_where_it_says(url: str, shown: str) -> None:
    assert shown in repr(place_of(connect(url)))


# -- without the package -----------------------------------------------------------------

HIDER = """
import sys
from importlib.abc import MetaPathFinder

class Hider(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hider())
"""

HIDDEN = f"""
hidden = ("redis", "hiredis")
{HIDER}
from afk.messaging import ConfigurationError, RedisMessageBus, connect
for make in (lambda: connect("redis://h"), lambda: RedisMessageBus(object())):
    try:
        make()
    except ConfigurationError as error:
        print(error)
connect("memory://"), connect("sqlite:///a.db")
"""

PLAIN = f"""
hidden = ("hiredis",)
{HIDER}
import asyncio
from afk.messaging import connect

async def main():
    async with connect(sys.argv[1]) as bus:
        ada = await bus.register("ada")
        await ada.send("ada", sent := ["\u00e9", 1.5, "x" * 100_000])
        print((await ada.receive(timeout=5)).content == sent, "hiredis" in sys.modules)

asyncio.run(main())
"""

LAZY = """
import sys
import afk.messaging
from afk.messaging import RedisMessageBus, connect
connect("memory://"), connect("sqlite:///a.db")
print(sorted(name for name in sys.modules if name.partition(".")[0] == "redis"))
"""


def printed(program: str, *args: str) -> list[str]:
    command = [sys.executable, "-c", program, *args]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return ended.stdout.splitlines()


def test_without_the_package_one_line_says_what_to_install() -> None:
    lines = printed(HIDDEN)
    assert len(lines) == 2
    for line in lines:
        assert "redis" in line
        assert line.endswith("pip install 'afk-messaging[redis]'")


def test_hiredis_may_be_missing(redis_server: Server) -> None:
    assert printed(PLAIN, f"{redis_server.url}?namespace={space()}") == ["True False"]


def test_the_package_is_imported_only_for_who_uses_it() -> None:
    assert printed(LAZY) == ["[]"]


# -- how the server is used --------------------------------------------------------------


def clients(server: Server) -> list[dict[str, str]]:
    """Whoever is connected, but for who asks."""
    lines = server.call("CLIENT", "LIST", "TYPE", "normal").splitlines()
    found = [dict(word.split("=", 1) for word in line.split()) for line in lines]
    return [client for client in found if not client["cmd"].startswith("client")]


@asynccontextmanager
async def all_waiting(bus: MessageBus, server: Server, number: int) -> AsyncIterator[list[Any]]:
    """Tasks that wait, each for the mail of its own mailbox."""
    mailboxes = [await bus.register(f"agent-{n}") for n in range(number)]
    tasks = [asyncio.create_task(mailbox.receive()) for mailbox in mailboxes]
    pattern = "afk:{afk}:ears:mail:*"
    await until(lambda: len(server.call("KEYS", pattern)) == number, "all wait")
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_one_connection_waits_for_two_hundred_mailboxes(
    started: Callable[..., Server],
) -> None:
    server = started()
    async with connect(server.url) as bus, all_waiting(bus, server, 200) as tasks:
        await until(lambda: any("b" in c["flags"] for c in clients(server)), "one is blocked")
        connected = clients(server)
        assert [c["cmd"] for c in connected if "b" in c["flags"]] == ["blpop"]
        assert len(connected) <= 3
        async with connect(server.url) as other:
            sent = await (await other.register("loud")).broadcast("hear, hear")
            assert len(sent) == 200
            async with asyncio.timeout(5):
                heard = await asyncio.gather(*tasks)
        assert [message.content for message in heard] == ["hear, hear"] * 200
        assert len(clients(server)) <= 3
    await until(lambda: not clients(server), "the bus lets go of its connections")


async def test_two_buses_of_one_store_share_its_connections(started: Callable[..., Server]) -> None:
    from afk.messaging import RedisA2ADeliveryStore

    server = started()
    store = RedisA2ADeliveryStore(aioredis.Redis.from_url(server.url))
    async with MessageBus(store) as one, MessageBus(store) as two:
        await carries(one)
        await carries(two)
        assert len(clients(server)) <= 2
        await one.aclose()
        await carries(two)
    await until(lambda: not clients(server), "the last bus lets go of the connections")


async def test_a_person_with_redis_cli_finds_the_mail(redis_server: Server) -> None:
    namespace = space()
    ask = redis_server.call
    async with connect(redis_server.url, namespace=namespace) as bus:
        ann = await bus.register("ann")
        await bus.register("bob")
        sent = [await ann.send("bob", n) for n in range(3)]
        urgent = await ann.send("bob", "now", priority="urgent")
    keys = f"afk:{{{namespace}}}:"
    assert sorted(ask("SMEMBERS", f"{keys}agents")) == ["ann", "bob"]
    assert ask("LRANGE", f"{keys}mail:bob:normal", 0, -1) == [receipt.id for receipt in sent]
    assert ask("LRANGE", f"{keys}mail:bob:urgent", 0, -1) == [urgent.id]
    everything = ask("KEYS", f"*{namespace}*")
    assert all(key.startswith(keys) for key in everything)

    async with connect(redis_server.url, namespace=namespace) as bus:  # and it is still there
        assert await bus.agents() == ["ann", "bob"]
        assert await contents(await bus.register("bob")) == ["now", 0, 1, 2]
    assert ask("EXISTS", f"{keys}mail:bob:normal", f"{keys}mail:bob:urgent") == 0


HOSTILE = ["a", "a:b", "a:b:c", "a:normal", "a:urgent", "msg:x", "nothing", "meta", "_", "A"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_names_threads_keys_and_ids_never_meet(redis_server: Server, ordered: bool) -> None:
    threads = ["", "b", "b:c", "|", "a|b", "}{", "normal"]
    keys = ["k", "b|k", "|", "a|a|k", "{x}", "}"]
    async with connect(redis_server.url, namespace=space()) as bus:
        boxes = {name: await bus.register(name, ordered=ordered) for name in HOSTILE}
        expected = {
            name: [[sender, name, thread] for sender in HOSTILE[:3] for thread in threads]
            + [[sender, name, key] for sender in HOSTILE[:3] for key in keys]
            for name in HOSTILE
        }
        for name in HOSTILE:
            for sender in HOSTILE[:3]:
                for thread in threads:
                    content = [sender, name, thread]
                    await boxes[sender].send(name, content, thread_id=thread)
        for name in HOSTILE:
            for sender in HOSTILE[:3]:
                for key in keys:
                    receipt = await boxes[sender].send(
                        name, [sender, name, key], idempotency_key=key
                    )
                    assert not receipt.duplicate
        for name in HOSTILE:
            assert sorted(await contents(boxes[name])) == sorted(expected[name])


async def test_hostile_ids_are_ids_like_others(redis_server: Server) -> None:
    ids = ["|", "a|b", "{}", "}:{", "a:b", "*", "x y", "\\", '"', "'; --"]
    async with connect(redis_server.url, namespace=space()) as bus:
        mailbox = await bus.register("a")
        for each in ids:
            message = AgentMessage("a", "a", each, id=each, correlation_id=each[::-1])
            assert not (await bus.deliver(message)).duplicate
            assert (await bus.deliver(message)).duplicate
        for each in ids:
            delivery = await claimed(mailbox)
            assert (delivery.message.id, delivery.message.content) == (each, each)
            await delivery.ack()
        assert await mailbox.message_count() == 0


async def test_namespaces_are_apart(redis_server: Server) -> None:
    base = space()
    async with (
        connect(redis_server.url, namespace=base) as one,
        connect(redis_server.url, namespace=f"{base}:x") as two,
        connect(f"{redis_server.url}/5", namespace=base) as three,
    ):
        for bus in (one, two, three):
            await carries(bus)
            await (await bus.register("a")).send("a", "kept")
        await one.register("b")
        assert await two.agents() == ["a"]
        assert await three.agents() == ["a"]
        for bus in (one, two, three):
            assert await contents(await bus.register("a")) == ["kept"]
