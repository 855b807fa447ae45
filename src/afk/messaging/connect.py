"""From one URL to a bus. The only place that reads the environment and chooses a store."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit
from weakref import WeakKeyDictionary

from .bus import (
    InMemoryMessageBus,
    MessageBus,
    NATSMessageBus,
    PostgresMessageBus,
    RedisMessageBus,
    SQLiteMessageBus,
    needs_extra,
)
from .errors import ConfigurationError
from .store import A2ADeliveryStore
from .stores.hosts import joined

ENVIRONMENT = "AFK_MESSAGING_URL"
REDIS = (
    *("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
)
POSTGRES = ("postgresql", "postgres")
NATS = ("nats", "tls")
REDIS_CONNECTION = (
    *("db", "client_name", "sentinel_username", "sentinel_password"),
    *("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname"),
)
POSTGRES_CONNECTION = (
    *("host", "port", "user", "password", "passfile", "dbname", "application_name"),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("target_session_attrs", "options"),
)
NATS_CONNECTION = ("creds", "nkey", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CONNECTION = (
    dict.fromkeys(REDIS, REDIS_CONNECTION)
    | dict.fromkeys(POSTGRES, (*POSTGRES_CONNECTION, "schema"))
    | dict.fromkeys(NATS, (*NATS_CONNECTION, "replicas"))
)
"""What the query of a URL may say beside the options of every store, by its scheme."""
_TEXT = ("namespace", "durability")
_NUMBERS: dict[str, type[int] | type[float]] = {
    "lease": float,
    "retention": float,
    "history": float,
    "history_max": int,
    "capacity": int,
    "max_bytes": int,
    "max_hops": int,
    "patience": float,
}

_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], A2ADeliveryStore]] = (
    WeakKeyDictionary()
)


def connect(url: str | None = None, **options: Any) -> MessageBus:
    """The bus at `url`, not yet opened; options may also stand in the URL's query.

    None: the environment's AFK_MESSAGING_URL, else `memory://`. `memory://` is private,
    `memory://name` shared within the event loop; `sqlite:///relative/path.db`,
    `sqlite:////absolute/path.db`; `redis://host:6379/0`, `rediss://`, `unix:///path.sock`,
    `redis+sentinel://host:26379,host:26379/service`, `redis+cluster://host:6379,host:6379`;
    `postgresql://user@host:5432/database`; `nats://host:4222,host:4222`, `tls://host:4222`.
    Raises ConfigurationError for what it does not know.
    """
    if url is None:
        url = os.environ.get(ENVIRONMENT) or "memory://"
    try:
        parts = urlsplit(joined(url))
    except ValueError:  # its text may show a password
        raise ConfigurationError("the URL cannot be read: its host is malformed") from None
    own = _CONNECTION.get(parts.scheme, ())
    if own and "@" in parts.path + parts.query + parts.fragment:
        raise ConfigurationError("a password with / ? or # in it must be quoted: %2F, %3F, %23")
    options = _query(parts.query, own) | options
    if parts.scheme == "memory":
        return _memory(unquote(parts.netloc + parts.path), options)
    if parts.scheme == "sqlite":
        return SQLiteMessageBus(_path(url, parts.netloc, parts.path), **options)
    if parts.scheme in REDIS:
        return _redis(url, options)
    if parts.scheme in POSTGRES:
        return _postgres(url, options)
    if parts.scheme in NATS:
        return _nats(url, options)
    raise ConfigurationError(
        f"{parts.scheme or _shown(url)!r}: no such store; use memory://, memory://name,"
        " sqlite:///path, redis://host, postgresql://host/database or nats://host"
    )


def _query(query: str, own: tuple[str, ...] = ()) -> dict[str, Any]:
    """The options of a URL. own: names that only this kind of store has."""
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _TEXT or name in own:
            options[name] = value
        elif name in _NUMBERS:
            options[name] = _number(name, value, _NUMBERS[name])
        else:
            known = [*_TEXT, *_NUMBERS, *own]
            import difflib

            near = difflib.get_close_matches(name, known)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigurationError(f"unknown option {name!r} in the URL; {hint}")
    return options


def _number(name: str, value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(f"{name}: {value!r} is not a number") from None


def _memory(name: str, options: dict[str, Any]) -> MessageBus:
    namespace = options.pop("namespace", "afk")
    if options.pop("durability", "memory") != "memory":
        raise ConfigurationError("durability: memory:// keeps nothing; use sqlite:///path")
    if not name:
        return InMemoryMessageBus(**options)
    from .stores.memory import InMemoryA2ADeliveryStore

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"memory://{name} is shared within an event loop: connect inside of it"
        ) from None
    stores = _shared.setdefault(loop, {})
    store = stores.setdefault((name, namespace), InMemoryA2ADeliveryStore())
    return MessageBus(store, **options)


def _redis(url: str, options: dict[str, Any]) -> MessageBus:
    connection = _taken(options, REDIS_CONNECTION)
    with needs_extra("redis"):
        from .stores.redis.url import place_at
    return RedisMessageBus(place_at(url, connection), **options)


def _postgres(url: str, options: dict[str, Any]) -> MessageBus:
    """The database's own options stay in its URL."""
    query = urlencode(_taken(options, POSTGRES_CONNECTION))
    return PostgresMessageBus(urlsplit(url)._replace(query=query).geturl(), **options)


def _nats(url: str, options: dict[str, Any]) -> MessageBus:
    connection = _taken(options, NATS_CONNECTION)
    with needs_extra("nats"):
        from .stores.nats.url import place_at
    if "replicas" in options:
        options["replicas"] = _number("replicas", options["replicas"], int)
    return NATSMessageBus(place_at(url, connection), **options)


def _taken(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """These options, which are no longer among the others."""
    return {name: options.pop(name) for name in names if name in options}


def _shown(url: str) -> str:
    """A URL without its password."""
    return url if "@" not in url else f"***@{url.rpartition('@')[2]}"


def _path(url: str, host: str, path: str) -> str:
    if host or len(path) < 2:
        raise ConfigurationError(
            f"{url!r}: name a file as sqlite:///relative.db or sqlite:////absolute.db"
        )
    return unquote(path[1:])
