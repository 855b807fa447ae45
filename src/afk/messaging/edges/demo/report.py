"""Writing the report: findings in, Markdown out; and what an editor has to say about it. Pure.

A file's section has the one heading of its kind (`### ` and the path in backticks), so that anyone
can count from the report itself that every file was used exactly once: `sections`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from afk.messaging.edges.demo.mail import Finding
from afk.messaging.edges.demo.texts import number_of

TOP_THEMES = 8
TOP_QUOTES = 5
WISHES = ("summary", "themes", "order", "counts")

_SECTION = re.compile(r"^### `([^`]+)`$", re.MULTILINE)
_COUNTS = re.compile(r"^[\d,]+ words?, [\d,]+ sentences?\.$", re.MULTILINE)


def draft(title: str, findings: Iterable[Finding]) -> str:
    """The first version: one section for each file, the longest file first."""
    longest = sorted(findings, key=lambda f: (-f.word_count, f.path))
    return _join([f"# {quote(title)}", "## Files", *(_section(f) for f in longest)])


def review(report: str) -> tuple[str, ...]:
    """What an editor misses in the report, as wishes that `revise` can meet; empty: it is good."""
    names = sections(report)
    met = {
        "summary": "\n## Summary\n" in report,
        "themes": "\n## Themes\n" in report,
        "order": names == sorted(names),
        "counts": len(_COUNTS.findall(report)) >= len(names),
    }
    return tuple(wish for wish in WISHES if not met[wish])


def revise(title: str, findings: Iterable[Finding], wishes: Sequence[str]) -> str:
    """The report again with the wishes met; nothing that is not wished for changes."""
    found = sorted(findings, key=lambda f: (-f.word_count, f.path))
    parts = [f"# {quote(title)}"]
    if "summary" in wishes:
        parts += ["## Summary", _summary(found)]
    if "themes" in wishes:
        parts += ["## Themes", _themes(found)]
    if "order" in wishes:
        found.sort(key=lambda f: label(f.path))
    counts = "counts" in wishes
    return _join([*parts, "## Files", *(_section(f, counts=counts) for f in found)])


def sections(report: str) -> list[str]:
    """The labels of the files in the report's order, as often as they have a section."""
    return _SECTION.findall(report)


def check(report: str, paths: Iterable[str]) -> str | None:
    """None if exactly these files have exactly one section each, else what is wrong."""
    have, want = Counter(sections(report)), Counter(label(path) for path in paths)
    if have == want:
        return None
    missing, extra = sorted((want - have).elements()), sorted((have - want).elements())
    return f"missing: {', '.join(missing) or 'none'}; too many: {', '.join(extra) or 'none'}"


def label(path: str) -> str:
    """The path as it stands in a heading: one line, no backtick, one label for one path."""
    return "".join(c if c.isprintable() and c not in "`%" else f"%{ord(c):02X}" for c in path)


def quote(text: str) -> str:
    """Foreign text as plain words on one line: what would start markup is escaped."""
    return re.sub(r"([\\`*<\[])", r"\\\1", " ".join(text.split()))


def themes(findings: Sequence[Finding], top: int = TOP_THEMES) -> list[tuple[str, int, int]]:
    """The top terms of most files, each with the files it is in and how often in all."""
    files = Counter(term.word for f in findings for term in f.terms)
    times = Counter[str]()
    for finding in findings:
        times.update({term.word: term.count for term in finding.terms})
    shared = [word for word in files if files[word] > 1]
    best = sorted(shared, key=lambda word: (-files[word], -times[word], word))[:top]
    return [(word, files[word], times[word]) for word in best]


def distinct(findings: Sequence[Finding], top: int = TOP_QUOTES) -> list[Finding]:
    """The files that say most that no other says: tf-idf of their terms over the files."""
    files = Counter(term.word for f in findings for term in f.terms)

    def worth(finding: Finding) -> float:
        weights = (t.weight * math.log(1 + len(findings) / files[t.word]) for t in finding.terms)
        return sum(weights) / (len(finding.terms) + 5)

    telling = [finding for finding in findings if finding.sentences]
    return sorted(telling, key=lambda f: (-worth(f), f.path))[:top]


def _summary(findings: Sequence[Finding]) -> str:
    words = sum(f.word_count for f in findings)
    lines = [
        f"{number_of(len(findings), 'file')} with {number_of(words, 'word')}. The most telling:",
        "",
    ]
    lines += [f"- {quote(f.sentences[0])} (*{_name(f)}*)" for f in distinct(findings)]
    return "\n".join(lines)


def _themes(findings: Sequence[Finding]) -> str:
    found = themes(findings)
    if not found:
        return "No term stands out in two files or more."
    return "\n".join(
        f"- **{quote(word)}**: {number_of(times, 'time')} in {number_of(files, 'file')}"
        for word, files, times in found
    )


def _section(finding: Finding, *, counts: bool = False) -> str:
    parts = [f"### `{label(finding.path)}`"]
    if finding.title != finding.path:
        parts.append(f"**{quote(finding.title)}**")
    if counts:
        sentences = number_of(finding.sentence_count, "sentence")
        parts.append(f"{number_of(finding.word_count, 'word')}, {sentences}.")
    parts += [f"> {quote(sentence)}" for sentence in finding.sentences]
    if finding.terms:
        parts.append("Terms: " + ", ".join(quote(term.word) for term in finding.terms))
    if len(finding.headings) > 1:
        parts.append("Headings: " + "; ".join(quote(h) for h in finding.headings[1:]))
    return "\n\n".join(parts)


def _name(finding: Finding) -> str:
    return quote(label(finding.path))


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
