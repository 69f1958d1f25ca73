"""Imports point only downwards: one layer per room, every kind of import counts."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "samonai"
LONGEST_MODULE = 400

# Lowest first; a name stands for the module or the package and all that is in it.
LAYERS = (
    ("version",),
    ("core",),
    ("settings",),
    ("prompts",),
    ("sam",),
    ("domains",),
    ("pacs",),
    ("embeddings",),
    ("transforms",),
    ("metrics",),
    ("engine",),
    ("training",),
    ("inference",),
    ("evaluation",),
    ("report",),
    ("workflows",),
    ("selection",),
    ("export",),
    ("serve",),
    ("federated",),
    ("cli",),
)
SIBLINGS = {frozenset({"training", "inference"}), frozenset({"training", "evaluation"})}
"""Rooms that do not import each other either way."""
TOP = len(LAYERS)

MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def layer_of(module: str) -> int | None:
    if module in ("samonai", "samonai.__main__"):
        return TOP
    unit = module.split(".")[1]
    return next((level for level, units in enumerate(LAYERS) if unit in units), None)


def imported_modules(module: str, path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            yield from imported_from(node, module, path)


def imported_from(node: ast.ImportFrom, module: str, path: Path) -> Iterator[str]:
    source = node.module or ""
    if node.level:
        package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
        base = package[: len(package) - node.level + 1]
        source = ".".join([*base, source] if source else base)
    if is_ours(source):
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            if submodule in MODULES:
                yield submodule
            else:
                yield source


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "samonai"


IMPORTS = {module: sorted(set(imported_modules(module, path))) for module, path in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own = layer_of(module)
    assert own is not None, f"{module} is in no layer; add it to LAYERS"
    upwards = [name for name in IMPORTS[module] if (layer_of(name) or 0) > own]
    assert upwards == []


@pytest.mark.parametrize("module", MODULES)
def test_training_and_inference_do_not_import_each_other(module: str) -> None:
    room = module.split(".")[1] if "." in module else ""
    rooms = {name.split(".")[1] for name in IMPORTS[module] if "." in name}
    assert [other for other in rooms if {room, other} in SIBLINGS] == []


def test_nobody_imports_the_package_root() -> None:
    assert [name for name, found in IMPORTS.items() if "samonai" in found] == []


def test_there_are_no_import_cycles() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_every_layer_exists() -> None:
    units = {module.split(".")[1] for module in MODULES if "." in module} - {"__main__"}
    assert units == {unit for level in LAYERS for unit in level}


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_short(module: str) -> None:
    lines = MODULES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_MODULE
