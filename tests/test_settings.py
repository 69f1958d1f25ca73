"""Settings: every entry of a bundle is described, agrees with its component, has one name."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
from bundle_factory import REPOSITORY

import samonai.embeddings
import samonai.evaluation
import samonai.inference
import samonai.prompts.sampling
from samonai.cli import main
from samonai.core.errors import InputError
from samonai.core.settings import Affects, describe, validate
from samonai.settings import (
    BLOCKS,
    COMMON,
    DOMAINS,
    RENAMED,
    compared,
    current_names,
    current_training,
    domain_of_config,
    flat,
    recorded,
    settings_below_pixels,
    settings_of,
)
from samonai.settings.table import VERBS
from samonai.workflows.bundle_engine import opened_bundle
from samonai.workflows.bundle_files import find_bundle, plain_configs, read_config
from samonai.workflows.settings import check_settings, parse_settings, plain_settings

CONFIGS = {domain: plain_configs(find_bundle(domain)) for domain in DOMAINS}
EACH = [(domain, verb) for domain in DOMAINS for verb in VERBS]
# Built from other entries; nobody sets them.
_BUILT = ("trainable", "network", "found_cases", "found_decoder")
each_config = pytest.mark.parametrize(("domain", "file"), EACH)


@each_config
def test_every_entry_is_described_with_its_default(domain: str, file: str) -> None:
    config, described = CONFIGS[domain][file], settings_of(domain)
    own = {name: value for name, value in flat(config).items() if name != "imports"}
    for name, value in own.items():
        if name.endswith("._target_"):
            continue
        if isinstance(value, dict | list) and name not in described:
            continue  # a component
        if str(value).startswith(("$", "@")) and name not in described:
            assert "." in name or name in _BUILT, f"{name} is not described"
            continue
        what = described[name]
        if what.is_path or isinstance(value, list) or str(value).startswith("$"):
            continue
        # Null in prediction and evaluation: as the run has it.
        assert value == what.default_of(domain) or (value is None and file != "train.json"), name
        if value is not None:
            assert validate(what, value) == value


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_description_is_used(domain: str) -> None:
    used = {name for file in VERBS for name in flat(CONFIGS[domain][file])}
    own = {name for name, what in describe(DOMAINS[domain]).items() if not what.internal}
    assert own <= used
    everywhere = {name for d in DOMAINS for file in VERBS for name in flat(CONFIGS[d][file])}
    assert settings_of().keys() <= everywhere


@each_config
def test_a_component_has_the_same_default(domain: str, file: str) -> None:
    described = settings_of(domain)
    for target, arguments in components(CONFIGS[domain][file]):
        parameters = inspect.signature(locate(target)).parameters  # type: ignore[arg-type]
        for key, name in arguments:
            if name.endswith(key) and name in described and key in parameters:
                default = parameters[key].default
                what = described[name]
                if default is not inspect.Parameter.empty and not what.is_path:
                    allowed = (what.default, what.default_of(domain), None)
                    assert default in allowed, f"{target}({key}={default!r})"


@each_config
def test_no_reference_renames_a_setting(domain: str, file: str) -> None:
    described = settings_of(domain)
    renamed = [
        (key, name)
        for key, name in references(CONFIGS[domain][file])
        if name in described and key != name.rpartition(".")[2]
    ]
    assert renamed == []


def references(value: Any) -> Any:
    """Yield (key, referenced name) of our own components and of plain groups of values.

    Components of MONAI and torch have names of their own.
    """
    if isinstance(value, dict):
        if str(value.get("_target_", "samonai.")).startswith("samonai."):
            for key, given in value.items():
                if isinstance(given, str) and given.startswith("@"):
                    yield key, given[1:].replace("::", ".")
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_training_of_old_decoders_is_read_under_its_names() -> None:
    old = {
        "prompts": {"kinds": {"box": 0.5}, "carried": 0.3, "box_jitter": 0.05, "positive": 3},
        "multimask": True,
        "click_rounds": 2,
        "embedding_mix": 0.5,
        "loss": "bce",
        "epochs": 3,
    }
    current = {
        "prompts": {
            "box_probability": 0.5,
            "carried_probability": 0.3,
            "box_jitter": 0.05,
            "positive_points": 3,
        },
        "interactive": {"multimask": True, "click_rounds": 2},
        "mixup": {"probability": 0.5},
        "loss_recipe": "bce",
        "epochs": 3,
    }
    assert current_training(old) == current
    assert current_training(current) == current


def components(value: Any, block: str = "") -> Any:
    """Yield (target, [(argument, setting)]) of everything of ours in a configuration."""
    if isinstance(value, dict):
        if str(value.get("_target_", "")).startswith("samonai."):
            own = [(k, f"{block}.{k}") for k in value if block in BLOCKS.values()]
            yield (
                value["_target_"],
                [(k, v[1:].replace("::", ".")) for k, v in value.items() if str(v).startswith("@")]
                + own,
            )
        for name, inner in value.items():
            yield from components(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from components(inner)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_description_says_what_it_means(domain: str) -> None:
    for what in settings_of(domain).values():
        assert what.help.endswith(".")
        assert what.types
        if what.default is not None and not what.is_path:
            validate(what, what.default)


def test_the_page_is_current() -> None:
    sys.path.insert(0, str(REPOSITORY / "tools"))
    import settings_page

    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", 0, "epochs=0: expected 1 or more"),
        ("epochs", 2.5, "epochs=2.5: expected a whole number such as 20"),
        ("epochs", True, "epochs=True: expected a whole number"),
        ("learning_rate", 0.0, "learning_rate=0: expected above 0"),
        ("learning_rate", float("nan"), "learning_rate=nan: expected a finite number"),
        ("heads", "semantics", "use one of promptable, semantic, both; did you mean 'semantic'"),
        (
            "sampler.box_jitter",
            0.5,
            "sampler.box_jitter=0.5: expected 0 or more and below 0.5 of the box",
        ),
        ("crop_margin", -1, "crop_margin=-1: expected 0 or more mm"),
        ("precision", None, 'precision=null: expected text such as "auto"'),
    ],
)
def test_one_validate_refuses(name: str, value: Any, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        validate(settings_of("medical")[name], value)


def test_numbers_are_converted() -> None:
    import numpy as np

    table = settings_of("medical")
    assert type(validate(table["sampler.box_jitter"], 0)) is float
    assert type(validate(table["epochs"], np.int64(3))) is int
    assert validate(table["checkpoint"], None) is None


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("train.json", "box_jitter", "sampler.box_jitter"),
        ("train.json", "view_flip", "augmentation.flip"),
        ("inference.json", "label_margin", "coarse_label.margin"),
        ("inference.json", "output_ending", "ending"),
        ("evaluate.json", "eval_prompts", "evaluation.prompts"),
        ("evaluate.json", "zero_shot", "evaluation.zero_shot"),
    ],
)
def test_an_old_name_that_is_typed_gives_the_new_one(file: str, old: str, new: str) -> None:
    config = CONFIGS["medical"][file]
    message = f"unknown setting '{old}'; its name is '{new}'"
    with pytest.raises(InputError, match=re.escape(message)):
        parse_settings([f"{old}=1"], config)
    with pytest.raises(InputError, match=re.escape(message)):
        check_settings({old: 1}, config)
    with pytest.raises(InputError, match=re.escape(message)):
        opened_bundle([find_bundle("medical") / "configs" / file], {old: 1}).__enter__()


def test_a_bundle_of_before_is_told_the_new_names(tmp_path: Path) -> None:
    old = tmp_path / "inference.json"
    old.write_text(json.dumps({**CONFIGS["medical"]["inference.json"], "label_margin": 0}))
    with pytest.raises(InputError, match=r"inference\.json: the entry 'label_margin' is now"):
        read_config([old])


def test_an_old_parameter_gives_the_new_one() -> None:
    for component, old, new in (
        (samonai.prompts.sampling.PromptSampler, "shifted", "shifted_probability"),
        (samonai.embeddings.Augmentation, "view_flip", "flip"),
        (samonai.inference.prediction_prompts, "specks", "coarse_label.min_area"),
        (samonai.inference.evaluation_cases, "names", "cases"),
        (samonai.evaluation.CaseMetrics, "folder", "evaluation_dir"),
    ):
        with pytest.raises(InputError, match=re.escape(f"({old}=…): there is no such parameter")):
            component(**{old: 1})
        assert new.rpartition(".")[2] not in (old, "")
        assert new.split(".")[0] in inspect.signature(component).parameters


def test_blocks_are_given_as_mappings_too() -> None:
    config = CONFIGS["medical"]["train.json"]
    given = {"sampler": {"box_jitter": 0}, "mixup.alpha": 1}
    assert check_settings(given, config) == {"sampler.box_jitter": 0.0, "mixup.alpha": 1.0}
    with pytest.raises(InputError, match="sampler=3: expected settings by name"):
        check_settings({"sampler": 3}, config)
    with pytest.raises(InputError, match=r"'sampler\.jitter'; did you mean 'sampler\.box_jitter'"):
        check_settings({"sampler": {"jitter": 0}}, config)
    with pytest.raises(InputError, match=r"'flip'; did you mean 'augmentation\.flip'"):
        check_settings({"flip": 0}, config)


def test_older_versions_settings_have_the_names_of_today() -> None:
    config = CONFIGS["medical"]["inference.json"]
    with pytest.raises(InputError, match="unknown setting 'turns'; its name is 'tta'"):
        parse_settings(["turns=8"], config)
    with pytest.raises(InputError, match=r"its name is .mixup\.alpha."):
        check_settings({"embedding_mix_alpha": 1.0}, CONFIGS["medical"]["train.json"])
    assert current_names({"turns": 8, "seed": 1}) == {"tta": 8, "seed": 1}
    assert not set(RENAMED) & {name for domain in DOMAINS for name in settings_of(domain)}


def test_a_text_is_not_read_as_a_number() -> None:
    config = CONFIGS["medical"]["inference.json"]
    assert parse_settings(["series=1", "time=2"], config) == {"series": "1", "time": 2}
    assert parse_settings(["prefer=null"], config) == {"prefer": None}


def test_what_a_run_records_follows_from_what_a_setting_affects() -> None:
    names = plain_settings(CONFIGS["medical"]["train.json"])
    apart = {name for name in names if not recorded(name)}
    # Files are recorded by their hash.
    files = {"checkpoint", "sha256", "split", "case_map", "initial_decoder"}
    assert apart == {"progress", "resume", "workers", *files}
    assert not compared("progress")
    assert compared("tta")
    assert not compared("boxes")  # by content
    assert compared("an entry of a user's own bundle")


def test_only_pixels_bind_a_decoder() -> None:
    free = settings_below_pixels(DOMAINS["medical"])
    assert {"label_map", "prefer", "channel", "time", "allow_gaps"} <= free
    assert not {"window", "level", "axis", "crop", "suv"} & free
    assert settings_of("satellite")["tile"].affects is Affects.PIXELS


def test_a_users_own_entry_is_checked_by_its_default() -> None:
    config = {**CONFIGS["medical"]["train.json"], "my_factor": 0.5}
    assert check_settings({"my_factor": 1}, config) == {"my_factor": 1.0}
    with pytest.raises(InputError, match="my_factor"):
        check_settings({"my_factor": "much"}, config)


@each_config
def test_the_domain_of_a_configuration_is_found(domain: str, file: str) -> None:
    assert domain_of_config(CONFIGS[domain][file]) == domain


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "medical"]) == 0
    shown = capsys.readouterr().out
    assert "Optimisation:" in shown
    assert "  crop_margin = 10.0  (0 or more; mm; train, evaluate, predict)" in shown
    assert "  sampler.box_jitter = 0.05  (0 or more and below 0.5; of the box; train)" in shown


def test_descriptions_import_nothing_heavy() -> None:
    code = (
        "import sys, samonai.settings.table;"
        "sys.exit([n for n in ('torch', 'monai', 'numpy') if n in sys.modules] or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_descriptions_are_frozen() -> None:
    for group in (*COMMON, *DOMAINS.values()):
        assert group.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert dataclasses.is_dataclass(group)
    json.dumps([what.help for what in settings_of("medical").values()])
