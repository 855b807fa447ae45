"""The two streams of a namespace, and what JetStream says of them.

`AFK-LOG_<namespace>` is the log. `AFK-IMAGE_<namespace>` has the latest image of the state, in
slices, and one message that says which they are; what of the log is older may go.
"""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.errors import Error as NATSError
from nats.errors import NoRespondersError

from ...errors import ConfigurationError, MessagingError, StoreError
from .place import SECONDS

MISSING = 10059
"""The code of "there is no such stream"."""
LONGEST = 200
_TAKEN, _NOT_CLUSTERED, _NO_PEERS = 10058, 10074, 10005
_WRONG_LAST = (10071, 10164)
_NO_MESSAGE = 10037
_NO_JETSTREAM = (10039, 10076)
PASSING = (10008, 10009)
"""Codes of refusals that are over when the servers have agreed on who leads."""
_NO_DIGIT = re.compile(r"\D")
_PLAIN = re.compile(r"[^A-Za-z0-9-]")


class ApiError(Struct, frozen=True):
    """JetStream's refusal."""

    code: int
    err_code: int = 0
    description: str = ""


class _Config(Struct, frozen=True):
    storage: str
    num_replicas: int
    persist_mode: str = "default"


class _Counts(Struct, frozen=True):
    first_seq: int
    last_seq: int


class Info(Struct, frozen=True):
    """A stream as it is: its settings, where it stands, when it was made, and the server's time."""

    config: _Config
    state: _Counts
    created: str
    ts: datetime | None = None


class _Message(Struct, frozen=True):
    seq: int
    time: str
    data: bytes = b""


class _Stored(Struct, frozen=True):
    message: _Message


class _Subjects(Struct, frozen=True):
    subjects: dict[str, int] = {}


class _Listed(Struct, frozen=True):
    state: _Subjects


class Manifest(Struct, frozen=True):
    """An image of the state at `seq` of the log that was created so: `slices` messages, all for
    this image alone."""

    seq: int
    slices: int
    log: str


class _Refused(Struct, frozen=True):
    error: ApiError | None = None


_refused = msgspec.json.Decoder(_Refused)
_infos = msgspec.json.Decoder(Info)
_stored = msgspec.json.Decoder(_Stored)
_listed = msgspec.json.Decoder(_Listed)
_manifests = msgspec.json.Decoder(Manifest)


class RefusedError(StoreError):
    """JetStream answered with an error: nothing was done."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(f"JetStream refused: {error.description} (error {error.err_code})")
        self.error = error


class Names:
    """What a namespace's streams and subjects are called.

    A letter, digit or hyphen stands for itself, anything else for `_` and its code: no other
    namespace has the same name, and none has a dot, a star or a blank in it. One that would be too
    long for a stream ends in `_x` and a digest.
    """

    def __init__(self, namespace: str) -> None:
        name = _PLAIN.sub(lambda match: f"_{ord(match[0]):02x}", namespace)
        if len(name) > LONGEST:
            name = f"{name[:100]}_x{sha256(namespace.encode()).hexdigest()}"
        self.log = f"AFK-LOG_{name}"
        self.steps = f"afk.log.{name}"
        self.images = f"AFK-IMAGE_{name}"
        self.manifest = f"afk.image.{name}"

    def slices(self, created: str, seq: int) -> str:
        """The subjects of an image's slices, but for the number of each."""
        return f"{self.manifest}.{_NO_DIGIT.sub('', created)}.{seq}"


async def api(client: Client, verb: str, **request: Any) -> bytes:
    """An answer of JetStream; RefusedError, or StoreError if there is none."""
    body = msgspec.json.encode(request) if request else b""
    return await _asked(client, f"$JS.API.{verb}", body)


async def _asked(
    client: Client, subject: str, data: bytes, headers: dict[str, str] | None = None
) -> bytes:
    try:
        answer = await client.request(subject, data, timeout=SECONDS, headers=headers)
    except NoRespondersError as error:
        raise StoreError(
            "nobody answers for JetStream: the server was started without it (-js), or the servers"
            " that have it are gone"
        ) from error
    except (NATSError, TimeoutError, OSError) as error:
        raise StoreError(f"JetStream did not answer: {error!r}") from error
    check(answer.data)
    return bytes(answer.data)


def check(answer: bytes) -> None:
    """Raise the error that JetStream answered with, if it did."""
    if b'"error"' in answer:
        error = _refused.decode(answer).error
        if error is not None:
            raise RefusedError(error)


async def info(client: Client, names: Names) -> Info:
    """The log as it is now."""
    return _infos.decode(await api(client, f"STREAM.INFO.{names.log}"))


async def stored_at(client: Client, names: Names, seq: int) -> int:
    """When a message of the log was stored: ns since the epoch, 0 if it is not there."""
    try:
        answer = await api(client, f"STREAM.MSG.GET.{names.log}", seq=seq)
    except RefusedError as error:
        if error.error.err_code == _NO_MESSAGE:
            return 0
        raise
    time = _stored.decode(answer).message.time  # as 2026-11-25T12:42:36.193819215Z
    seconds = int(datetime.fromisoformat(f"{time[:19]}+00:00").timestamp())
    return seconds * 10**9 + int(time[20:-1].ljust(9, "0"))


def position(reply: str) -> tuple[int, int]:
    """Of a message that a consumer was given: its number in the log, and when it was stored (ns).

    `$JS.ACK.stream.consumer.delivered.number.count.time.pending`, two more after `ACK` where
    there are domains (ADR-15 of the NATS architecture).
    """
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 2])


async def follow(
    client: Client, names: Names, name: str, inbox: str, start: int, heartbeat: float
) -> None:
    """Have the log sent to the inbox from the number `start` on, and a sign of life between."""
    second = 10**9
    config = {
        "name": name,
        "deliver_subject": inbox,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": start,
        "ack_policy": "none",
        "flow_control": True,
        "idle_heartbeat": int(heartbeat * second),
        "inactive_threshold": 10 * second,
        "mem_storage": True,
        "num_replicas": 1,
    }
    verb = f"CONSUMER.CREATE.{names.log}.{name}"
    await api(client, verb, stream_name=names.log, config=config)


async def unfollow(client: Client, names: Names, name: str) -> None:
    """Have it sent no more; without that it ends by itself, later."""
    with contextlib.suppress(NATSError, OSError):
        await client.publish(f"$JS.API.CONSUMER.DELETE.{names.log}.{name}")


async def ensure(client: Client, names: Names, replicas: int | None) -> Info:
    """The log as it is, made if need be; ConfigurationError if it cannot be."""
    try:
        found = await info(client, names)
    except RefusedError as error:
        if error.error.err_code != MISSING:
            raise explained(error) from error
    else:
        return found
    try:
        try:
            await _create(client, names.log, [names.steps], replicas or 3)
        except RefusedError as error:
            if replicas is not None or error.error.err_code != _NOT_CLUSTERED:
                raise
            await _create(client, names.log, [names.steps], 1)
        return await info(client, names)
    except RefusedError as error:
        raise explained(error) from error


def explained(error: RefusedError) -> MessagingError:
    """A refusal to make or show a stream, with what to do."""
    code, text = error.error.err_code, error.error.description
    if code in _NO_JETSTREAM:
        return ConfigurationError(f"{text}; start nats-server with JetStream: -js")
    if code == _NOT_CLUSTERED:
        return ConfigurationError(f"replicas: {text}")
    if code == _NO_PEERS:  # never fewer copies than expected because a server is down just now
        return ConfigurationError(f"replicas: {text}; start more servers, or ask for fewer copies")
    return error


async def _create(client: Client, name: str, subjects: list[str], replicas: int) -> None:
    settings: dict[str, Any] = {
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": replicas,
    }
    try:
        await api(client, f"STREAM.CREATE.{name}", name=name, subjects=subjects, **settings)
    except RefusedError as error:
        if error.error.err_code != _TAKEN:  # someone was faster, or has it set otherwise
            raise


async def publish(
    client: Client, subject: str, data: bytes, headers: dict[str, str] | None = None
) -> None:
    """Store one message; RefusedError if it was not, StoreError if that is unknown."""
    await _asked(client, subject, data, headers)


# -- images ------------------------------------------------------------------------------


async def ensure_images(client: Client, names: Names, info: Info) -> None:
    """Have a place for the log's images."""
    subjects = [names.manifest, f"{names.manifest}.>"]
    await _create(client, names.images, subjects, info.config.num_replicas)


async def latest(client: Client, names: Names) -> tuple[Manifest | None, int]:
    """Which image is the latest, and where that is said."""
    try:
        answer = await api(client, f"STREAM.MSG.GET.{names.images}", last_by_subj=names.manifest)
    except RefusedError as error:
        if error.error.err_code in (_NO_MESSAGE, MISSING):
            return None, 0
        raise
    message = _stored.decode(answer).message
    return _manifests.decode(message.data), message.seq


async def slice_of(client: Client, names: Names, manifest: Manifest, index: int) -> bytes | None:
    """A slice of an image; None if it is gone, as there is a later one."""
    subject = f"{names.slices(manifest.log, manifest.seq)}.{index}"
    try:
        answer = await api(client, f"STREAM.MSG.GET.{names.images}", last_by_subj=subject)
    except RefusedError as error:
        if error.error.err_code == _NO_MESSAGE:
            return None
        raise
    return _stored.decode(answer).message.data


async def replace_image(client: Client, names: Names, manifest: Manifest, at: int) -> bool:
    """Make this image, whose slices are there, the latest, and let go of what it replaces; False
    if another was made since the manifest `at` was read."""
    headers = {
        "Nats-Expected-Last-Subject-Sequence": str(at),
        "Nats-Expected-Stream": names.images,
    }
    try:
        await publish(client, names.manifest, msgspec.json.encode(manifest), headers)
    except RefusedError as error:
        if error.error.err_code not in _WRONG_LAST:
            raise
        return False
    # All but the last message before it: by that, who stands there knows the log again.
    await _purge(client, names.log, seq=manifest.seq)
    await _purge(client, names.images, filter=names.manifest, keep=1)
    answer = await api(client, f"STREAM.INFO.{names.images}", subjects_filter=f"{names.manifest}.>")
    current = names.slices(manifest.log, manifest.seq)
    stored = {subject.rpartition(".")[0] for subject in _listed.decode(answer).state.subjects}
    for old in stored - {current}:  # also of one that was never finished, or of another log
        if (
            old.rpartition(".")[0] != current.rpartition(".")[0]
            or int(old.split(".")[-1]) < manifest.seq
        ):
            await _purge(client, names.images, filter=f"{old}.*")
    return True


async def _purge(client: Client, name: str, **what: Any) -> None:
    await api(client, f"STREAM.PURGE.{name}", **what)
