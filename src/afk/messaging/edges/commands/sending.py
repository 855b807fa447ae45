"""`afk send`, `request`, `broadcast`, `reply`: what an agent would say."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from afk.messaging import (
    AgentMessage,
    MessageBus,
    Receipt,
    RequestFailedError,
    RequestTimeoutError,
)
from afk.messaging.messages import Priority

from . import screen, shapes
from .finding import find_either
from .place import BAD_INPUT, FAILED, UNSAID, Json, Place, fail, on

commands = App(name="afk")

Text = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""A content; - is one."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Letter:
    """How it is sent.

    Parameters
    ----------
    sender
        The agent it comes from; it need not be registered.
    parse
        The text is JSON: send the value, not the text.
    priority
        low, normal, high or urgent.
    correlation
        The correlation id: of the chain of messages it belongs to.
    """

    sender: Annotated[str, Parameter(name="--from", env_var="AFK_AGENT")] = "cli"
    parse: Annotated[bool, Parameter(negative=())] = False
    priority: Priority = "normal"
    correlation: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms it is kept.

    Parameters
    ----------
    key
        The idempotency key: the same key is the same message, sent once.
    ttl
        Seconds after which it is a dead letter, if nobody has taken it.
    delay
        Seconds before it can be taken.
    thread
        In an ordered mailbox, the messages of a thread come one at a time.
    """

    key: str | None = None
    ttl: float | None = None
    delay: float = 0.0
    thread: str = ""


@commands.command
def send(
    to: str,
    text: Text,
    *,
    letter: Letter = Letter(),
    terms: Terms = Terms(),
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Send a message to an agent; prints its id once it is kept.

    Examples
    --------
    afk send writer "Please draft a summary"

    afk send writer @notes.txt --key notes-1

    date | afk send writer - --priority high

    Parameters
    ----------
    to
        The agent.
    text
        The content; @FILE reads a file, - standard input.
    as_json
        Print the receipt as JSON.
    """
    content = _content(text, letter.parse)

    async def work(bus: MessageBus) -> None:
        options = _options(letter, terms)
        receipt = await bus.mailbox(letter.sender).send(to, content, **options)
        if as_json:
            shapes.put(_receipt(receipt))
        else:
            again = "  (it was there already)" if receipt.duplicate else ""
            print(f"{receipt.id}{again}")

    on(place, work)


@commands.command
def request(
    to: str,
    text: Text,
    *,
    timeout: float = 30.0,
    letter: Letter = Letter(),
    terms: Terms = Terms(),
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Send a message and print its answer; exit code 1 if there is none in time.

    Examples
    --------
    afk request oracle "What is six times seven?" --timeout 10

    Parameters
    ----------
    to
        The agent.
    text
        The content; @FILE reads a file, - standard input.
    timeout
        Seconds to wait.
    as_json
        Print the answer as JSON, with its fields.
    """
    content = _content(text, letter.parse)

    async def work(bus: MessageBus) -> None:
        options = _options(letter, terms)
        try:
            answer = await bus.mailbox(letter.sender).request(
                to, content, timeout=timeout, **options
            )
        except RequestTimeoutError as error:
            fail(f"no answer within {timeout:g} s; the request is {error.receipt.id}", FAILED)
        except RequestFailedError as error:
            fail(error, FAILED)
        if as_json:
            shapes.put(shapes.message(answer))
        else:
            print(screen.whole(answer.content))

    on(place, work)


@commands.command
def broadcast(
    text: Text,
    *,
    letter: Letter = Letter(),
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Send a copy to every registered agent but the sender.

    Examples
    --------
    afk broadcast "The build is red" --from ci

    Parameters
    ----------
    text
        The content; @FILE reads a file, - standard input.
    as_json
        Print the receipts as JSON.
    """
    content = _content(text, letter.parse)

    async def work(bus: MessageBus) -> None:
        options = _options(letter, Terms())
        receipts = await bus.mailbox(letter.sender).broadcast(content, **options)
        if as_json:
            shapes.put([_receipt(receipt) for receipt in receipts])
        else:
            print(f"sent to {len(receipts)} agent(s)")

    on(place, work)


@commands.command
def reply(
    id: str,
    text: Text,
    *,
    parse: Annotated[bool, Parameter(negative=())] = False,
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Answer a message.

    With the token that `afk receive` printed, the answer and the ack are one step. With the
    message's id the answer alone is sent.

    Examples
    --------
    afk reply 019aba5a1b2c00000000014f2a9c3d7e "Done, see the report"

    Parameters
    ----------
    id
        The message's token, or its id.
    text
        The content; @FILE reads a file, - standard input.
    parse
        The text is JSON: send the value, not the text.
    as_json
        Print the answer as JSON.
    """
    content = _content(text, parse)

    async def work(bus: MessageBus) -> None:
        entry, token = await find_either(bus, id)
        if entry.message is None:
            fail(f"the body of message {entry.id} is gone", FAILED)
        if token:
            delivery = await bus.mailbox(entry.agent).resume(token)
            answer = await delivery.reply(content)
            await delivery.ack()
        else:
            answer = entry.message.reply(content)
            await bus.deliver(answer)
        if as_json:
            shapes.put(shapes.message(answer))
        else:
            print(answer.id)

    on(place, work)


def _options(letter: Letter, terms: Terms) -> dict[str, Any]:
    """What `AgentMailbox.send` takes."""
    return {
        "priority": letter.priority,
        "correlation_id": letter.correlation,
        "idempotency_key": terms.key,
        "ttl": terms.ttl,
        "delay": terms.delay,
        "thread_id": terms.thread,
    }


def _content(text: str, parse: bool) -> Any:
    """The text itself, or that of a file or of standard input; the value, if it is JSON."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        return json.loads(text) if parse else text
    except OSError as error:
        fail(f"{text[1:]} cannot be read: {error.strerror}", BAD_INPUT)
    except UnicodeDecodeError:
        fail(f"{text.removeprefix('@')} is no text in UTF-8", BAD_INPUT)
    except ValueError as error:
        fail(f"this is no JSON, which --parse expects: {error}", BAD_INPUT)


def _receipt(receipt: Receipt[AgentMessage]) -> dict[str, Any]:
    return {
        "id": receipt.id,
        "recipient": receipt.message.recipient,
        "duplicate": receipt.duplicate,
        "durability": receipt.durability,
    }
