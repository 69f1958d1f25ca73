"""The documentation's Python runs: tutorials, an example of each public class, docstrings.

A line of a block that is an expression, followed by a comment line, is an example with its value:

    len(prompts)
    # 3
"""

import ast
import doctest
import importlib
import inspect
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
TUTORIALS = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "reference" / "examples.md"]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Public names without an example, and the test that runs them.
WITHOUT_EXAMPLE = {
    "cross_validate": "tests/test_selection_folds.py trains the folds",
    "embed": "tests/test_cli_run.py fills the store",
    "Curve": "tests/test_selection_curve.py trains the points",
    "RunSet": "tests/test_selection_folds.py trains the runs",
    "Sweep": "tests/test_selection_sweep.py runs the trials",
}

ROOMS = (
    "domains.documents", "domains.medical", "domains.satellite", "embeddings", "evaluation",
    "inference", "sam", "selection", "training",
)  # fmt: skip


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page, with the page's line numbers in front as blank lines."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text[: found.start(1)].count("\n") + found[1] for found in _BLOCK.finditer(text)]


def expected_value(lines: list[str], statement: ast.stmt) -> str | None:
    """Return the comment right below an expression; None where there is none."""
    below = lines[statement.end_lineno] if (statement.end_lineno or 0) < len(lines) else ""
    is_value = isinstance(statement, ast.Expr) and below.startswith("# ")
    return below.removeprefix("# ") if is_value else None


def run_page(page: Path) -> Iterator[tuple[int, str, str]]:
    """Run a page's blocks in one namespace; yield line, value and expected value of examples."""
    names: dict[str, object] = {}
    for block in blocks(page):
        for statement in ast.parse(block).body:
            expected = expected_value(block.splitlines(), statement)
            if expected is None:
                module = ast.Module([statement], type_ignores=[])
                exec(compile(module, page.name, "exec"), names)
            else:
                assert isinstance(statement, ast.Expr)
                expression = ast.Expression(statement.value)
                value = eval(compile(expression, page.name, "eval"), names)
                yield statement.lineno, repr(value), expected


def tutorials() -> Iterator[object]:
    """Yield the pages; the one that trains is slow."""
    for page in TUTORIALS:
        trains = "finetune" in page.read_text(encoding="utf-8")
        yield pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if trains else [])


@pytest.mark.parametrize("page", list(tutorials()))
def test_a_tutorial_runs_and_says_what_comes_out(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = list(run_page(page))
    assert [f"{line}: {value}" for line, value, _ in examples] == [
        f"{line}: {expected}" for line, _, expected in examples
    ]
    assert examples


def test_every_page_of_the_docs_is_on_the_site() -> None:
    listed = re.findall(r"[\w/]+\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(pages) == sorted(listed)


def test_every_python_block_of_readme_and_docs_parses() -> None:
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]:
        for block in blocks(page):
            compile(block, str(page), "exec")


def test_every_public_name_has_an_example_that_runs() -> None:
    samonai = importlib.import_module("samonai")
    code = "\n".join(block for page in TUTORIALS for block in blocks(page))
    for name in set(samonai.__all__) - {"__version__"} - set(WITHOUT_EXAMPLE):
        in_docstring = ">>>" in (getattr(samonai, name).__doc__ or "")
        used = re.search(rf"samonai\.{name}\b", code) or (name == "Run" and "run.predict" in code)
        assert in_docstring or used, f"samonai.{name} has an example in no tutorial or docstring"


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_class_of_a_room_has_an_example_that_runs(room: str) -> None:
    package = importlib.import_module(f"samonai.{room}")
    code = "\n".join(block for page in TUTORIALS for block in blocks(page))
    nodes = list(ast.walk(ast.parse(code)))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    classes = {name for name in package.__all__ if inspect.isclass(getattr(package, name))}
    assert sorted(classes - used - set(WITHOUT_EXAMPLE)) == []


@pytest.mark.parametrize("module", ["samonai.core.geometry", "samonai.prompts.types"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_example_of_a_monai_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = REPOSITORY / "examples" / "monai_pipeline.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--out", str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    assert "back on the volume's grid: True" in capsys.readouterr().out
