"""What every bundle must be: known names only, complete metadata, MONAI's and the zoo's rules."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from pydoc import locate
from typing import Any

import ignite.distributed as idist
import pytest
import torch.distributed as dist
from bundle_factory import REPOSITORY, write_data
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata
from packaging.requirements import Requirement

import samonai
from samonai.core.settings import describe
from samonai.settings import DOMAINS, settings_of
from samonai.workflows.bundle_files import EVALUATE, TRAIN, config_files, read_config

BUNDLES = sorted(path.parent.parent for path in REPOSITORY.glob("bundles/*/configs/train.json"))
CONFIGS = [
    path
    for bundle in BUNDLES
    for path in sorted((bundle / "configs").glob("*.json"))
    if path.name != "metadata.json"
]
ALLOWED = ("samonai", "monai", "torch", "ignite")
LAID_OVER = {"evaluate.json": ["train.json"], "multi_gpu_train.json": ["train.json"]}

# MONAI says with every configuration that running one is running code; ours are our own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:No hash value provided:UserWarning"),
]

each_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
each_config = pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda path: f"{path.parent.parent.name}/{path.stem}"
)


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (innermost key, plain value) of everything in a configuration."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, key)
    else:
        yield key, value


def merged(config: Path) -> dict[str, Any]:
    files = [config.parent / name for name in LAID_OVER.get(config.name, [])]
    return ConfigParser.load_config_files([str(file) for file in (*files, config)])


@each_config
def test_targets_are_importable_and_of_known_packages(config: Path) -> None:
    targets = [value for key, value in leaves(json.loads(config.read_text())) if key == "_target_"]
    assert targets
    for target in targets:
        assert target.split(".")[0] in ALLOWED
        assert callable(locate(target)), target


@each_config
def test_imports_name_known_packages(config: Path) -> None:
    for line in json.loads(config.read_text()).get("imports", []):
        name = re.fullmatch(r"\$import ([\w.]+)(?: as \w+)?", line)
        assert name is not None, line
        assert name[1].split(".")[0] in {*ALLOWED, "os", "datetime"}


@each_config
def test_every_entry_is_read_by_something(config: Path) -> None:
    content = merged(config)
    texts = [value for _, value in leaves(content) if isinstance(value, str)]
    read = {name for text in texts for name in re.findall(r"@(\w+)", text)}
    # These are read by MONAI itself, or by its federated client and its tools.
    by_monai = {"imports", "initialize", "run", "finalize", "bundle_root", "train", "validate"}
    by_monai |= {"evaluator", "dataset_dir"} if config.name == "inference.json" else {"dataset_dir"}
    unread = set(json.loads(config.read_text())) - read - by_monai
    assert unread == set()


@each_config
def test_references_lead_somewhere(config: Path) -> None:
    content = merged(config)
    parser = ConfigParser(content)
    texts = [value for _, value in leaves(content) if isinstance(value, str)]
    for name in {name for text in texts for name in re.findall(r"@([\w:]+)", text)}:
        assert name in parser, name


@each_config
def test_configurations_stay_short(config: Path) -> None:
    assert len(config.read_text().splitlines()) <= 150


VOLUMES = ("cleaning", "planes", "propagation", "spread")
PAGES = ("suitable", "finding.automatic", "prompts.prompt")
NOT_COMMON = {
    "train.json": ("domain", "images", "labels", "sampler.carried_probability"),
    "multi_gpu_train.json": (),
    "evaluate.json": (
        "domain", *VOLUMES, *PAGES, *(f"validate.inferer.{name}" for name in (*VOLUMES, "prompts")),
        "validate.handlers.ClickMetrics", "evaluation.clicks", "evaluation.surface_tolerance_mm",
        "evaluation.boundary_tolerance", "case_metrics.surface_tolerance_mm",
        "case_metrics.measure",
    ),
    "inference.json": (
        "domain", *VOLUMES, *PAGES, *(f"inferer.{name}" for name in VOLUMES), "input", "boxes",
        "series", "chosen_cases.series",
    ),
}  # fmt: skip
"""Entries of one domain, beside its own settings; all others are the same in every bundle."""


@pytest.mark.parametrize("file", NOT_COMMON)
def test_the_common_part_of_the_bundles_is_common(file: str) -> None:
    first, *others = [common_part(bundle, file) for bundle in BUNDLES]
    assert len(first) >= 20
    for other in others:
        assert other == first
        assert list(other) == list(first), "handlers run in their order"


def common_part(bundle: Path, file: str) -> dict[str, Any]:
    """Return the entries of a configuration that all bundles share, by their paths."""
    own = {name for group in DOMAINS.values() for name in describe(group)}
    described = settings_of(bundle.name)
    found = {}
    for name, value in entries(json.loads((bundle / "configs" / file).read_text())):
        if name in own or any(f"{name}.".startswith(f"{other}.") for other in NOT_COMMON[file]):
            continue
        if name in described and described[name].defaults:
            assert value == described[name].default_of(bundle.name)
        else:
            found[name] = value
    return found


def entries(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, plain value) of a configuration; components of lists are named by target."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from entries(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            target = inner["_target_"] if isinstance(inner, dict) else str(inner)
            yield from entries(inner, f"{path}.{target.rpartition('.')[2]}")
    else:
        yield path, value


@each_bundle
def test_bundles_hold_no_code_and_what_the_zoo_asks_for(bundle: Path) -> None:
    assert not [path for path in bundle.rglob("*") if path.suffix in {".py", ".pt", ".ts"}]
    assert (bundle / "LICENSE").read_text() == (REPOSITORY / "LICENSE").read_text()
    assert (bundle / "docs" / "README.md").is_file()
    assert (bundle / "configs" / "inference.json").is_file()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("data")
    return {bundle.name: write_data(bundle, folder / bundle.name) for bundle in BUNDLES}


@pytest.fixture
def prepared(bundle: Path, data: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path
    return {
        "dataset_dir": data[bundle.name]["dataset_dir"],
        "output_dir": str(folder / "out"),
        "store": str(folder / "store"),
        "device": "$torch.device('cpu')",
        "initialize": [],  # no process group and no seed for this process
    }


@pytest.fixture
def one_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be the only process of a group, as a launcher would have it."""
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    # ignite remembers the group that it found; only its own way out makes it forget.
    idist.finalize()
    if dist.is_initialized():
        dist.destroy_process_group()


@each_bundle
@pytest.mark.parametrize("names", [["train.json"], ["train.json", "evaluate.json"]], ids="+".join)
def test_training_and_evaluation_have_monais_properties(bundle, names, prepared) -> None:
    # MONAI builds the trainer to see whether it is there; evaluating alone never does.
    extra = {} if names == ["train.json"] else {"decoder": None}
    workflow = make_workflow(bundle, names, "train", **prepared, **extra)
    assert workflow.check_properties() == []
    assert workflow.evaluator is not None


@each_bundle
def test_training_on_several_processes_has_monais_properties(bundle, prepared, one_of_one) -> None:
    names = ["train.json", "multi_gpu_train.json"]
    workflow = make_workflow(bundle, names, "train", **prepared, finalize=[])
    assert workflow.check_properties() == []
    assert workflow.trainer.network.module.name == "micro"


@each_bundle
def test_inference_has_monais_properties(bundle, prepared, data) -> None:
    settings = prepared | data[bundle.name]
    workflow = make_workflow(bundle, ["inference.json"], "infer", **settings, decoder=None)
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 3


def make_workflow(bundle: Path, names: list[str], kind: str, **settings: Any) -> ConfigWorkflow:
    configs = bundle / "configs"
    workflow = ConfigWorkflow(
        [str(configs / name) for name in names],
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        **settings,
    )
    workflow.initialize()
    return workflow


@each_bundle
def test_metadata_says_what_the_project_says(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    required = {
        "schema": str,
        "version": str,
        "monai_version": str,
        "pytorch_version": str,
        "numpy_version": str,
        "required_packages_version": dict,
        "task": str,
        "description": str,
        "authors": str,
        "copyright": str,
        "network_data_format": dict,
        "changelog": dict,
    }
    assert {key: type(metadata.get(key)) for key in required} == required
    assert "optional_packages_version" not in metadata  # MONAI would take it for the required ones
    assert metadata["version"] == samonai.__version__
    assert metadata["version"] in metadata["changelog"]
    for tensors in (metadata["network_data_format"][side] for side in ("inputs", "outputs")):
        for tensor in tensors.values():
            assert tensor.keys() >= {
                "type",
                "format",
                "num_channels",
                "spatial_shape",
                "dtype",
                "value_range",
            }


@each_bundle
def test_package_versions_are_those_that_the_project_allows(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"].get(bundle.name, [])
    needed = map(Requirement, [*project["dependencies"], *extra])
    allowed = {req.name: req.specifier for req in needed}
    stated = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    assert stated.pop("samonai") == samonai.__version__
    for name, version in stated.items():
        assert version in allowed[name], name


@each_bundle
def test_metadata_follow_the_published_schema(
    bundle: Path, shared_data: Path, tmp_path: Path
) -> None:
    schema = shared_data / "monai_bundle_schema" / "meta_schema_20240725.json"
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["schema"].rsplit("/", 1)[1] == schema.name
    # As the zoo does: the schema is put where it would have been downloaded to.
    copy = shutil.copytree(bundle, tmp_path / bundle.name)
    (copy / "eval").mkdir()
    shutil.copy(schema, copy / "eval" / "schema.json")
    verify_metadata(
        meta_file=str(copy / "configs" / "metadata.json"),
        filepath=str(copy / "eval" / "schema.json"),
    )
    metadata["network_data_format"]["inputs"]["image"].pop("dtype")
    (copy / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="'dtype' is a required property"):
        verify_metadata(
            meta_file=str(copy / "configs" / "metadata.json"),
            filepath=str(copy / "eval" / "schema.json"),
        )


def reached(config: dict[str, Any], name: str, seen: set[str]) -> set[str]:
    """Return the entries that an entry of a configuration refers to, directly or by others."""
    if name in seen:
        return seen
    seen.add(name)
    content: Any = config
    for part in name.split("::"):
        content = content[int(part)] if isinstance(content, list) else content[part]
    for found in re.findall(r"@(\w+(?:::\w+)*)", json.dumps(content)):
        reached(config, found, seen)
    return seen


@pytest.mark.parametrize("domain", ["medical", "satellite", "documents"])
def test_an_evaluation_prepares_no_training_data(domain: str) -> None:
    config = read_config(config_files(domain, TRAIN, EVALUATE))
    names = reached(config, "run", reached(config, "initialize", set()))
    assert "case_metrics" in names
    assert "data" not in names
