"""What a message may say (contract, section 2), and that it is data (promise 15)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypedDict

from msgspec import Struct

from ...content import INT_MAX, INT_MIN
from ...errors import InvalidMessageError
from ...messages import AgentMessage
from ..expect import raises
from ..steps import claimed, contents
from ..subject import Subject

# -- JSON --------------------------------------------------------------------------------

JSON: list[Any] = [
    None,
    True,
    False,
    0,
    INT_MIN,
    INT_MAX,
    -0.0,
    1.5e300,
    5e-324,
    0.1,
    "",
    "Zürich \U0001f4ee \x00\x1f\x7f\u2028 \ufffe",
    [],
    {},
    [[], [None, [1.5, "x"]]],
    {"": None, "a.b": {"$ref": "#"}, "afk.": 1, "n": [{"k": "v"}]},
]


async def check_json_arrives_as_it_was_sent(subject: Subject) -> None:
    """None, bool, int from -2^63 to 2^64-1, finite float, str, list and dict arrive equal and of
    the same type."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for value in JSON:
            await ada.send("bob", value)
            [content] = await contents(bob)
            assert (content, type(content)) == (value, type(value))
        await ada.send("bob", JSON)
        [content] = await contents(bob)
        assert repr(content) == repr(JSON)


async def check_a_tuple_becomes_a_list(subject: Subject) -> None:
    """A tuple is sent as a list, wherever it stands; nothing else is changed."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", (1, {"t": ("a", ())}))
        assert await contents(bob) == [[1, {"t": ["a", []]}]]


class _Words(str):
    """A str that is not quite one."""


async def check_what_is_not_json_is_an_error(subject: Subject) -> None:
    """Anything else is an error that names the place, before anything is stored: never silently
    changed."""
    wrong: list[tuple[Any, str]] = [
        (object(), "content"),
        ({1, 2}, "content"),
        (b"bytes", "content"),
        (math.nan, "nan"),
        ({"a": [0, math.inf]}, "content['a'][1]"),
        (INT_MAX + 1, "2**64"),
        ([INT_MIN - 1], "content[0]"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ({1: "a"}, "1"),
        ({None: "a"}, "None"),
        ({"deep": {"er": 1j}}, "content['deep']['er']"),
    ]
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        for content, words in wrong:
            with raises(InvalidMessageError, words):
                await ada.send("bob", content)
            with raises(InvalidMessageError):
                await ada.send("bob", 1, metadata={"m": content})
        with raises(ValueError, "metadata"):
            await ada.send("bob", 1, metadata=["m"])  # type: ignore[arg-type]
        assert await bus.messages() == []


async def check_subclasses_arrive_as_plain_json(subject: Subject) -> None:
    """A subclass of str, int, list or dict is sent as what it is a kind of."""

    class Many(list[Any]):
        pass

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", Many([_Words("x")]))
        [content] = await contents(bob)
        assert (content, type(content), type(content[0])) == (["x"], list, str)


async def check_the_receiver_gets_its_own_copy(subject: Subject) -> None:
    """What the sender changes after the send, or one receiver in its copy, no one else sees."""
    content: dict[str, Any] = {"list": [1]}
    metadata: dict[str, Any] = {"tags": ["a"]}
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        kim = await bus.register("kim")
        receipts = await ada.broadcast(content, metadata=metadata)
        content["list"].append(2)
        metadata["tags"].clear()
        for box in (bob, kim):
            message = await box.receive(timeout=5)
            assert message is not None
            assert (message.content, message.metadata) == ({"list": [1]}, {"tags": ["a"]})
            message.content["list"].clear()
        kept = await bus.get(receipts[0].id)
        assert kept is not None
        assert kept.content == {"list": [1]}


async def check_each_attempt_gets_its_own_copy(subject: Subject) -> None:
    """What a failed attempt did to the content the next one does not see."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        await bob.send("bob", {"list": [1]})
        first = await claimed(bob)
        first.message.content["list"].append("spoilt")
        await first.nack("again", delay=0)
        assert (await claimed(bob)).message.content == {"list": [1]}


# -- metadata ----------------------------------------------------------------------------


async def check_metadata_arrives(subject: Subject) -> None:
    """Metadata is any JSON dict, and arrives as it was sent."""
    metadata = {"model": "x", "nested": {"cost": 0.5, "tags": ["a", None]}, "": 0}
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "hi", metadata=metadata)
        message = await bob.receive(timeout=5)
        assert message is not None
        assert message.metadata == metadata
        assert message.reply("back").metadata == {}


async def check_reserved_metadata_is_refused(subject: Subject) -> None:
    """Metadata keys that start with `afk.` are the library's own: refused from users."""
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        for key in ("afk.", "afk.hops"):
            with raises(InvalidMessageError, "metadata", key, "reserved"):
                await ada.send("bob", "hi", metadata={"ok": 1, key: 1})
            with raises(InvalidMessageError, "reserved"):
                await bus.deliver(AgentMessage("ada", "bob", "hi", metadata={key: 1}))
        await ada.send("bob", "hi", metadata={"afk": 1, "my.afk.": 2})


# -- typed content -----------------------------------------------------------------------


class Order(Struct):
    """A typed content, as msgspec has them."""

    item: str
    count: int = 1


@dataclass
class Point:
    """A typed content, as the standard library has them."""

    x: float
    y: float


class Note(TypedDict):
    """A typed content that is a dict."""

    text: str


async def check_typed_content_is_decoded(subject: Subject) -> None:
    """register(type=T) decodes contents into a Struct, a dataclass or a TypedDict, and send
    takes instances; who registers without a type reads plain JSON."""
    typed: list[tuple[Any, Any, Any]] = [
        (Order, Order("tea", 2), {"item": "tea", "count": 2}),
        (Point, Point(0.5, -1.0), {"x": 0.5, "y": -1.0}),
        (Note, Note(text="hi"), {"text": "hi"}),
    ]
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        for kind, value, plain in typed:
            bob = await bus.register("bob", type=kind)
            for content in (value, plain):
                await ada.send("bob", content)
                message = await bob.receive(timeout=5)
                assert message is not None
                assert message.content == value
                assert isinstance(message.content, type(value))
            await ada.send("bob", value)
            assert await contents(await bus.register("bob")) == [plain]


async def check_what_is_not_json_in_typed_content_is_an_error(subject: Subject) -> None:
    """An instance is held to the same rules: what is not JSON in it is an error."""
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob", type=Point)
        for point in (Point(math.nan, 0), Point(0, math.inf), Point(INT_MAX + 1, 0)):
            with raises(InvalidMessageError, "content['"):
                await ada.send("bob", point)
        assert await bus.messages() == []


async def check_a_pydantic_model_is_decoded(subject: Subject) -> None:
    """register(type=T) decodes into a pydantic model (asked only where pydantic is installed)."""
    try:
        import pydantic
    except ImportError:
        return
    model: Any = pydantic.create_model("Model", name=(str, ...), sizes=(list[int], ...))
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", type=model)
        await ada.send("bob", model(name="a", sizes=[1, 2]))
        await ada.send("bob", {"name": "b", "sizes": "none"})
        assert [content.name for content in await contents(bob)] == ["a"]
        assert [letter.reason for letter in await bus.dead_letters("bob")] == ["undecodable"]


async def check_what_does_not_decode_is_a_dead_letter(subject: Subject) -> None:
    """Content that is not of the mailbox's type becomes a dead letter (`undecodable`), with its
    bytes and the reason; the mailbox goes on."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", type=Order)
        for content in ({"item": "tea"}, "no order", {"item": 5}, {"item": "jam", "count": 2}):
            await ada.send("bob", content)
        assert await contents(bob) == [Order("tea"), Order("jam", 2)]
        letters = await bus.dead_letters("bob")
        assert [letter.reason for letter in letters] == ["undecodable"] * 2
        assert [letter.message and letter.message.content for letter in letters] == [
            "no order",
            {"item": 5},
        ]
        assert b"no order" in letters[0].raw
        assert "item" in letters[1].error


async def check_undecodable_mail_does_not_hold_up_claims(subject: Subject) -> None:
    """claim() passes over what cannot be decoded as well, and a waiting call goes on waiting."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", type=Point)
        bad = await ada.send("bob", "no point")
        assert await bob.claim(timeout=0.05) is None
        assert await bad.settled(timeout=5) == "dead"
        await ada.send("bob", {"x": 1, "y": 2})
        assert (await claimed(bob)).message.content == Point(1.0, 2.0)


# -- bodies are data ---------------------------------------------------------------------

HOSTILE = (
    "'; DROP TABLE afk_delivery; --",
    '"; return redis.call("FLUSHALL")',
    "$(touch /tmp/x) `id` {{7*7}} ${7*7} %s %n",
    "cos\nsystem\n(S'id'\ntR.",
    "__import__('os').abort()",
    "a\x00b\r\n+OK",
    "..\\../*?[>",
)


async def check_bodies_are_data(subject: Subject) -> None:
    """Text that would be code elsewhere comes back as the text it is, in any field; nothing of
    it is executed."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", ordered=True)
        for text in HOSTILE:
            sent = await ada.send(
                "bob",
                {text: [text], "__reduce__": text, "type": "builtins.eval"},
                correlation_id=text,
                thread_id=text,
                idempotency_key=text,
                metadata={text: text},
            )
            assert [entry.id for entry in await bus.trace(text)] == [sent.id]
            delivery = await claimed(bob)
            message = delivery.message
            assert message.content[text] == [text]
            assert (message.correlation_id, message.thread_id) == (text, text)
            assert message.metadata == {text: text}
            await delivery.reject(text)
            [letter] = await bus.dead_letters("bob")
            assert letter.error == text
            await bus.discard(letter.id)
        assert await bus.agents() == ["ada", "bob"]


async def check_a_senders_name_is_not_verified(subject: Subject) -> None:
    """Whoever reaches the store may send in any name, registered or not: access is trust."""
    async with subject.bus() as bus:
        _, bob = await bus.register("ada"), await bus.register("bob")
        for sender in ("ada", "nobody", "bob"):
            await bus.deliver(AgentMessage(sender, "bob", "hi"))
            message = await bob.receive(timeout=5)
            assert message is not None
            assert message.sender == sender
        assert await bus.agents() == ["ada", "bob"]


async def check_fields_are_checked_before_storing(subject: Subject) -> None:
    """A field that is not what it must be is an error that names it, and nothing is stored."""
    wrong: list[tuple[str, Any]] = [
        ("priority", "asap"),
        ("priority", None),
        ("ttl", -1),
        ("ttl", math.nan),
        ("ttl", "5"),
        ("delay", -0.1),
        ("delay", math.inf),
        ("correlation_id", 5),
        ("correlation_id", "x" * 513),
        ("idempotency_key", "\ud800"),
        ("idempotency_key", b"k"),
        ("thread_id", None),
    ]
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        for field, value in wrong:
            options: dict[str, Any] = {field: value}
            with raises(InvalidMessageError, field):
                await ada.send("bob", "hi", **options)
            delivery = await _own(ada)
            with raises(InvalidMessageError, field):
                await delivery.send("bob", "hi", **options)
            await delivery.ack()
        for field, value in (("id", ""), ("id", "\u00e9"), ("id", 5), ("timestamp", "now")):
            options = {field: value}
            with raises(InvalidMessageError, field):
                await bus.deliver(AgentMessage("ada", "bob", "hi", **options))
        assert await bus.messages(agent="bob") == []


async def _own(mailbox: Any) -> Any:
    """A delivery to send through."""
    await mailbox.send(mailbox.name, "to myself")
    return await claimed(mailbox)
