"""Job: the network, data and store shared by many runs on one data set, loaded and listed once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from samonai.core.errors import InputError
from samonai.core.files import as_path, output_folder
from samonai.core.json_files import read_json
from samonai.core.sealed import is_whole
from samonai.domains import DEFAULT_DOMAIN
from samonai.embeddings.counting import FrameCounts
from samonai.settings.choices import PROMPTABLE
from samonai.training.data.folds import SplitNames, fold_splits, grouped_split, read_groups
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.inputs import data_paths, shows_progress, store_location
from samonai.workflows.run import Run, evaluate
from samonai.workflows.run_folder import STORE_FOLDER, path_fingerprint
from samonai.workflows.settings import check_settings, domain_of, plain_settings
from samonai.workflows.train import finetune

if TYPE_CHECKING:
    from samonai.domains.base import Case, Domain
    from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)

EVALUATION = "evaluation"
"""The folder in a run's folder with the metrics of its held-out cases."""


@dataclass(frozen=True)
class Job:
    """Runs on one data set, with one encoder and one store.

    Attributes:
        sam: The network or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        out: The folder of the runs.
        domain: The kind of data.
        checkpoint: The model's weights, if not the published ones.
        sha256: Their expected hash.
        store: Embedding store; None: in `out`.
        device: Device of computation.
        progress: Show bars; None: if standard error is a terminal.
        settings: The settings of every run.
    """

    sam: "SamNetwork | str"
    images: Path | str
    labels: Path | str | None
    out: Path
    domain: str = DEFAULT_DOMAIN
    checkpoint: Path | str | None = None
    sha256: str | None = None
    store: Path | str | None = None
    device: Any = None
    progress: bool | None = None
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the arguments before a model is loaded.

        Raises:
            InputError: A setting is unknown, or `out` is a file.
        """
        check_settings(self.settings or {}, self._config)
        object.__setattr__(self, "out", output_folder(self.out).absolute())

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_config(config_files(self.domain, TRAIN))

    @cached_property
    def all_settings(self) -> dict[str, Any]:
        """Return every plain setting of a run, with the bundle's defaults."""
        return {**plain_settings(self._config), **(self.settings or {})}

    @cached_property
    def reader(self) -> "Domain[Any]":
        """Return the domain that reads the cases."""
        return domain_of(self.domain, self._config, self.all_settings)

    @cached_property
    def cases(self) -> list["Case"]:
        """Return the data set's cases.

        Raises:
            InputError: A case has no label.
        """
        found = self.reader.find_cases(*data_paths(self.images, self.labels))
        if unlabelled := [case.case_id for case in found if case.label is None]:
            raise InputError(
                f"{len(unlabelled)} of {len(found)} cases in {self.images} have no label, such as "
                f"{unlabelled[0]!r}"
            )
        return found

    @cached_property
    def network(self) -> "SamNetwork":
        """Return the network, loaded once for all runs."""
        if not isinstance(self.sam, str):
            return self.sam
        from samonai.sam import load_sam

        return load_sam(self.sam, self.checkpoint, self.device, self.sha256)

    @cached_property
    def frames(self) -> FrameCounts:
        """Return the sums of frames that this job's runs encoded and found so far."""
        return FrameCounts()

    @property
    def store_path(self) -> str:
        """Return the location of the store of all runs."""
        return store_location(self.out / STORE_FOLDER if self.store is None else self.store)

    def fingerprint(self) -> dict[str, Any]:
        """Return an identifier of this job, without any folder's name."""
        return {
            "domain": self.domain,
            "model": self.sam if isinstance(self.sam, str) else self.sam.name,
            "images": path_fingerprint(self.images),
            "labels": path_fingerprint(self.labels),
            "settings": dict(self.settings or {}),
        }

    def train(
        self,
        name: str,
        split: SplitNames,
        *,
        seed: int = 0,
        overwrite: bool = False,
        **changes: Any,
    ) -> Run:
        """Train one run into the folder `name`, resume it, or return a complete one."""
        run = finetune(
            self.network,
            self.images,
            self.labels,
            domain=self.domain,
            out=self.out / name,
            split=split,
            seed=seed,
            checkpoint=self.checkpoint,
            store=self.store_path,
            device=self.device,
            overwrite=overwrite,
            progress=self.progress,
            found_cases=self.cases,
            **{**(self.settings or {}), **changes},
        )
        self.frames.add(run.frames)
        return run

    def evaluate(
        self, run: Run, cases: Sequence[str], name: str = EVALUATION, **options: Any
    ) -> dict[str, Any]:
        """Measure a run at native resolution, once; return the content of `metrics.json`.

        With boxes, or without prompts if only the semantic head was trained.

        Args:
            run: The run.
            cases: The cases to measure.
            name: The folder in the run's folder.
            **options: As for `samonai.evaluate`.
        """
        folder = run.path / name
        metrics = folder / "metrics.json"
        if (
            metrics.is_file()
            and metrics.stat().st_mtime_ns >= run.folder.decoder.stat().st_mtime_ns
        ):
            found = _whole_metrics(metrics)
            if found is not None and {row["case"] for row in found["cases"]} == set(cases):
                return found
        return evaluate(
            run,
            self.images,
            self.labels,
            folder,
            cases=list(cases),
            found_cases=self.cases,
            counts=self.frames,
            **{
                "prompts": "slices" if PROMPTABLE in run.metadata.heads else "none",
                "zero_shot": False,
                "report": False,
                "progress": self.progress,
                **options,
            },
        )

    def say(self, text: str) -> None:
        """Log progress on standard error, if it is shown."""
        if shows_progress(self.progress):
            Console(stderr=True).print(text, highlight=False, markup=False)

    def split(
        self,
        split: Path | str | Mapping[str, Sequence[str]] | None,
        val_fraction: float,
        groups: Path | str | None,
        seed: int,
    ) -> SplitNames:
        """Return the cases to train on and to hold out, shared by all runs."""
        from samonai.training.data.split import listed_split, split_cases
        from samonai.training.data.split_files import named_split

        check_settings({"seed": seed, "val_fraction": val_fraction}, self._config)
        if isinstance(split, Mapping):
            return named_split(split, [case.case_id for case in self.cases], "the split")
        if split is None and groups is not None and listed_split(self.cases) is None:
            names = [case.case_id for case in self.cases]
            return grouped_split(names, val_fraction, read_groups(groups), seed)
        found = split_cases(self.cases, val_fraction=val_fraction, split_file=split, seed=seed)
        self.say(found.sentence())
        return {
            "train": [case.case_id for case in found.train],
            "val": [case.case_id for case in found.val],
        }

    def folds(
        self,
        split: Path | str | Mapping[str, Sequence[str]] | None,
        folds: int,
        groups: Path | str | None,
        seed: int,
    ) -> list[SplitNames]:
        """Return k splits of all cases, or of a split's training cases alone.

        Folds of the data list or the split file are used if there are any and no groups are given.
        Cases of a data list's validation section are in none.

        Raises:
            InputError: The number of given folds is not the requested one.
        """
        from samonai.training.data.split import listed_folds
        from samonai.training.data.split_files import read_folds

        check_settings({"seed": seed}, self._config)
        given, where = None, "the data list"
        if split is None:
            given = listed_folds(self.cases)
        elif not isinstance(split, Mapping):
            file = as_path(split, "split")
            given, where = read_folds(file, self.cases), file.name
        if given is not None and groups is None:
            if len(given) != folds:
                raise InputError(
                    f"{where} has {len(given)} folds, not {folds}; give --folds {len(given)} for "
                    "these, or --groups to distribute the cases anew"
                )
            self.say(f"folds: those of {where}")
            return list(given.values())
        if split is None:
            names = [case.case_id for case in self.cases if not case.held_out]
        else:
            names = self.split(split, 0.2, None, seed)["train"]
        return fold_splits(names, folds, None if groups is None else read_groups(groups), seed)


def _whole_metrics(path: Path) -> dict[str, Any] | None:
    """Return metrics that were written before, or None where the file is damaged."""
    try:
        found = read_json(path)
    except InputError:
        found = None
    if isinstance(found, dict) and is_whole(found):
        return found
    logger.warning("%s is damaged: its checksum differs; the cases are measured again", path)
    return None
