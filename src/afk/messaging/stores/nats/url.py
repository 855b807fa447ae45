"""A place from its URL, or from a client of the user's.

nats://[user:password@|token@]host[:port],host[:port],...    tls:// with TLS
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client

from ...errors import ConfigurationError
from ..hosts import joined
from .place import Place

PORT = 4222
_KEPT = ("user", "password", "token", "tls", "tls_hostname", "tls_handshake_first")
_CREDENTIALS = {
    "_user_credentials": "user_credentials",
    "_nkeys_seed": "nkeys_seed",
    "_nkeys_seed_str": "nkeys_seed_str",
    "_signature_cb": "signature_cb",
    "_user_jwt_cb": "user_jwt_cb",
}


def place_at(url: str, options: Mapping[str, str] | None = None) -> Place:
    """The place that the URL names; options: what its query says of the connection.

    ConfigurationError says what is wrong, and never shows a password.
    """
    parts = urlsplit(joined(url))
    if parts.path.strip("/"):
        raise ConfigurationError("a NATS URL has no path; name hosts: nats://host:4222,host:4222")
    login, at, hosts = parts.netloc.rpartition("@")
    servers = [f"{parts.scheme}://{_host(each)}" for each in (hosts or "localhost").split(",")]
    settings: dict[str, Any] = {}
    if at:
        name, colon, password = login.partition(":")
        if colon:
            settings |= {"user": unquote(name), "password": unquote(password)}
        else:
            settings["token"] = unquote(name)
    settings |= _files(dict(options or {}), tls=parts.scheme == "tls")
    return Place(servers, settings, ",".join(servers))


def _host(text: str) -> str:
    head, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        head, port = text, str(PORT)
    if not head or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigurationError("a host of the URL is not of the form host:port")
    return f"{head}:{port}"


def _files(options: dict[str, str], *, tls: bool) -> dict[str, Any]:
    for name, path in options.items():
        if name.startswith("ssl_") and not tls:
            raise ConfigurationError(f"{name}: only tls:// uses TLS")
        if not Path(path).is_file():
            raise ConfigurationError(f"{name}: there is no file {path!r}")
    settings: dict[str, Any] = {}
    if "creds" in options:
        text = Path(options["creds"]).read_text(errors="replace")
        if not all(f"BEGIN {each}" in text for each in ("NATS USER JWT", "USER NKEY SEED")):
            raise ConfigurationError("creds: the file has no user JWT and seed")  # for which
            # the client would look for ever
        settings["user_credentials"] = options["creds"]
    if "nkey" in options:
        settings["nkeys_seed"] = options["nkey"]
    if tls:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
        settings["tls"] = context
    return settings


def place_of(client: Any) -> Place:
    """Where a client that is given leads to: a URL, or a connected nats.aio.client.Client."""
    if isinstance(client, Place):
        return client
    if isinstance(client, str):
        parts = urlsplit(joined(client))
        if parts.scheme not in ("nats", "tls") or parts.query:
            raise ConfigurationError(
                "url: it is nats://host:4222 or tls://host:4222, and options are arguments;"
                " connect(url) takes them in the URL"
            )
        return place_at(client)
    if not isinstance(client, Client):
        raise ConfigurationError(
            f"client: a nats:// URL or a nats.aio.client.Client is needed, not"
            f" {type(client).__name__}"
        )
    return _taken_over(client)


def _taken_over(client: Client) -> Place:
    """The settings of a client. It says most of them only in its private parts."""
    uris = [server.uri for server in client.server_pool]
    if not uris:
        raise ConfigurationError("client: connect it first, so that it knows its servers")
    settings = {key: client.options[key] for key in _KEPT if client.options.get(key)}
    for private, name in _CREDENTIALS.items():
        value = getattr(client, private, None)
        if value is not None:
            settings[name] = value
    if "user_credentials" in settings or "nkeys_seed" in settings or "nkeys_seed_str" in settings:
        settings.pop("signature_cb", None)  # made from these
        settings.pop("user_jwt_cb", None)
    login = next((uri for uri in uris if uri.username), None)
    if login is not None and "user" not in settings and "token" not in settings:
        if login.password is None:
            settings["token"] = unquote(login.username or "")
        else:
            settings |= {"user": unquote(login.username or ""), "password": unquote(login.password)}
    prefix = getattr(client, "_inbox_prefix", None)
    if prefix:
        settings["inbox_prefix"] = bytes(prefix)
    servers = [f"{uri.scheme}://{_host(uri.netloc.rpartition('@')[2])}" for uri in uris]
    return Place(servers, settings, ",".join(servers))
