"""The story of a run: who is killed, what is told, what counts as done."""

from __future__ import annotations

from typing import Any

from afk.messaging.edges.demo.mail import COORDINATOR, RESEARCHER, WRITER
from afk.messaging.edges.demo.story import Event, Line, Story, Worker


def newsroom() -> Story:
    story = Story()
    for pid, (name, mailbox) in enumerate(
        [("boss", COORDINATOR), ("r1", RESEARCHER), ("r2", RESEARCHER), ("w", WRITER)]
    ):
        story.join(Worker(name, mailbox, pid))
    return story


def tell(story: Story, kind: Any, agent: str, **fields: Any) -> list[Line]:
    return story.tell(Event(kind=kind, agent=agent, **fields))


def start(story: Story, agent: str, number: int, attempt: int = 1) -> list[Line]:
    return tell(story, "start", agent, path=f"{number}.md", id=f"{number:03}", attempt=attempt)


def test_the_one_who_began_last_is_killed_once_some_files_are_begun() -> None:
    story = newsroom()
    tell(story, "sent", "boss", total=9)
    for number, agent in enumerate(["r1", "r2"]):
        start(story, agent, number)
        assert story.doomed() is None
    tell(story, "finish", "r1", path="0.md")
    start(story, "r1", 3)
    victim = story.doomed()
    assert victim is story.workers["r1"]
    assert "killed with kill -9 while reading 3.md" in story.kill(victim, lease=2, held=True).text
    assert story.doomed() is None


def test_with_few_files_the_first_is_enough() -> None:
    story = newsroom()
    tell(story, "sent", "boss", total=5, done=4)
    assert story.doomed() is None
    start(story, "r2", 0)
    assert story.doomed() is story.workers["r2"]


def test_a_kill_that_came_too_late_is_tried_again() -> None:
    story = newsroom()
    tell(story, "sent", "boss", total=1)
    start(story, "r1", 0)
    line = story.kill(story.workers["r1"], lease=2, held=False)
    assert line.style == "warn"
    assert story.killed is None
    start(story, "r2", 1)
    assert story.doomed() is story.workers["r2"]


def test_nobody_but_a_researcher_is_killed_and_none_without_work() -> None:
    story = newsroom()
    tell(story, "sent", "boss", total=3, done=3)
    start(story, "w", 0)
    assert story.doomed() is None
    assert story.read == 3


def test_the_last_words_of_the_killed_change_nothing_but_the_count() -> None:
    story = newsroom()
    tell(story, "sent", "boss", total=2)
    start(story, "r1", 0)
    story.kill(story.workers["r1"], lease=2, held=True)
    tell(story, "finish", "r1", path="0.md")
    start(story, "r1", 1)
    tell(story, "gone", "r1", text="exit code -9")
    assert story.workers["r1"].state == "killed"
    assert story.failure == ""
    assert story.read == 1


def test_what_comes_back_is_told_and_counted_once() -> None:
    story = newsroom()
    tell(story, "sent", "boss", total=2)
    assert start(story, "r1", 0) == []
    (line,) = start(story, "r2", 0, attempt=2)
    assert line == Line("0.md is delivered again, to r2 (attempt 2)", "warn")
    tell(story, "finish", "r2", path="0.md")
    tell(story, "finish", "r2", path="0.md")
    assert (story.read, story.redelivered) == (1, {"0.md"})


def test_a_run_that_has_nothing_to_do_says_so() -> None:
    (all_done,) = tell(newsroom(), "sent", "boss", total=4, done=4)
    assert all_done.text == "nothing to do twice: 4 of 4 files were already done"
    (some_done,) = tell(newsroom(), "sent", "boss", total=4, done=3)
    assert some_done.text == "not done twice: 3 of 4 files were already done; 1 to read"


def test_an_agent_that_stops_by_itself_ends_the_run_with_its_reason() -> None:
    story = newsroom()
    tell(story, "gone", "w", text="exit code 1")
    assert story.failure == "w stopped unexpectedly (exit code 1); agents.log has more"
    story = newsroom()
    tell(story, "failed", "boss", text="no such folder: x")
    tell(story, "gone", "boss", text="exit code 1")
    assert story.failure == "boss: no such folder: x"
