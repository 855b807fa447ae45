"""What a bus makes of a server's settings, of the schema it finds, and of a URL or a pool."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from afk.messaging import (
    ConfigurationError,
    MessageBus,
    PostgresA2ADeliveryStore,
    PostgresMessageBus,
    StoreError,
    connect,
)
from afk.messaging.stores.postgres import place
from afk.messaging.stores.postgres.migrations import script, steps
from afk.messaging.testing.servers import Postgres, find
from afk.messaging.testing.steps import claimed, contents, until

SECRET = "s3cr/et?x"
QUOTED = "s3cr%2Fet%3Fx"


def name() -> str:
    return f"n{uuid.uuid4().hex}"


async def works(bus: MessageBus) -> None:
    """It sends and receives."""
    async with bus:
        ada = await bus.register("ada")
        await ada.send("ada", "hello")
        assert await contents(ada) == ["hello"]


async def durability(url: str) -> tuple[str, bool]:
    async with connect(url) as bus:
        await bus.agents()
        return bus.durability, bus.capabilities.asserted


# -- durability --------------------------------------------------------------------------


async def test_durability_is_what_the_user_of_the_bus_has(postgres18: Postgres) -> None:
    """Set for a role, not only for the server; asking for more than that is refused."""
    role = name()
    postgres18.psql(f"CREATE ROLE {role} LOGIN SUPERUSER")
    url = postgres18.url.replace("postgres@", f"{role}@")
    for setting, given in (("local", "disk"), ("remote_apply", "disk"), ("off", "memory")):
        postgres18.psql(f"ALTER ROLE {role} SET synchronous_commit = {setting}")
        assert await durability(url) == (given, False)
    with pytest.raises(ConfigurationError, match="gives 'memory', not 'disk'; set synchronous_com"):
        await durability(f"{url}?durability=disk")
    assert await durability(f"{postgres18.url}?durability=process") == ("process", False)


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[Postgres]:
    """Without full_page_writes."""
    with Postgres(find("postgres"), tmp_path / "server", full_page_writes="off") as server:
        yield server


async def test_a_server_that_is_careless(careless: Postgres) -> None:
    """That no page is torn is the caller's to say; that all is synced is not."""
    assert await durability(careless.url) == ("process", False)
    assert await durability(f"{careless.url}?durability=disk") == ("disk", True)
    careless.psql("ALTER SYSTEM SET fsync = off")
    careless.psql("SELECT pg_reload_conf()")
    await until(lambda: careless.psql("SHOW fsync") == "off", "it is set")
    with pytest.raises(ConfigurationError, match="gives 'process', not 'disk'; set fsync = on"):
        await durability(f"{careless.url}?durability=disk")
    assert await durability(careless.url) == ("process", False)


async def test_durability_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="durability: 'safe' is not one of"):
        PostgresA2ADeliveryStore("postgresql://localhost/x", durability="safe")  # type: ignore[arg-type]


# -- the schema --------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ["Team", "select", "über_team", "x" * 63])
async def test_schemas_of_any_name(postgres18: Postgres, schema: str) -> None:
    await works(connect(postgres18.url, schema=schema))


@pytest.mark.parametrize("schema", ["", "a b", 'a"b', "a;b", "pg_mine", "x" * 64, "1a"])
def test_what_is_no_name_of_a_schema(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="schema: "):
        connect("postgresql://localhost/x", schema=schema)


async def test_many_make_the_schema_at_once(postgres18: Postgres) -> None:
    schema = name()
    buses = [connect(postgres18.url, schema=schema, namespace=name()) for _ in range(12)]
    await asyncio.gather(*map(works, buses))
    rows = postgres18.psql(f"SELECT count(*) FROM {schema}.version").strip()
    assert rows == str(len(steps()))


async def test_a_newer_schema_is_refused(postgres18: Postgres) -> None:
    schema = name()
    await works(connect(postgres18.url, schema=schema))
    postgres18.psql(f"INSERT INTO {schema}.version VALUES (999)")
    with pytest.raises(ConfigurationError, match=r"newer afk-messaging .*999.*upgrade"):
        await connect(postgres18.url, schema=schema).agents()


async def test_tables_of_somebody_else_are_not_touched(postgres18: Postgres) -> None:
    schema = name()
    postgres18.psql(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.mailbox (theirs int)")
    with pytest.raises(ConfigurationError, match="tables of something else"):
        await connect(postgres18.url, schema=schema).agents()
    assert postgres18.psql(f"SELECT to_regclass('{schema}.delivery')").strip() == ""


async def test_the_script_is_what_a_bus_makes(postgres18: Postgres) -> None:
    """The same tables, indexes and functions."""
    made, printed = name(), name()
    await works(connect(postgres18.url, schema=made))
    postgres18.psql(script(printed))
    listing = (
        "SELECT string_agg(what, E'\\n' ORDER BY what) FROM ("
        "SELECT indexdef AS what FROM pg_indexes WHERE schemaname = '{0}' UNION ALL"
        " SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = '{0}'::regnamespace"
        " UNION ALL SELECT table_name || column_name || data_type FROM information_schema.columns"
        " WHERE table_schema = '{0}') all_of_it"
    )
    texts = [
        postgres18.psql(listing.format(schema)).replace(schema, "") for schema in (made, printed)
    ]
    assert texts[0] == texts[1]
    assert "take_turns" in texts[0]


async def test_a_users_search_path_does_not_matter(postgres18: Postgres) -> None:
    """Not even one with functions and operators that are made to be found first."""
    role, trap = name(), name()
    postgres18.psql(
        f"CREATE ROLE {role} LOGIN SUPERUSER; CREATE SCHEMA {trap};"
        f"CREATE FUNCTION {trap}.coalesce_trap() RETURNS int LANGUAGE sql AS 'SELECT 1/0';"
        f"CREATE FUNCTION {trap}.nextval(text) RETURNS bigint LANGUAGE sql AS 'SELECT 1/0';"
        f"CREATE TABLE {trap}.delivery (nothing int); CREATE TABLE {trap}.mailbox (nothing int);"
        f"ALTER ROLE {role} SET search_path = {trap}, pg_catalog"
    )
    url = postgres18.url.replace("postgres@", f"{role}@")
    await works(connect(url, namespace=name()))


async def test_a_users_isolation_does_not_matter(postgres18: Postgres) -> None:
    """All is asked in READ COMMITTED: behind a lock the past is of no use."""
    role = name()
    postgres18.psql(f"CREATE ROLE {role} LOGIN SUPERUSER")
    postgres18.psql(f"ALTER ROLE {role} SET default_transaction_isolation = serializable")
    url = postgres18.url.replace("postgres@", f"{role}@")
    store = PostgresA2ADeliveryStore(url, namespace=name())
    async with MessageBus(store) as bus:
        ada = await bus.register("ada", ordered=True)
        [[_, isolation]] = await store._here.lane.ask("is_here", store._here.mark)
        assert isolation == "read committed"
        await ada.send("ada", "work", thread_id="t")
        async with (await claimed(ada, 5)).transaction() as own:
            assert await own.fetchval("SHOW transaction_isolation") == "read committed"


async def test_who_may_not_make_a_schema_is_told_what_to_ask_for(postgres18: Postgres) -> None:
    """And can use one that an administrator has made as the page on the store says."""
    role, schema = name(), name()
    postgres18.psql(f"CREATE ROLE {role} LOGIN")
    url = postgres18.url.replace("postgres@", f"{role}@")
    with pytest.raises(
        ConfigurationError, match="run what `afk migrate --print` prints, and GRANT"
    ):
        await connect(url, schema=schema).agents()
    postgres18.psql(script(schema))
    with pytest.raises(ConfigurationError, match=r"may not be used .* GRANT USAGE"):
        await connect(url, schema=schema).agents()
    postgres18.psql(
        f"GRANT USAGE ON SCHEMA {schema} TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"
    )
    await works(connect(url, schema=schema))


async def test_a_database_that_is_not_utf8(postgres18: Postgres) -> None:
    database = name()
    postgres18.psql(
        f"CREATE DATABASE {database} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'"
    )
    url = postgres18.url.rpartition("/")[0] + f"/{database}"
    with pytest.raises(ConfigurationError, match="encoding is SQL_ASCII"):
        await connect(url).agents()


# -- URLs and pools ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://ann:{QUOTED}@127.0.0.1:1/x", "cannot be used"),
        (f"postgresql://ann:{QUOTED}@host.invalid/x", "cannot be used"),
        (f"postgresql://ann:{SECRET}@127.0.0.1:1/x", "quoted"),
        (f"postgresql://ann:{QUOTED}@127.0.0.1:port/x", "cannot be read|malformed"),
        (f"postgresql://ann:{QUOTED}@127.0.0.1:1/x?sslmode=often", "sslmode|cannot be"),
        (f"postgresql://ann:{QUOTED}@127.0.0.1:1/x?nonsense=1", "unknown option"),
    ],
)
async def test_no_way_there_is_said_without_the_password(
    url: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises((ConfigurationError, StoreError), match=said) as failure:
        async with asyncio.timeout(8):
            await connect(url).agents()
    shown = [repr(failure.value), str(failure.value), caplog.text]
    cause: BaseException | None = failure.value
    while cause is not None:
        shown.append(str(cause))
        cause = cause.__cause__
    assert not [text for text in shown if "s3cr" in text]


async def test_a_wrong_password_and_a_wrong_database(tmp_path: Path) -> None:
    """At once, and named."""
    with Postgres(find("postgres"), tmp_path / "server") as server:
        server.psql(f"CREATE ROLE ann LOGIN SUPERUSER PASSWORD '{SECRET}'")
        server.psql("CREATE TABLE hba (line text)")
        path = server.psql("SHOW hba_file").strip()
        server.psql(
            f"COPY (SELECT 'host all ann 127.0.0.1/32 scram-sha-256') TO PROGRAM"
            f" 'cat - {path} > {path}.new && mv {path}.new {path}'"
        )
        server.psql("SELECT pg_reload_conf()")
        where = server.url.partition("@")[2].rpartition("/")[0]
        await works(connect(f"postgresql://ann:{QUOTED}@{where}/postgres"))
        with pytest.raises(StoreError, match="password authentication failed") as failure:
            await connect(f"postgresql://ann:wr0ng@{where}/postgres").agents()
        assert "wr0ng" not in str(failure.value)
        with pytest.raises(StoreError, match=r'"nowhere" does not exist'):
            await connect(f"postgresql://ann:{QUOTED}@{where}/nowhere").agents()


async def test_of_several_hosts_the_one_that_takes_writes(
    postgres18: Postgres, careless: Postgres
) -> None:
    """Not one that is down, nor a standby, nor one that hangs."""
    careless.psql("CREATE ROLE reader LOGIN SUPERUSER")
    postgres18.psql("CREATE ROLE reader LOGIN SUPERUSER")
    careless.psql("ALTER ROLE reader SET default_transaction_read_only = on")
    good, other = (server.url.partition("@")[2] for server in (postgres18, careless))
    url = f"postgresql://reader@127.0.0.1:1,{other.partition('/')[0]},{good}"
    bus = connect(url, namespace=name())
    await works(bus)
    with pytest.raises(StoreError, match="target attribute requirement"):
        await connect(f"postgresql://reader@127.0.0.1:1,{other}").agents()
    with pytest.raises(StoreError, match="takes no writes"):
        await connect(f"postgresql://reader@{other}", patience=0.5).agents()
    careless.pause()
    await works(connect(url, namespace=name()))
    careless.resume()


async def test_a_pool_is_used_and_not_closed(postgres18: Postgres) -> None:
    async with asyncpg.create_pool(postgres18.url, min_size=0, max_size=3) as pool:
        await works(PostgresMessageBus(pool, namespace=name()))
        assert await pool.fetchval("SELECT 1") == 1
        assert pool.get_size() - pool.get_idle_size() == 0


async def test_a_pool_that_is_too_small(
    postgres18: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends and receives over one connection; more is an error that says what is needed."""
    monkeypatch.setattr(place, "CONNECT_SECONDS", 0.3)
    async with asyncpg.create_pool(postgres18.url, min_size=0, max_size=1) as pool:
        async with PostgresMessageBus(pool, namespace=name()) as bus:
            ada = await bus.register("ada")
            waiting = asyncio.create_task(ada.receive(timeout=20))
            await asyncio.sleep(0.5)
            await ada.send("ada", "hello")
            assert await waiting is not None
            await ada.send("ada", "work")
            delivery = await claimed(ada)
            with pytest.raises(StoreError, match="raise max_size"):
                async with delivery.transaction():
                    pass
        async with pool.acquire():
            with pytest.raises(StoreError, match="raise max_size"):
                await PostgresMessageBus(pool, namespace=name()).agents()


async def test_a_pool_gets_its_connections_back_as_they_were(postgres18: Postgres) -> None:
    """Also one that does not see to that."""

    async def nothing(_: Any) -> None:
        """In place of the usual RESET."""

    async with asyncpg.create_pool(postgres18.url, min_size=0, max_size=1, reset=nothing) as pool:
        before = await pool.fetch(
            "SELECT name, setting FROM pg_settings WHERE name !~ '[.]' ORDER BY name"
        )
        await works(PostgresMessageBus(pool, namespace=name()))
        assert (
            await pool.fetch(
                "SELECT name, setting FROM pg_settings WHERE name !~ '[.]' ORDER BY name"
            )
            == before
        )


async def test_pools_that_cannot_be_used(postgres18: Postgres) -> None:
    """Closed, or of another event loop; and what is no pool at all."""
    pool = await asyncpg.create_pool(postgres18.url, min_size=0)
    await pool.close()
    unready = asyncpg.create_pool(postgres18.url, min_size=0)
    for unusable in (pool, unready):
        with pytest.raises(ConfigurationError, match="pool cannot be used"):
            await PostgresMessageBus(unusable).agents()

    async def make() -> Any:
        return await asyncpg.create_pool(postgres18.url, min_size=0)

    foreign = await asyncio.to_thread(asyncio.run, make())
    with pytest.raises(ConfigurationError, match="belongs to another event loop"):
        await PostgresMessageBus(foreign).agents()
    things: list[Any] = [None, 5, object()]
    for thing in things:
        with pytest.raises(ConfigurationError, match="dsn_or_pool"):
            PostgresMessageBus(thing)
