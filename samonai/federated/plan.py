"""Plan of a federated training: the settings that the server gives to every site."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from samonai.core.errors import InputError
from samonai.domains import DEFAULT_DOMAIN, DOMAINS
from samonai.sam.checkpoints import find_checkpoint
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.settings import check_settings, described_settings

# Set by the federation itself.
_OWN = (
    "epochs", "patience", "val_interval", "resume", "model", "train_parts", "val_fraction", "seed",
    "heads", "progress", "rank", "world_size", "images", "labels", "store", "checkpoint",
)  # fmt: skip


@dataclass(frozen=True)
class FederatedPlan:
    """Settings of a federated training; a site checks them as it would those of its own user.

    Attributes:
        domain: The kind of data.
        model: The model's name; each site has its weights.
        heads: "promptable", "semantic" or "both".
        rounds: Number of rounds.
        local_epochs: Epochs at each site in each round.
        proximal: Factor of FedProx's proximal term; 0 is FedAvg.
        min_sites: Fewest sites that a round needs.
        wait: Seconds that a round waits for further sites once it has the fewest.
        val_fraction: Share of each site's cases that it holds out.
        seed: Seed of all random choices.
        classes: Label value as text, to name; None: those of the first site by name.
        settings: The bundle's other settings.

    Raises:
        InputError: A value is unknown, out of its range, or the name of a file.
    """

    domain: str = DEFAULT_DOMAIN
    model: str = "micro"
    heads: str = "promptable"
    rounds: int = 5
    local_epochs: int = 1
    proximal: float = 0.0
    min_sites: int = 2
    wait: int = 600
    val_fraction: float = 0.2
    seed: int = 0
    classes: Mapping[str, str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.domain not in DOMAINS:
            raise InputError(f"unknown domain {self.domain!r}: use {', '.join(sorted(DOMAINS))}")
        find_checkpoint(self.model)
        for name in ("rounds", "local_epochs", "min_sites"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 100_000:
                raise InputError(f"{name}={value!r}: expected a whole number from 1")
        if not isinstance(self.proximal, int | float) or not 0 <= self.proximal < float("inf"):
            raise InputError(f"proximal={self.proximal!r}: expected a number from 0")
        config = read_config(config_files(self.domain, TRAIN))
        described = described_settings(config)
        for name in self.settings:
            if name in _OWN:
                raise InputError(f"setting {name}: a federation sets it itself; leave it out")
            if name in described and described[name].is_path:
                raise InputError(f"setting {name}: a plan cannot name files of a site")
        check_settings({**self.settings, **self.of_training()}, config)

    def of_training(self) -> dict[str, Any]:
        """Return the settings of a site's training.

        The learning rate's plan spans all rounds; training is never resumed and never stops early,
        since the server brings the weights and chooses the best.
        """
        epochs = self.rounds * self.local_epochs
        return {
            "epochs": epochs,
            "patience": epochs + 1,
            "val_interval": self.local_epochs,
            "resume": False,
            "model": self.model,
            "heads": self.heads,
            "val_fraction": self.val_fraction,
            "seed": self.seed,
        }

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FederatedPlan":
        """Return the plan of JSON values.

        Raises:
            InputError: An entry is unknown, as from another version of samonai, or refused.
        """
        if unknown := values.keys() - {entry.name for entry in fields(cls)}:
            raise InputError(
                f"the plan has {', '.join(sorted(unknown))}, which this version of samonai does "
                f"not know; all sites need the server's version"
            )
        return cls(**values)
