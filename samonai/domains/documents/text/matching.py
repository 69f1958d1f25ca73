"""Words of a query on a page: exact, nearly so, or by a regular expression."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from samonai.core.errors import InputError
from samonai.domains.documents.text.words import Box, Word, joined_box

NEARLY = 85.0
"""Least likeness (0..100, of rapidfuzz) of words that count as nearly the same."""

_LIGATURES = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-"} | {
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00ad": "",
})  # fmt: skip
_AROUND = " \t.,;:!?()[]{}\"'"


@dataclass(frozen=True)
class Match:
    """Where words of a query stand.

    Attributes:
        words: On the page, in its order.
        score: 1 for exact ones, else how alike they are, 0..1.
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
        """Return the words as they are written."""
        return " ".join(word.text for word in self.words)


def normalised(text: str) -> str:
    """Return text as it is compared: one form of letters, dashes and quotes, no case."""
    return unicodedata.normalize("NFKC", text).translate(_LIGATURES).casefold()


def exact_matches(words: Sequence[Word], query: str) -> list[Match]:
    """Return where the query's words follow each other; marks around words do not count.

    A word that is broken at the end of a line counts as whole.
    """
    wanted = [_bare(part) for part in query.split()]
    wanted = [part for part in wanted if part]
    if not wanted:
        return []
    units = list(_units(words))
    found, start = [], 0
    while start + len(wanted) <= len(units):
        run = units[start : start + len(wanted)]
        if [text for text, _ in run] == wanted:
            found.append(Match(tuple(w for _, parts in run for w in parts), 1.0, "exact"))
            start += len(wanted)
        else:
            start += 1
    return found


def fuzzy_matches(words: Sequence[Word], query: str, least: float = NEARLY) -> list[Match]:
    """Return where words stand that are nearly the query's, best first.

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
    wanted = " ".join(part for part in map(_bare, query.split()) if part)
    units = list(_units(words))
    if not wanted or not units:
        return []
    length = wanted.count(" ") + 1
    # A reader may join two words or tear one apart.
    spans = [
        (start, start + count)
        for count in range(max(length - 1, 1), length + 2)
        for start in range(len(units) - count + 1)
    ]
    texts = [" ".join(text for text, _ in units[a:b]) for a, b in spans]
    ranked = process.extract(wanted, texts, scorer=fuzz.ratio, score_cutoff=least, limit=None)
    taken: set[int] = set()
    found = []
    for _, score, row in ranked:
        span = range(*spans[row])
        if not taken & set(span):
            taken |= set(span)
            parts = tuple(word for n in span for word in units[n][1])
            found.append(Match(parts, score / 100, "fuzzy"))
    return found


def regex_matches(words: Sequence[Word], pattern: str) -> list[Match]:
    """Return what a regular expression finds in the text, words one space apart, without case.

    Raises:
        InputError: It is no regular expression.
    """
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"{pattern!r} is no regular expression: {error}") from error
    text, owners = "", []
    for word in words:
        written = unicodedata.normalize("NFKC", word.text)
        text += written + " "
        owners += [word] * (len(written) + 1)
    found = []
    for hit in compiled.finditer(text):
        parts = tuple(dict.fromkeys(owners[hit.start() : hit.end()]))
        if parts and hit.group().strip():
            found.append(Match(parts, 1.0, "regex"))
    return found


def _units(words: Sequence[Word]) -> Iterator[tuple[str, tuple[Word, ...]]]:
    """Yield words as they are compared; the halves of one broken at a line's end as one."""
    waiting: Word | None = None
    for word in words:
        if waiting is not None:
            first, waiting = waiting, None
            if word.line == first.line + 1:
                yield _bare(first.text[:-1] + word.text), (first, word)
                continue
            yield _bare(first.text), (first,)
        if len(word.text) > 2 and word.text[-1] in "-\u2010\u00ad" and word.text[-2].isalpha():
            waiting = word
        elif bare := _bare(word.text):
            yield bare, (word,)
    if waiting is not None:
        yield _bare(waiting.text), (waiting,)


def _bare(text: str) -> str:
    return normalised(text).strip(_AROUND)
