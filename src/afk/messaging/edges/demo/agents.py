"""What each agent does with its mail: four small handlers and the coordinator's errand.

Where "each file exactly once" comes from:

* The coordinator sends each file under a key made of the workflow, the path and the content, so a
  second run sends nothing a second time, and a new file is the only new work.
* A researcher's finding is sent through its delivery: it leaves together with the ack. A researcher
  that dies before that has told nobody anything; the next one tells it for the first time.
* The writer's and the coordinator's effects are files with names derived from the mail (`shelf`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afk.messaging import AgentMailbox, AgentMessage, Delivery, Receipt, Reject
from afk.messaging.edges.demo import report, texts
from afk.messaging.edges.demo.folder import read_folder
from afk.messaging.edges.demo.mail import (
    COORDINATOR,
    EDITOR,
    RESEARCHER,
    WRITER,
    Commission,
    Document,
    Draft,
    Finding,
    Published,
    Revise,
    Revised,
    Source,
    pack,
    unpack,
)
from afk.messaging.edges.demo.shelf import Shelf

EDITOR_PATIENCE = 60.0

Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Desk:
    """What an agent has at hand besides its mail. `say(kind, **fields)` tells the story."""

    shelf: Shelf
    say: Say
    workflow: str
    folder: Path
    pace: float


# A union is no type[...] to a type checker.
_TO_WRITER: Any = Finding | Commission | Revise

Handler = Callable[[Desk, Delivery[AgentMessage]], Awaitable[dict[str, Any] | None]]


async def coordinate(desk: Desk, mailbox: AgentMailbox) -> Published:
    """Send out every file of the folder and one commission; return what was published.

    What was sent by an earlier run is not sent again, and what was published then is the answer.
    """
    reading = await asyncio.to_thread(read_folder, desk.folder, leave_out=desk.shelf.root)
    for skipped in reading.skipped:
        desk.say("skip", path=skipped.path, text=skipped.reason)
    commission = _commission(desk.folder.name, reading.documents)
    await _send(desk, mailbox, WRITER, commission, f"commission:{commission.edition}")
    receipts = [
        await _send(desk, mailbox, RESEARCHER, document, f"{document.path}:{document.digest}")
        for document in reading.documents
    ]
    done = [receipt.duplicate and await _is_done(receipt) for receipt in receipts]
    desk.say("sent", total=len(done), done=sum(done))
    return await _published(desk, commission.edition)


async def note(desk: Desk, delivery: Delivery[AgentMessage]) -> None:
    """Coordinator: remember what is published."""
    desk.shelf.publish(unpack(delivery.message.content, Published))


async def research(desk: Desk, delivery: Delivery[AgentMessage]) -> None:
    """Researcher: read one file, tell the writer what it says."""
    document = unpack(delivery.message.content, Document)
    await asyncio.sleep(desk.pace)
    finding = await asyncio.to_thread(texts.research, document)
    await delivery.send(WRITER, pack(finding))


async def write(desk: Desk, delivery: Delivery[AgentMessage]) -> dict[str, Any] | None:
    """Writer: keep findings and commissions, draft what is complete, revise what is asked for."""
    mail: Finding | Commission | Revise = unpack(delivery.message.content, _TO_WRITER)
    match mail:
        case Finding():
            desk.shelf.keep_finding(mail)
        case Commission():
            desk.shelf.keep_commission(mail)
        case Revise():
            return pack(_revise(desk, mail))
    for commission in desk.shelf.commissions():
        if _concerns(mail, commission) and (draft := _draft(desk, commission)):
            # The key makes the draft one, though the mail that completes it may come twice.
            await delivery.send(EDITOR, pack(draft), idempotency_key=f"draft:{draft.edition}")
    return None


async def edit(desk: Desk, delivery: Delivery[AgentMessage]) -> None:
    """Editor: have the draft revised, check the revision, tell the coordinator."""
    draft = unpack(delivery.message.content, Draft)
    wishes = report.review(desk.shelf.report(draft.report))
    desk.say("step", text=f"asks the writer for a revision: {', '.join(wishes)}")
    revise = Revise(draft.edition, wishes)
    answer = await delivery.request(WRITER, pack(revise), timeout=EDITOR_PATIENCE)
    revised = unpack(answer.content, Revised)
    paths = [source.path for source in desk.shelf.commission(draft.edition).sources]
    text = desk.shelf.report(revised.report)
    # Asking again would bring the same report again: a person has to look at it.
    if wrong := report.check(text, paths) or ", ".join(report.review(text)):
        raise Reject(f"the revision is not what was asked for: {wrong}")
    published = Published(draft.edition, revised.report, len(paths))
    await delivery.send(COORDINATOR, pack(published), idempotency_key=f"published:{draft.edition}")


HANDLERS: dict[str, Handler] = {
    COORDINATOR: note,
    RESEARCHER: research,
    WRITER: write,
    EDITOR: edit,
}


def _commission(title: str, documents: tuple[Document, ...]) -> Commission:
    """One edition for one title and one set of files: the same again for the same folder."""
    sources = tuple(Source(document.path, document.digest) for document in documents)
    content = "\n".join([title, *(f"{source.path}\t{source.digest}" for source in sources)])
    return Commission(hashlib.sha256(content.encode()).hexdigest()[:12], title, sources)


async def _send(
    desk: Desk, mailbox: AgentMailbox, recipient: str, mail: Document | Commission, what: str
) -> Receipt[AgentMessage]:
    key = f"{desk.workflow}:{what}"
    return await mailbox.send(
        recipient, pack(mail), correlation_id=desk.workflow, idempotency_key=key
    )


async def _published(desk: Desk, edition: str) -> Published:
    # Not by waiting for the mail: this coordinator's earlier self, or another one over the same
    # folder, may have taken it. The shelf has it in any case.
    while True:
        if published := desk.shelf.published(edition):
            return published
        await asyncio.sleep(0.05)


async def _is_done(receipt: Receipt[AgentMessage]) -> bool:
    """Done, or done so long ago that only its key is still known."""
    return await receipt.status() in ("done", None)


def _concerns(mail: Finding | Commission, commission: Commission) -> bool:
    if isinstance(mail, Commission):
        return mail.edition == commission.edition
    return Source(mail.path, mail.digest) in commission.sources


def _draft(desk: Desk, commission: Commission) -> Draft | None:
    """The draft on the shelf, None while a finding is missing."""
    findings = desk.shelf.findings(commission.sources)
    if findings is None:
        return None
    desk.say("step", text=f"has all {len(findings)} findings, hands the editor a draft")
    text = report.draft(commission.title, findings)
    # A report can outgrow a message, so mail carries where it lies.
    return Draft(commission.edition, desk.shelf.keep_report(f"{commission.edition}.draft.md", text))


def _revise(desk: Desk, mail: Revise) -> Revised:
    commission = desk.shelf.commission(mail.edition)
    findings = desk.shelf.findings(commission.sources) or ()
    text = report.revise(commission.title, findings, mail.wishes)
    return Revised(mail.edition, desk.shelf.keep_report(f"{mail.edition}.md", text))
