"""TrainedRun: settings, decoder and networks of a finished run, without jobs."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from samonai.core.errors import InputError
from samonai.embeddings.counting import FrameCounts
from samonai.workflows.run_folder import RunFolder, member_folders

if TYPE_CHECKING:
    from samonai.sam.decoder_metadata import DecoderMetadata
    from samonai.sam.network import SamNetwork


class TrainedRun:
    """A fine-tuned decoder on disk.

    Args:
        path: The run's folder.
        sam: The network that it was fine-tuned from, if available; else it is loaded.
        checkpoint: Path of its weights, if they were moved.
        device: Device of computation; by default a GPU if there is one.

    Attributes:
        frames: Frames that `finetune` encoded and found for the run; none for an opened run.

    Raises:
        InputError: The folder is not a run's.
    """

    def __init__(
        self,
        path: Path | str,
        sam: "SamNetwork | None" = None,
        *,
        checkpoint: Path | str | None = None,
        device: Any = None,
    ) -> None:
        """Open the folder."""
        self.folder = RunFolder(path)
        self.settings = self.folder.settings()
        if not self.folder.is_complete:
            raise InputError(
                f"{self.folder.path} has not finished training; give its training command again, "
                f"which resumes"
            )
        self.checkpoint = checkpoint or self.settings.get("checkpoint")
        self.device = device
        self.frames = FrameCounts()
        self._sam = sam

    def __repr__(self) -> str:
        """Return an expression that creates it again."""
        return f"{type(self).__name__}({str(self.folder.path)!r})"

    @property
    def path(self) -> Path:
        """Return the run's folder."""
        return self.folder.path

    @property
    def domain(self) -> str:
        """Return its kind of data."""
        return str(self.settings["domain"])

    @cached_property
    def metadata(self) -> "DecoderMetadata":
        """Return the decoder's metadata: classes, cases, prompts, provenance, metrics."""
        from samonai.sam.decoder_metadata import read_decoder_metadata

        return read_decoder_metadata(self.folder.decoder)

    @property
    def pretrained(self) -> "SamNetwork":
        """Return the network before fine-tuning."""
        if self._sam is None:
            from samonai.inference.checkpoint_context import trained_network

            self._sam = trained_network(
                self.folder.decoder, checkpoint=self.checkpoint, device=self.device
            )
        return self._sam

    @cached_property
    def network(self) -> "SamNetwork":
        """Return the fine-tuned network, in eval mode."""
        from samonai.sam.decoder_file import load_decoder

        network = self.pretrained.fork().eval()
        load_decoder(network, self.folder.decoder)
        return network


Runs = TrainedRun | Path | str | Sequence[TrainedRun | Path | str]
"""One or several runs: as objects, as their folders, or as the folder of their folds."""


RunT = TypeVar("RunT", bound=TrainedRun)


def opened_runs(
    kind: type[RunT],
    runs: Runs,
    *,
    checkpoint: Path | str | None = None,
    device: Any = None,
    domain: str | None = None,
) -> list[RunT]:
    """Open runs; a folder of folds or of seeds means all of its runs.

    Args:
        kind: Class of the opened runs.
        runs: Runs or their folders.
        checkpoint: See `TrainedRun`, as for the device.
        device: See `TrainedRun`.
        domain: Their required kind of data; None: any.

    Raises:
        InputError: A folder is not a run's, a run is unfinished or of another kind of data, or they
            cannot be averaged.
    """
    opened: list[RunT] = []
    several = isinstance(runs, Sequence) and not isinstance(runs, str)
    for run in cast("Sequence[TrainedRun | Path | str]", runs if several else [runs]):
        if isinstance(run, TrainedRun):
            opened.append(run if isinstance(run, kind) else kind(run.path))
            continue
        folders = member_folders(run)
        opened += [kind(folder, checkpoint=checkpoint, device=device) for folder in folders]
    if not opened:
        raise InputError("no run was given")
    for run in opened:
        if domain not in (None, run.domain):
            raise InputError(f"{run.path} is a run on {run.domain} data, not on {domain}")
    if len(opened) > 1:
        from samonai.inference.ensemble import check_members

        check_members([run.folder.decoder for run in opened])
    return opened
