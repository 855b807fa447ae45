"""A place from its URL.

redis://[user:password@]host[:port][/db]                     rediss:// with TLS
unix://[user:password@]/path/to.sock[?db=0]
redis+sentinel://[user:password@]host[:port],.../service[/db]    rediss+sentinel://
redis+cluster://[user:password@]host[:port],...              rediss+cluster://
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from ...errors import ConfigurationError
from .place import Place
from .sentinels import Address, Watchers

PORT, SENTINEL_PORT = 6379, 26379
_WORDS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_CERTIFICATES: Final = ("none", "optional", "required")


def place_at(url: str, options: Mapping[str, str]) -> Place:
    """The place that the URL names; options: what its query says of the connection.

    ConfigurationError says what is wrong, and never shows a password.
    """
    parts = urlsplit(url)
    transport, _, kind = parts.scheme.partition("+")
    user, hosts = _split(parts.netloc)
    settings: dict[str, Any] = {**user, **_settings(options)}
    tls = transport == "rediss"
    for name in options:
        if name.startswith("ssl_") and not tls:
            raise ConfigurationError(f"{name}: only rediss:// uses TLS")
        if name.startswith("sentinel_") and kind != "sentinel":
            raise ConfigurationError(f"{name}: only redis+sentinel:// asks Sentinels")
    if transport == "unix":
        if not parts.path:
            raise ConfigurationError("unix:// needs the path of a socket: unix:///run/redis.sock")
        return Place(_with_db(settings, ""), path=unquote(parts.path))
    addresses = _addresses(hosts, SENTINEL_PORT if kind == "sentinel" else PORT)
    if kind == "sentinel":
        return _watched(parts, addresses, settings, tls)
    if kind == "cluster":
        if parts.path.strip("/") or settings.get("db"):
            raise ConfigurationError("a cluster has no databases; leave the number out")
        return Place(settings, addresses, tls=tls)
    if len(addresses) > 1:
        raise ConfigurationError(
            f"{transport}:// takes one host; several are for {transport}+sentinel:// or"
            f" {transport}+cluster://"
        )
    return Place(_with_db(settings, parts.path), addresses, tls=tls)


def _watched(
    parts: SplitResult, addresses: list[Address], settings: dict[str, Any], tls: bool
) -> Place:
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(
            "name the service that the Sentinels watch: redis+sentinel://host:26379/mymaster"
        )
    own = {
        name: settings.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in settings
    }
    if tls:
        own |= {"ssl": True} | {k: v for k, v in settings.items() if k.startswith("ssl_")}
    watchers = Watchers(tuple(addresses), unquote(service), own)
    return Place(_with_db(settings, db), tls=tls, watchers=watchers)


def _split(netloc: str) -> tuple[dict[str, str], str]:
    """The user, if any, and the hosts."""
    login, at, hosts = netloc.rpartition("@")
    name, _, password = login.partition(":")
    user = {"username": unquote(name), "password": unquote(password)} if at else {}
    return {key: value for key, value in user.items() if value}, hosts


def _addresses(hosts: str, default: int) -> list[Address]:
    addresses = []
    for each in hosts.split(",") if hosts else ["localhost"]:
        host, port = each, ""
        if not each.endswith("]"):
            head, colon, tail = each.rpartition(":")
            host, port = (head, tail) if colon else (each, "")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            host = ""
        if not host or (port and not (port.isascii() and port.isdigit() and int(port) < 2**16)):
            raise ConfigurationError("a host of the URL is not of the form host:port")
        addresses.append((host.strip("[]"), int(port or default)))
    return addresses


def _with_db(settings: dict[str, Any], path: str) -> dict[str, Any]:
    number = path.strip("/") or str(settings.get("db", "0"))
    if not (number.isascii() and number.isdigit()):
        raise ConfigurationError(f"{number!r} is not the number of a database")
    return {**settings, "db": int(number)}


def _settings(options: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = dict(options)
    if "ssl_check_hostname" in settings:
        word = settings["ssl_check_hostname"].lower()
        if word not in _WORDS:
            raise ConfigurationError("ssl_check_hostname: it is yes or no")
        settings["ssl_check_hostname"] = _WORDS[word]
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path"):
        if name in settings and not Path(settings[name]).exists():
            raise ConfigurationError(f"{name}: there is no {settings[name]!r}")
    if settings.get("ssl_cert_reqs", "required") not in _CERTIFICATES:
        raise ConfigurationError(f"ssl_cert_reqs: it is one of {', '.join(_CERTIFICATES)}")
    return settings
