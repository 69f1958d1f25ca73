"""The package as others get it: what importing costs, what it declares, what the wheel holds."""

import ast
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import samonai

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ("torch", "monai", "numpy", "segment_anything", "SimpleITK", "matplotlib", "ignite")

# Installed for what imports them in their turn; pyproject.toml says which.
FOR_OTHERS = {
    "fire",
    "jsonschema",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "python-gdcm",
    "pyyaml",
    "tensorboard",
    "torchvision",
}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, samonai; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=REPOSITORY).strip() == "[]"


def test_public_names_are_listed_and_load() -> None:
    assert set(samonai.__all__) <= set(dir(samonai))
    assert all(getattr(samonai, name) is not None for name in samonai.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'samonai' has no attribute 'fine_tune'"):
        _ = samonai.fine_tune  # type: ignore[attr-defined]


def third_party_imports() -> set[str]:
    names = set()
    for path in (REPOSITORY / "samonai").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"samonai"}


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    return {normalised(re.split(r"[<>=~!\[; ]", text)[0]) for text in requirements}


def test_dependencies_are_those_that_the_code_imports() -> None:
    distributions = packages_distributions()
    imported = {normalised(distributions.get(name, [name])[0]) for name in third_party_imports()}
    extras = PROJECT["optional-dependencies"]
    optional = [text for name, texts in extras.items() if name != "dev" for text in texts]
    assert imported - declared(optional) == declared(PROJECT["dependencies"]) - FOR_OTHERS


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=REPOSITORY)
    return folder


def names_below(folder: str) -> set[str]:
    listing = run("git", "ls-files", "--", folder, cwd=REPOSITORY)
    return set(listing.split())


def test_the_wheel_holds_the_package_the_weights_and_the_bundles(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert "samonai/py.typed" in names
    assert "samonai/sam/weights/micro.safetensors" in names
    assert {f"samonai/{name}" for name in names_below("bundles")} <= names
    assert all(name.startswith("samonai/") for name in names)


def test_the_source_archive_can_build_test_and_benchmark(archives: Path) -> None:
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for folder in ("samonai", "bundles", "benchmarks", "docs", "tests", "tools"):
        assert names_below(folder) <= names
    assert {"LICENSE", "Makefile", "README.md", "CHANGELOG.md", "pyproject.toml"} <= names


@pytest.fixture(scope="module")
def elsewhere(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and with this one's dependencies but not its samonai.

    A path in a .pth file does not have its own .pth files read, and by one of those an editable
    install would be found.
    """
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "venv", symlinks=True)
    python = home / "venv" / "bin" / "python"
    (wheel,) = archives.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, "--no-index", wheel, cwd=home)
    here = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(python, "-c", here, cwd=home).strip())
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def test_installed_elsewhere_python_finds_the_wheel_and_its_model(elsewhere: Path) -> None:
    code = (
        "import json, samonai; sam = samonai.load_sam('micro');"
        "print(json.dumps([samonai.__file__, samonai.__version__, sam.name]))"
    )
    output = run(elsewhere / "venv" / "bin" / "python", "-c", code, cwd=elsewhere)
    file, version, name = json.loads(output.splitlines()[-1])
    assert elsewhere in Path(file).parents
    assert (version, name) == (samonai.__version__, "micro")


def test_installed_elsewhere_the_command_finds_the_bundles(elsewhere: Path) -> None:
    samonai_command = elsewhere / "venv" / "bin" / "samonai"
    assert samonai.__version__ in run(samonai_command, "--version", cwd=elsewhere)
    assert "medical" in run(samonai_command, "bundle", "list", cwd=elsewhere)


def test_installed_elsewhere_the_doctor_finds_nothing_missing(elsewhere: Path) -> None:
    report = run(elsewhere / "venv" / "bin" / "samonai", "doctor", cwd=elsewhere)
    assert samonai.__version__ in report
