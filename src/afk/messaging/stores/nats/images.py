"""Images of the state, so that the log need not be kept, nor read, from its beginning."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from nats.aio.client import Client

from ...errors import StoreError
from . import stream
from .replica import Replica
from .stream import Info, Manifest, Names

_LENGTH = struct.Struct(">I")
_TRIES = 5


async def restored(client: Client, names: Names, created: str) -> tuple[Replica, int]:
    """The state of the latest image of the log that was created so, the empty one if there is none;
    and where it is said which is the latest."""
    for _ in range(_TRIES):
        manifest, at = await stream.latest(client, names)
        if manifest is None or manifest.log != created:
            return Replica(), at
        data = bytearray()
        for index in range(manifest.slices):
            part = await stream.slice_of(client, names, manifest, index)
            if part is None:
                break  # there is a later image by now
            data += part
        else:
            return Replica.of(_pages(data)), at
    raise StoreError("the image of the state is replaced faster than it can be read")


async def store(client: Client, names: Names, info: Info, replica: Replica, at: int) -> int | None:
    """Make the replica's state the latest image; its bytes, or None if another was made meanwhile.

    info: the log's; at: where it is said which image was the latest when the replica was made. The
    replica must not change meanwhile.
    """
    slices = length = 0
    subject = names.slices(info.created, replica.seq)
    await stream.ensure_images(client, names, info)
    for data in _slices(replica.pages(), client.max_payload // 2):
        await stream.publish(client, f"{subject}.{slices}", data)
        slices, length = slices + 1, length + len(data)
    made = await stream.replace_image(
        client, names, Manifest(replica.seq, slices, info.created), at
    )
    return length if made else None


def _slices(pages: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The pages, each after its length, in pieces of a size."""
    data = bytearray()
    for page in pages:
        data += _LENGTH.pack(len(page))
        data += page
        while len(data) >= size:
            yield bytes(data[:size])
            del data[:size]
    if data:
        yield bytes(data)


def _pages(data: bytearray) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        yield bytes(data[start : start + length])
        start += length
