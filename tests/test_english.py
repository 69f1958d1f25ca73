"""Plain technical English: phrases that docstrings, comments and messages do not use.

A room that still has some has an allowance. It may only shrink: who rewrites a text lowers it.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "samonai"

FORBIDDEN = re.compile(
    r"\bwhat (?:is|was)\b|\bhangs? on\b|InputError: It is\b|\bor not it\b", re.IGNORECASE
)
"""Name the thing ("the trainable parts", not "what is trained"); state a condition in full."""

ALLOWANCE = {
    "embeddings": 17,
    "inference": 43,
    "selection": 14,
    "workflows": 25,
}


def uses(text: str) -> int:
    return len(FORBIDDEN.findall(text))


def used_in_rooms() -> Counter[str]:
    """Count the forbidden phrases of each room of the package."""
    found: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        found[room] += uses(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    "text", ["What is trained.", "It hangs on the seed.", "InputError: It is.", "these, or not it"]
)
def test_a_forbidden_phrase_is_found(text: str) -> None:
    assert uses(text) == 1


def test_rooms_use_no_more_forbidden_phrases_than_they_are_allowed() -> None:
    above = {
        room: f"{count} uses, {ALLOWANCE.get(room, 0)} allowed"
        for room, count in used_in_rooms().items()
        if count > ALLOWANCE.get(room, 0)
    }
    assert above == {}
