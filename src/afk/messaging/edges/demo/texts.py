"""Extracting what a text says: headings, terms and its most telling sentences. Pure, no model.

A researcher sees one file, so the weight of a word is tf-idf *inside* the file: how often the word
stands there, times the logarithm of how few of the file's sentences hold it. A sentence is worth
the mean weight of its words. Same text, same finding: a file read twice says the same twice.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from afk.messaging.edges.demo.mail import Document, Finding, Term

TOP_SENTENCES = 3
TOP_TERMS = 12
TOP_HEADINGS = 12
MAX_SENTENCE = 320
MIN_WORDS = 5
SHORTEST_WORD = 3
LONGEST_HEADING = 100

_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*[^\W_]")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=[\"'(\[]?[^\W\d_a-z])")
_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_ATX = re.compile(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_UNDERLINE = re.compile(r"^\s{0,3}(={3,}|-{3,}|~{3,}|\^{3,})\s*$")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
_NOT_PROSE = re.compile(r"^\s*(?:\||<|!\[|\.\. |[-=~^*_]{3,}\s*$)")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*[^)]*\)")
_EMPHASIS = re.compile(r"(?<!\w)_([^_\s][^_]*)_(?!\w)")
_MARKS = re.compile(r"[`*]+")
_STOP_TEXT = """
about above after again against all also and another any are because been before being below
between both but can cannot could did does doing down during each either few for from further had
has have having here how however into its itself just let may might more most much must neither
nor not now off once one only other our out over own per same shall she should since some such
than that the their them then there these they this those through too two under until upon use
used using very was way well were what when where whether which while who whom whose why will with
within without would yet you your
"""
_STOP = frozenset(_STOP_TEXT.split())


def research(document: Document) -> Finding:
    """What the file says: the same for the same document, whoever reads it and how often."""
    prose = prose_lines(document.text)
    sentences = split_sentences(prose) or _fallback(document.text)
    weights = term_weights(sentences)
    counts = Counter(word for sentence in sentences for word in tokenise(sentence))
    top = sorted(weights, key=lambda word: (-weights[word], word))[:TOP_TERMS]
    titles = headings(document.text)
    return Finding(
        path=document.path,
        digest=document.digest,
        title=titles[0] if titles else document.path,
        headings=tuple(titles[:TOP_HEADINGS]),
        sentences=tuple(telling(sentences, weights)),
        terms=tuple(Term(word, counts[word], round(weights[word], 4)) for word in top),
        word_count=len(_WORD.findall(document.text)),
        sentence_count=len(sentences),
    )


def tokenise(text: str) -> list[str]:
    """The words that carry meaning: at least three letters, lower case, stop words left out."""
    words = (word.casefold() for word in _WORD.findall(text))
    return [word for word in words if len(word) >= SHORTEST_WORD and word not in _STOP]


def headings(text: str) -> list[str]:
    """The headings in order, in Markdown (`# x`) or underlined, those in code blocks left out."""
    lines = _body(text)
    found: list[str] = []
    for line, following in pairwise([*lines, ""]):
        title = _ATX.match(line)
        if title and title[1]:
            found.append(_clean(title[1]))
        elif _is_underlined(line, following):
            found.append(_clean(line))
    return [title for title in found if title]


def prose_lines(text: str) -> list[str]:
    """The lines of running text, blank between paragraphs: no code, tables or headings."""
    lines = _body(text)
    prose: list[str] = []
    for line, following in pairwise([*lines, ""]):
        if _ATX.match(line) or _NOT_PROSE.match(line) or _is_underlined(line, following):
            prose.append("")
        elif _ITEM.match(line):
            prose += ["", _clean(_ITEM.sub("", line))]
        else:
            prose.append(_clean(line))
    return prose


def split_sentences(lines: Sequence[str]) -> list[str]:
    """The sentences of the paragraphs, each on one line, without fragments and overlong ones."""
    paragraphs = "\n".join(lines).split("\n\n")
    whole = (" ".join(paragraph.split()) for paragraph in paragraphs)
    parts = (part.strip() for text in whole for part in _SENTENCE_END.split(text))
    return [s for s in parts if len(s) <= MAX_SENTENCE and len(_WORD.findall(s)) >= MIN_WORDS]


def term_weights(sentences: Sequence[str]) -> dict[str, float]:
    """tf-idf of every word over these sentences; above zero even in a lone sentence."""
    tokens = [tokenise(sentence) for sentence in sentences]
    often = Counter(word for words in tokens for word in words)
    spread = Counter(word for words in tokens for word in set(words))
    total = len(sentences)
    return {word: count * math.log(1 + total / spread[word]) for word, count in often.items()}


def telling(
    sentences: Sequence[str], weights: dict[str, float], top: int = TOP_SENTENCES
) -> list[str]:
    """The `top` sentences whose words weigh most, each once, in the order of the text."""
    first = {sentence: place for place, sentence in reversed(list(enumerate(sentences)))}
    best = sorted(first, key=lambda s: (-score(s, weights), first[s]))[:top]
    return sorted(best, key=first.__getitem__)


def score(sentence: str, weights: dict[str, float]) -> float:
    """The mean weight of the sentence's words; less if it is short, or more figures than words."""
    words = set(tokenise(sentence))
    # Five phantom words of no weight keep a sentence of one rare word from winning.
    mean = sum(weights.get(word, 0.0) for word in words) / (len(words) + 5)
    letters = sum(char.isalpha() or char == " " for char in sentence)
    return mean * letters / max(len(sentence), 1)


def number_of(count: int, noun: str) -> str:
    """ "1 file", "1,000 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _fallback(text: str) -> list[str]:
    """A file without sentences (a list, a program) speaks through its first lines."""
    lines = (" ".join(line.split())[:MAX_SENTENCE] for line in text.splitlines())
    return [line for line in lines if tokenise(line)][:TOP_SENTENCES]


def _body(text: str) -> list[str]:
    """The lines after the front matter, with every fenced block blanked."""
    kept: list[str] = []
    fence = ""
    for line in _without_front_matter(text.splitlines()):
        mark = _FENCE.match(line)
        kept.append("" if fence or mark else line)
        if mark and (not fence or fence == mark[1]):
            fence = "" if fence else mark[1]
    return kept


def _without_front_matter(lines: list[str]) -> list[str]:
    if lines[:1] == ["---"] and "---" in lines[1:]:
        return lines[lines.index("---", 1) + 1 :]
    return lines


def _is_underlined(line: str, following: str) -> bool:
    if _NOT_PROSE.match(line) or not _UNDERLINE.match(following):
        return False
    return 1 < len(line.strip()) <= LONGEST_HEADING


def _clean(line: str) -> str:
    """The line without inline markup and outer blanks."""
    text = _EMPHASIS.sub(r"\1", _LINK.sub(r"\1", line))
    return " ".join(_MARKS.sub("", text).split())
