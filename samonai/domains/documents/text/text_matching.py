"""Text matching of a query on a page: exact, fuzzy, or by a regular expression."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from samonai.core.errors import InputError
from samonai.domains.documents.text.words import (
    UNSPACED,
    Box,
    Word,
    is_broken,
    is_unspaced,
    joined_box,
    running_text,
)

NEARLY = 85.0
"""Least similarity (0..100, of rapidfuzz) of a fuzzy match."""

_LIGATURES = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-"} | {
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00ad": "",
})  # fmt: skip
_AROUND = " \t.,;:!?()[]{}\"'\u3001\u3002\u300c\u300d\u300e\u300f\u3010\u3011\u300a\u300b\u30fb"

# A character of a script without spaces with its combining marks; or a run of other
# characters.
_PIECES = re.compile(f"[{UNSPACED}][\u3099\u309a\uff9e\uff9f]*|[^{UNSPACED}]+")

_NOWHERE = (0.0, 0.0, 0.0, 0.0)

Span = tuple[int, int, int]
"""Number of a word, and the first and last character of it, upper end exclusive."""


@dataclass(frozen=True)
class Unit:
    """Unit of comparison: a word, or a character of a script without spaces.

    Attributes:
        texts: Its possible spellings, the likeliest first.
        spans: Its position.
    """

    texts: tuple[str, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Match:
    """Matched words.

    Attributes:
        words: On the page, in its order.
        score: 1 for an exact match, else its similarity, 0..1.
        how: "exact", "fuzzy" or "regex".
    """

    words: tuple[Word, ...]
    score: float
    how: str

    @property
    def box(self) -> Box:
        """Return the box around all words."""
        return joined_box(word.box for word in self.words)

    @property
    def boxes(self) -> list[Box]:
        """Return a box for each line."""
        lines: dict[int, list[Box]] = {}
        for word in self.words:
            lines.setdefault(word.line, []).append(word.box)
        return [joined_box(line) for line in lines.values()]

    @property
    def text(self) -> str:
        """Return the words as printed, with hyphenated ones joined."""
        return running_text(self.words)


def normalised(text: str) -> str:
    """Return text normalised for comparison: one form of letters, dashes and quotes, no case."""
    return unicodedata.normalize("NFKC", text).translate(_LIGATURES).casefold()


def exact_matches(words: Sequence[Word], query: str) -> list[Match]:
    """Return exact matches of the query's words in sequence; punctuation around words is ignored.

    A word hyphenated at the end of a line matches with its hyphen or without. In
    scripts without spaces the query may match inside a word, and spaces are ignored.
    """
    wanted = [unit.texts[0] for unit in _units([Word(part, _NOWHERE, 0) for part in query.split()])]
    if not wanted:
        return []
    units = list(_units(words))
    found, start = [], 0
    while start + len(wanted) <= len(units):
        run = units[start : start + len(wanted)]
        if all(text in unit.texts for text, unit in zip(wanted, run, strict=True)):
            found.append(Match(_cut(words, run), 1.0, "exact"))
            start += len(wanted)
        else:
            start += 1
    return found


def fuzzy_matches(words: Sequence[Word], query: str, least: float = NEARLY) -> list[Match]:
    """Return fuzzy matches of the query's words, best first.

    Raises:
        InputError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz import fuzz, process
    except ImportError as error:
        raise InputError(
            "finding words that are nearly the same needs rapidfuzz: pip install "
            "'samonai[documents]'"
        ) from error
    asked = [Word(part, _NOWHERE, 0) for part in query.split()]
    wanted = " ".join(unit.texts[0] for unit in _units(asked))
    units = list(_units(words))
    if not wanted or not units:
        return []
    length = wanted.count(" ") + 1
    # OCR may join two words or split one.
    spans = [
        (start, start + count)
        for count in range(max(length - 1, 1), length + 2)
        for start in range(len(units) - count + 1)
    ]
    texts = [" ".join(unit.texts[0] for unit in units[a:b]) for a, b in spans]
    ranked = process.extract(wanted, texts, scorer=fuzz.ratio, score_cutoff=least, limit=None)
    taken: set[int] = set()
    found = []
    for _, score, row in ranked:
        span = range(*spans[row])
        if not taken & set(span):
            taken |= set(span)
            run = [units[n] for n in span]
            found.append(Match(_cut(words, run), score / 100, "fuzzy"))
    return found


def regex_matches(words: Sequence[Word], pattern: str) -> list[Match]:
    """Return matches of a regular expression in the text with single spaces, ignoring case.

    Hyphenated words are searched in joined form.

    Raises:
        InputError: The pattern is not a regular expression.
    """
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"{pattern!r} is no regular expression: {error}") from error
    text, owners = "", list[Span]()
    for number, word in enumerate(words):
        for start, end, written in _written(word):
            text += written
            owners += [(number, start, end)] * len(written)
        after = words[number + 1] if number + 1 < len(words) else None
        if after is not None and is_broken(word, after):
            if after.text[0].islower():
                text = text[:-1]
                owners.pop()
            continue
        text += " "
        owners.append((number, 0, 0))
    found = []
    for hit in compiled.finditer(text):
        spans = [span for span in owners[hit.start() : hit.end()] if span[2]]
        if spans and hit.group().strip():
            found.append(Match(_cut(words, [Unit((), tuple(spans))]), 1.0, "regex"))
    return found


def _written(word: Word) -> Iterator[tuple[int, int, str]]:
    """Yield first and last character of each piece of a word, and its searched text."""
    if not word.letters:
        yield 0, len(word.text), unicodedata.normalize("NFKC", word.text)
        return
    for piece in _PIECES.finditer(word.text):
        if is_unspaced(piece.group()[0]):
            yield piece.start(), piece.end(), unicodedata.normalize("NFKC", piece.group())
        else:
            for place, character in enumerate(piece.group(), piece.start()):
                yield place, place + 1, unicodedata.normalize("NFKC", character)


def _units(words: Sequence[Word]) -> Iterator[Unit]:
    """Yield the units of comparison; the halves of a hyphenated word as one."""
    number = 0
    while number < len(words):
        word, length = words[number], len(words[number].text)
        number += 1
        if number < len(words) and is_broken(word, words[number]):
            after = words[number]
            joined = _bare(word.text[:-1] + after.text), _bare(word.text + after.text)
            yield Unit(joined, ((number - 1, 0, length), (number, 0, len(after.text))))
            number += 1
            continue
        for piece in _PIECES.finditer(word.text):
            span = number - 1, piece.start(), piece.end()
            if is_unspaced(piece.group()[0]):
                yield from (Unit((text,), (span,)) for text in normalised(piece.group()))
            elif bare := _bare(piece.group()):
                yield Unit((bare,), (span,))


def _cut(words: Sequence[Word], units: Sequence[Unit]) -> tuple[Word, ...]:
    """Return the words of units, each once, cut to the matched characters."""
    spans = [span for unit in units for span in unit.spans]
    found = []
    for number, parts in groupby(spans, key=lambda span: span[0]):
        places = list(parts)
        start, end = min(part[1] for part in places), max(part[2] for part in places)
        found.append(words[number].cut(start, end))
    return tuple(found)


def _bare(text: str) -> str:
    return normalised(text).strip(_AROUND)
