"""Trainable parameters of a network: their count, and the table at the start of a run."""

from typing import NamedTuple

from ignite.engine import Engine, Events
from rich.console import Console
from rich.table import Table
from torch import nn

from samonai.engine.processes import is_main_process


class ParameterCount(NamedTuple):
    """Parameter count of one part of a network.

    Attributes:
        name: The part, such as "mask_decoder.transformer".
        total: Number of parameters.
        trained: Number of trainable parameters.
    """

    name: str
    total: int
    trained: int


def parameter_counts(network: nn.Module) -> list[ParameterCount]:
    """Count a network's parameters by part: each child of each of its children."""
    counts: dict[str, list[int]] = {}
    for name, parameter in network.named_parameters():
        count = counts.setdefault(".".join(name.split(".")[:2]), [0, 0])
        count[0] += parameter.numel()
        count[1] += parameter.numel() * parameter.requires_grad
    return [ParameterCount(name, *count) for name, count in counts.items()]


def trainable_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(count.trained for count in parameter_counts(network))


def parameter_table(network: nn.Module) -> Table:
    """Return a table of the trainable parts, their sizes, and their share of the network."""
    counts = parameter_counts(network)
    everything = sum(count.total for count in counts)
    table = Table(title="trainable parameters", title_justify="left")
    table.add_column("part")
    for name in ("parameters", "trained", "share of all"):
        table.add_column(name, justify="right")
    for count in counts:
        if count.trained:
            table.add_row(*_cells(count, everything))
    table.add_section()
    trained = sum(count.trained for count in counts)
    table.add_row(*_cells(ParameterCount("whole network", everything, trained), everything))
    return table


def _cells(count: ParameterCount, everything: int) -> tuple[str, str, str, str]:
    share = 100 * count.trained / max(everything, 1)
    return count.name, f"{count.total:,}", f"{count.trained:,}", f"{share:.2f} %"


class ShowParameters:
    """Handler that shows the table of trainable parameters when a run first starts.

    Only the main process shows it; the rounds of a federated training show it once.

    Args:
        network: The network, also wrapped for several processes.
        console: Where to show it; standard error by default.
    """

    def __init__(self, network: nn.Module, console: Console | None = None) -> None:
        """Keep the network and the console."""
        self.network = getattr(network, "module", network)
        self.console = console or Console(stderr=True)
        self._shown = False

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        if is_main_process():
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Show the table."""
        if self._shown:
            return
        self._shown = True
        self.console.print(parameter_table(self.network))
