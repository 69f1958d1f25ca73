"""A site of a federation: its own data, training and validation; only tensors leave it."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.sealed import check_archive, seal_archive
from samonai.federated.plan import FederatedPlan
from samonai.workflows.bundle_engine import opened_bundle
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.inputs import network_overrides, store_location
from samonai.workflows.settings import check_settings, domain_of, plain_settings

STATE_FILE = "site.pt"

Tensors = dict[str, npt.NDArray[np.float32]]
"""Trained tensors by name, float32: all that travels."""


def trained_tensors(network: nn.Module) -> Tensors:
    """Return copies of the trained tensors; frozen ones and buffers are left out."""
    return {
        name: value.detach().cpu().float().numpy().copy()
        for name, value in network.named_parameters()
        if value.requires_grad
    }


def check_tensors(network: nn.Module, tensors: Mapping[str, npt.NDArray[np.floating]]) -> None:
    """Check that tensors are those that a network trains.

    Raises:
        InputError: They have other names or shapes, or values that are not finite.
    """
    own = {name: value for name, value in network.named_parameters() if value.requires_grad}
    if own.keys() != tensors.keys():
        raise InputError(
            f"other tensors than the {len(own)} that are trained here, such as "
            f"{min(own.keys() ^ tensors.keys())}; all sites need the same settings and version"
        )
    for name, value in own.items():
        given = np.asarray(tensors[name])
        if given.shape != tuple(value.shape) or not np.isfinite(given).all():
            raise InputError(f"tensor {name}: another shape, or values that are not finite")


def put_tensors(network: nn.Module, tensors: Mapping[str, npt.NDArray[np.floating]]) -> None:
    """Put tensors into a network.

    Raises:
        InputError: The network trains other tensors, or values are not finite.
    """
    check_tensors(network, tensors)
    own = {name: value for name, value in network.named_parameters() if value.requires_grad}
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(torch.from_numpy(np.array(tensors[name], np.float32)))


@dataclass(frozen=True)
class Update:
    """Result of a site's round.

    Attributes:
        change: The trained tensors minus those that the round began with.
        cases: Number of training cases, the weight of the site.
        dice: Validation Dice of the site's own weights after the round.
        loss: Mean training loss.
        steps: Number of steps of the optimizer.
    """

    change: Tensors
    cases: int
    dice: float
    loss: float
    steps: int


class Site:
    """A site's data and its training, which stays open over the rounds.

    The optimizer's state and the plan of the learning rate stay at the site, in its folder: a site
    that was away, or whose process ended, goes on with them.

    Args:
        plan: The server's settings.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        folder: Folder for the site's state.
        store: Embedding store; by default in that folder.
        checkpoint: The model's weights, if not the published ones.
        device: Device of computation.

    Raises:
        InputError: The data or a setting cannot be used.
    """

    def __init__(
        self,
        plan: FederatedPlan,
        images: Path | str,
        labels: Path | str | None,
        folder: Path | str,
        *,
        store: Path | str | None = None,
        checkpoint: Path | str | None = None,
        device: Any = None,
    ) -> None:
        """Open the training."""
        self.plan, folder = plan, Path(folder)
        files = config_files(plan.domain, TRAIN)
        config = read_config(files)
        chosen = check_settings({**plan.settings, **plan.of_training()}, config)
        domain = domain_of(plan.domain, config, {**plain_settings(config), **chosen})
        overrides = {
            **chosen,
            **network_overrides(plan.model, checkpoint, None, device),
            "images": images,
            "labels": labels,
            "found_cases": list(domain.find_cases(images, labels)),
            "output_dir": folder,
            "store": folder / "store" if store is None else store_location(store),
            "progress": False,
        }
        self._open = ExitStack()
        workflow = self._open.enter_context(opened_bundle(files, overrides))
        self._part = workflow.parser.get_parsed_content
        self.trainer = self._part("train::trainer")
        self.validator = self._part("validate::evaluator")
        self.network: Any = self._part("network")
        self.data = self._part("data")
        self._state = folder / STATE_FILE
        self._kept = {name: self._part(name) for name in ("optimizer", "lr_schedule")}
        self._restore()

    def close(self) -> None:
        """End the training."""
        self._open.close()

    def facts(self) -> dict[str, Any]:
        """Return what all sites must agree on, and the numbers of cases, as JSON values."""
        split = self.data.split
        return {
            "encoder_sha256": self.network.stock_sha256,
            "normalisation": self.network.normalisation.to_metadata(),
            "domain_settings": self._part("domain").settings(),
            "classes": {str(value): name for value, name in sorted(self.data.classes.items())},
            "train_cases": len(split.train),
            "val_cases": len(split.val),
        }

    def train(self, tensors: Mapping[str, npt.NDArray[np.floating]]) -> Update:
        """Train one round from the server's tensors."""
        trainer, epochs = self.trainer, self.plan.local_epochs
        put_tensors(self.network, tensors)
        began, pulls = trained_tensors(self.network), self._proximal()
        steps, state = trainer.state.iteration, trainer.state
        state.max_epochs = state.epoch + epochs
        try:
            trainer.run()
        finally:
            for pull in pulls:
                pull.remove()
        self._keep()
        ended = trained_tensors(self.network)
        return Update(
            {name: ended[name] - began[name] for name in began},
            len(self.data.split.train),
            self._dice(),
            float(state.output["loss"].item()),
            trainer.state.iteration - steps,
        )

    def validate(self, tensors: Mapping[str, npt.NDArray[np.floating]]) -> float:
        """Return the Dice of the server's tensors on the site's held-out cases."""
        put_tensors(self.network, tensors)
        self.validator.run()
        return self._dice()

    def _keep(self) -> None:
        """Write the state that stays at the site: optimizer, learning rate, numbers of epochs."""
        state = self.trainer.state
        content = {name: part.state_dict() for name, part in self._kept.items()}
        with write_atomically(self._state) as path:
            torch.save({**content, "epoch": state.epoch, "iteration": state.iteration}, path)
            seal_archive(path)

    def _restore(self) -> None:
        """Read the state of earlier rounds, if there is one.

        Raises:
            InputError: The file is damaged, or of another training.
        """
        if not self._state.exists():
            return
        try:
            check_archive(self._state)
            content = torch.load(self._state, map_location="cpu", weights_only=True)
            for name, part in self._kept.items():
                part.load_state_dict(content[name])
            state = self.trainer.state
            state.epoch, state.iteration = content["epoch"], content["iteration"]
        except Exception as error:
            raise InputError(
                f"{self._state} is damaged or of another training "
                f"({type(error).__name__}); remove it to begin with a new optimizer"
            ) from error

    def _dice(self) -> float:
        state = self.validator.state
        return float(state.metrics[state.key_metric_name])

    def _proximal(self) -> list[Any]:
        """Add the gradient of FedProx's term, which pulls towards the server's tensors."""
        factor = self.plan.proximal
        if not factor:
            return []

        def pulling(value: nn.Parameter) -> Any:
            centre = value.detach().clone()
            return value.register_hook(lambda grad: grad + factor * (value.detach() - centre))

        return [pulling(value) for value in self.network.parameters() if value.requires_grad]
