"""Plain technical English: phrases that docstrings, comments and messages do not use."""

import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("samonai", "benchmarks", "tools")

FORBIDDEN = re.compile(
    r"\bwhat (?:is|was)\b|\bhangs? on\b|InputError: It is\b|\bor not it\b|\"\"\"Say whether\b"
    r"|\"\"\"Take note\b|\"\"\"Listen to\b|InputError: (?:As said|They are|When)\b|\bhow sure\b"
    r"|\b(?:a|the) model as it is\b|\btorn apart\b|\bby heart\b"
    r"|\"\"\"(?:What|How|Asks?|Says?|Tells?|Lay out)\b",
    re.IGNORECASE,
)
"""Name the thing ("the trainable parts", not "what is trained"); state a condition in full."""


def uses(text: str) -> int:
    return len(FORBIDDEN.findall(text))


def used_in_rooms() -> Counter[str]:
    """Count the forbidden phrases of each room of the package, the benchmarks and the tools."""
    found: Counter[str] = Counter()
    for folder in FOLDERS:
        for path in (REPOSITORY / folder).rglob("*.py"):
            room = "/".join(path.relative_to(REPOSITORY).parts[:2])
            found[room] += uses(path.read_text(encoding="utf-8"))
    return +found


@pytest.mark.parametrize(
    "text",
    [
        "What is trained.",
        "It hangs on the seed.",
        "InputError: It is.",
        "these, or not it",
        '"""Say whether',
        "how sure it is",
        '"""How a document looks',
    ],
)
def test_a_forbidden_phrase_is_found(text: str) -> None:
    assert uses(text) == 1


def test_no_room_uses_a_forbidden_phrase() -> None:
    assert used_in_rooms() == {}
