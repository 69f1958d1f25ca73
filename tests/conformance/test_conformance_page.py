"""The page of conformance rows is made from the markers of the tests beside this file."""

import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location(
    "conformance_tool", REPOSITORY / "tools" / "conformance.py"
)
assert _spec is not None
assert _spec.loader is not None
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


def test_the_page_is_what_the_markers_say() -> None:
    text = tool.PAGE.read_text(encoding="utf-8")
    assert text == tool.page(), "run: python tools/conformance.py"


def test_a_marker_without_a_right_value_is_refused() -> None:
    source = "@pytest.mark.conformance(domain='medical')\ndef test_x(): ..."
    decorator = tool.ast.parse(source).body[0].decorator_list[0]
    with pytest.raises(ValueError, match="has exactly domain, condition"):
        tool.row_of(decorator, "test_x")
