"""The server's side of a federation: agreement, weighted average, best round, the run's folder."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains import domain_class
from samonai.federated.plan import FederatedPlan
from samonai.federated.site import Tensors, check_tensors, put_tensors, trained_tensors
from samonai.sam.decoder_file import save_decoder
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.training import with_heads
from samonai.training.objectives.heads import trained_heads
from samonai.version import __version__
from samonai.workflows.bundle_engine import opened_bundle
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.inputs import network_overrides
from samonai.workflows.run_folder import HISTORY_FILE, RunFolder
from samonai.workflows.settings import check_settings, plain_settings, recorded_settings

ROUNDS_FILE = "federated.json"

Facts = Mapping[str, Any]
Weighted = tuple[Mapping[str, npt.NDArray[np.floating]], float]


def weighted_average(updates: Sequence[Weighted]) -> Tensors:
    """Return the average of tensors, by weight; computed in float64.

    Raises:
        InputError: There are none, their weights are not positive, or their tensors differ.
    """
    total = sum(weight for _, weight in updates)
    if not updates or min(weight for _, weight in updates) <= 0:
        raise InputError("an average needs tensors with positive weights")
    names = updates[0][0].keys()
    if any(tensors.keys() != names for tensors, _ in updates):
        raise InputError("the sites sent different tensors; all need the same version")
    return {
        name: np.sum(
            [
                np.asarray(tensors[name], np.float64) * (weight / total)
                for tensors, weight in updates
            ],
            axis=0,
        ).astype(np.float32)
        for name in names
    }


def size_of(tensors: Mapping[str, npt.NDArray[np.generic]]) -> int:
    """Return the number of bytes of tensors."""
    return sum(value.nbytes for value in tensors.values())


def disagreement(expected: Facts, found: Facts, domain: str) -> str | None:
    """Return why a site cannot take part; None if it can."""
    if found["encoder_sha256"] != expected["encoder_sha256"]:
        shown = (str(facts["encoder_sha256"])[:16] for facts in (found, expected))
        return "its encoder's sha256 is {}…, expected {}…".format(*shown)
    if found["normalisation"] != expected["normalisation"]:
        return "its model normalises images in another way"
    if found["classes"] != expected["classes"]:
        shown = (json.dumps(facts["classes"], sort_keys=True) for facts in (found, expected))
        return "its classes are {}, expected {}".format(*shown)
    ignored = domain_class(domain).non_pixel_settings
    own, others = found["domain_settings"], expected["domain_settings"]
    for name in sorted(own.keys() | others.keys()):
        if name not in ignored and own.get(name) != others.get(name):
            return f"it reads images with {name}={own.get(name)}, expected {others.get(name)}"
    return None


class Federation:
    """State of a federated training at its server.

    Args:
        plan: The settings.
        checkpoint: The model's weights, if not the published ones.

    Attributes:
        tensors: The global tensors.
        rounds: One record per round, as JSON values.
        sites: Site to its facts, of the sites that take part.
        refused: Site to reason, of the sites that cannot take part.
        agreed: Facts that all sites agree on.
    """

    def __init__(self, plan: FederatedPlan, checkpoint: Path | str | None = None) -> None:
        """Load the model."""
        self.plan, self.checkpoint = plan, checkpoint
        files = config_files(plan.domain, TRAIN)
        config = read_config(files)
        self._chosen = check_settings({**plan.settings, **plan.of_training()}, config)
        self._settings = {**plain_settings(config), **self._chosen}
        overrides = {**self._chosen, **network_overrides(plan.model, checkpoint, None, "cpu")}
        # A server has no data, which these facts are checked against.
        overrides |= {"progress": False, "initial_facts": None}
        with ExitStack() as stack:
            workflow = stack.enter_context(opened_bundle(files, overrides))
            part = workflow.parser.get_parsed_content
            self.network: Any = part("trainable")
            self._provenance = {**part("provenance"), "prompts": part("sampler").settings()}
        self.tensors: Tensors = {}
        self.rounds: list[dict[str, Any]] = []
        self.refused: dict[str, str] = {}
        self.sites: dict[str, Facts] = {}
        self.agreed: dict[str, Any] = {}
        self._best: tuple[float, int, Tensors] | None = None

    def agree(self, facts: Mapping[str, Facts]) -> list[str]:
        """Choose the sites that can take part; the others are in `refused`.

        Raises:
            InputError: Too few sites are left.
        """
        first = facts[min(facts)]
        self.agreed = {
            **first,
            "encoder_sha256": self.network.stock_sha256,
            "normalisation": self.network.normalisation.to_metadata(),
            "classes": dict(self.plan.classes or first["classes"]),
        }
        for site, found in sorted(facts.items()):
            reason = disagreement(self.agreed, found, self.plan.domain)
            if reason is None:
                self.sites[site] = found
            else:
                self.refused[site] = reason
        if len(self.sites) < self.plan.min_sites:
            told = "; ".join(f"{site}: {reason}" for site, reason in self.refused.items())
            raise InputError(
                f"{len(self.sites)} sites can take part, and {self.plan.min_sites} are needed"
                + (f" ({told})" if told else "")
            )
        classes = {int(value): name for value, name in self.agreed["classes"].items()}
        borders = bool(self._settings.get("borders"))
        self.network = with_heads(self.network, classes, self.plan.heads, borders)
        self.tensors = trained_tensors(self.network)
        return sorted(self.sites)

    def measured(self, dice: Mapping[str, float]) -> float:
        """Note the Dice of the global tensors at each site; the best tensors are kept.

        Args:
            dice: Site to Dice, after the last round, or before the first.

        Returns:
            The average by held-out cases.
        """
        weights = {site: max(self.sites[site]["val_cases"], 1) for site in dice}
        mean = sum(dice[s] * weights[s] for s in dice) / sum(weights.values())
        if self.rounds:
            self.rounds[-1] |= {"val_dice": mean, "global_dice": dict(dice)}
            if self._best is None or mean > self._best[0]:
                self._best = (mean, self.rounds[-1]["round"], self.tensors)
        return mean

    def merge(self, updates: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the average of the sites' changes, by training cases, and note the round.

        Args:
            updates: Site to its `Update` as a mapping.

        Raises:
            InputError: The tensors of the sites differ, or are not those that are trained.
        """
        for update in updates.values():
            check_tensors(self.network, update["change"])
        change = weighted_average([(u["change"], u["cases"]) for u in updates.values()])
        down = size_of(self.tensors) * len(updates)
        up = sum(size_of(update["change"]) for update in updates.values())
        self.tensors = {name: self.tensors[name] + change[name] for name in self.tensors}
        total = sum(update["cases"] for update in updates.values())
        self.rounds.append(
            {
                "round": len(self.rounds) + 1,
                "bytes_down": down,
                "bytes_up": up,
                "train_loss": sum(u["loss"] * u["cases"] for u in updates.values()) / total,
                "local_dice": {site: update["dice"] for site, update in updates.items()},
                "cases": {site: update["cases"] for site, update in updates.items()},
            }
        )

    def write(self, out: Path | str) -> Path:
        """Write the best decoder as the folder of a finished run.

        Args:
            out: The folder, new or empty.

        Raises:
            InputError: No round has ended.
        """
        if self._best is None:
            raise InputError("no round has ended, so there is no decoder")
        dice, number, tensors = self._best
        put_tensors(self.network, tensors)
        folder = RunFolder(out)
        record = {
            "samonai": __version__,
            "domain": self.plan.domain,
            "settings": recorded_settings(self._settings),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "encoder_sha256": self.network.stock_sha256,
        }
        with folder.locked(record):
            for name, content in ((HISTORY_FILE, self._history()), (ROUNDS_FILE, self.report())):
                with write_atomically(folder.path / name) as path:
                    path.write_text(json.dumps(content, indent=1) + "\n")
            save_decoder(self.network.eval(), folder.decoder, self._metadata(dice, number))
        return folder.decoder

    def report(self) -> dict[str, Any]:
        """Return the record of the federation, as JSON values."""
        return {
            "plan": self.plan.to_json(),
            "sites": {
                site: {key: facts[key] for key in ("train_cases", "val_cases")}
                for site, facts in self.sites.items()
            },
            "refused": self.refused,
            "best_round": None if self._best is None else self._best[1],
            "rounds": self.rounds,
        }

    def _history(self) -> list[dict[str, Any]]:
        return [
            {
                "epoch": row["round"] * self.plan.local_epochs,
                "train_loss": row["train_loss"],
                "val_dice": row.get("val_dice"),
                "learning_rate": None,
            }
            for row in self.rounds
        ]

    def _metadata(self, dice: float, number: int) -> DecoderMetadata:
        plan = self.plan
        counts = self.report()["sites"]
        return DecoderMetadata(
            model=self.network.name,
            encoder_sha256=self.network.stock_sha256,
            normalisation=self.network.normalisation.to_metadata(),
            domain=plan.domain,
            domain_settings=dict(self.agreed["domain_settings"]),
            classes=dict(self.agreed["classes"]),
            training={
                **self._provenance,
                "train_cases": [],
                "val_cases": [],
                "epochs_done": len(self.rounds) * plan.local_epochs,
                "encoder_changed": False,
                "federated": {
                    "rounds": len(self.rounds), "local_epochs": plan.local_epochs,
                    "proximal": plan.proximal, "sites": counts,
                },
                "versions": {"samonai": __version__},
            },
            metrics={"val_dice": dice, "epoch": number * plan.local_epochs, "round": number},
            heads=trained_heads(plan.heads),
        )  # fmt: skip
