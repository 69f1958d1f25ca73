"""Session: domain, networks, embeddings and inferer in memory, for one prediction or thousands."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.core.settings import describe
from samonai.domains import DEFAULT_DOMAIN, setting_names
from samonai.domains.base import Case, LabelFacts, Source
from samonai.domains.capabilities import capabilities
from samonai.embeddings.memory_store import DEFAULT_BYTES, MemoryStore
from samonai.inference.assembly import prompt_source, source_inferer
from samonai.inference.case_dataset import CaseItem, PromptSource, prompted
from samonai.inference.checkpoint_context import (
    input_cases,
    label_facts,
    trained_classes,
    trained_domain,
    trained_propagation,
)
from samonai.inference.ensemble import load_members
from samonai.inference.frame_outputs import FrameObserver
from samonai.inference.prediction import Prediction
from samonai.inference.refining import Refined, click_prompts, on_valid, refine_frame
from samonai.inference.uncertainty import SourceCertainty, value_maps, warn_of_no_uncertainty
from samonai.inference.volumes.inferer import cleaning
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptValues, prompt_values
from samonai.sam.checkpoints import CHECKPOINTS
from samonai.settings import block
from samonai.settings.inference import DecodingSettings
from samonai.workflows.bundle_files import INFERENCE, config_files, read_config
from samonai.workflows.inputs import load_network, store_location
from samonai.workflows.settings import check_settings, plain_settings
from samonai.workflows.trained_run import Runs, TrainedRun, opened_runs

if TYPE_CHECKING:
    from samonai.domains.base import Domain
    from samonai.embeddings.embedder import AnyStore
    from samonai.sam.network import SamNetwork

Given = Path | str | Case | Source
"""One source: its path, its case, or as read by the domain. A session's domain is chosen by name
at run time, so what it reads is known as `Source` only."""

_OF_INFERER = ("precision", *describe(DecodingSettings))


class Session:
    """A run, several runs (an ensemble), or a model before fine-tuning, opened for inference.

    Several threads may use one session: sources are read and merged in parallel, and one lock
    admits one thread at a time to the networks.

    Args:
        model: A run, its folder, or several of them, whose logits are averaged; or a network from
            `load_sam`, or a model's name.
        domain: The kind of data, if the model is not a run.
        store: Embedding store on disk, or at a URL; None: the latest embeddings in memory.
        memory: Limit in bytes of embeddings in memory, without a store; 0 keeps none.
        checkpoint: The model's weights, if not the published ones.
        sha256: Their expected hash, if `model` is a model's name.
        device: Device of computation; by default a GPU if there is one.
        **settings: Settings of prediction; `samonai bundle show` lists them.

    Attributes:
        domain: Reads sources, cuts frames, merges and writes.
        networks: The network, and the further ones of an ensemble.
        decoders: The decoders' files; none for a model before fine-tuning.
        classes: Label value to name.
        store: The embedding store.
        settings: All settings of prediction.

    Raises:
        InputError: An argument cannot be used.
    """

    def __init__(
        self,
        model: "Runs | SamNetwork",
        *,
        domain: str = DEFAULT_DOMAIN,
        store: "AnyStore | Path | str | None" = None,
        memory: int = DEFAULT_BYTES,
        checkpoint: Path | str | None = None,
        sha256: str | None = None,
        device: Any = None,
        **settings: Any,
    ) -> None:
        """Load domain, networks and store."""
        runs = runs_of(model, checkpoint, device)
        if runs and sha256 is not None:
            raise InputError(
                "sha256 is the hash of a model's weights, which a run has itself; leave it out"
            )
        name = runs[0].domain if runs else domain
        config = read_config(config_files(name, INFERENCE))
        self.settings = {**plain_settings(config), **check_settings(settings, config)}
        self.decoders = [run.folder.decoder for run in runs]
        first = self.decoders[0] if runs else None
        own = {
            key: value
            for key, value in self.settings.items()
            if key in setting_names(name) and key in config["domain"]
        }
        self.domain: Domain[Any] = trained_domain(first, name, **own)
        if runs:
            self.networks = [runs[0].network]
            self.networks += load_members(runs[0].network, first, self.decoders[1:])
        else:
            network = cast("SamNetwork | str", model)
            loaded = load_network(network, checkpoint, sha256, device)
            # A given network may be trained on meanwhile; a loaded one is nobody else's.
            self.networks = [(loaded if isinstance(network, str) else loaded.fork()).eval()]
        self.classes = trained_classes(first)
        if isinstance(store, Path | str):
            store = store_location(store)
        chosen = {key: self.settings[key] for key in _OF_INFERER if key in self.settings}
        self.inferer = source_inferer(
            self.domain,
            propagation=trained_propagation(first, **block(self.settings, "propagation")),
            cleaning=cleaning(**block(self.settings, "cleaning")),
            members=self.networks[1:],
            store=MemoryStore(memory) if store is None and memory else store,
            **chosen,
        )
        self.store = self.inferer.store

    @cached_property
    def facts(self) -> LabelFacts:
        """Return the names of the classes, and the weights of the predictions."""
        first = self.decoders[0] if self.decoders else None
        return label_facts(first, self.networks[0], self.decoders[1:])

    def check_uncertainty(self) -> None:
        """Refuse uncertainty of a domain without maps of values, before anything is computed."""
        value_maps(self.domain)

    def cases(self, path: Path | str, series: str | None = None) -> list[Case]:
        """List the sources at a path; see `input_cases`."""
        return input_cases(self.domain, path, series)

    def predict(
        self,
        source: Given,
        prompts: Any = None,
        *,
        series: str | None = None,
        uncertainty: bool | None = None,
    ) -> Prediction[Any]:
        """Predict one source in memory, without writing files.

        Args:
            source: A path, a `Case`, or a source as read by the domain.
            prompts: Boxes or clicks as values, in the source's own coordinates, as the content of a
                file of prompts; the path of such a file or of a coarse label map; the name of a
                class, of pages also words or a question; None: all classes of the run.
            series: DICOM SeriesInstanceUID, if a path holds several series.
            uncertainty: Compute the uncertainty; by default for several networks, if the domain
                can.

        Raises:
            InputError: The source cannot be read, or the prompts do not fit it.
        """
        boxes, text = self._prompts(prompts)
        asked, domain = self.prompts(boxes, text, several=False)
        case, read = self._read(source, series)
        return self.decode(prompted(domain, case, read, asked), domain, uncertainty=uncertainty)

    def prompts(
        self, boxes: Path | PromptValues | str | None, text: str | None = None, *, several: bool
    ) -> "tuple[PromptSource[Any], Domain[Any]]":
        """Return the source of cases' prompts, and the domain that reads and writes the cases.

        Args:
            boxes: Prompts as values or as a file; None: none.
            text: Name of a class; of pages a query.
            several: Whether there are several cases, so that prompts must state their case.

        Raises:
            InputError: The networks were not trained for such prompts.
        """
        queries = capabilities(self.domain).queries
        domain, class_name = self.domain, text
        if queries is not None:
            domain, class_name = queries.with_query(text), None
        found = prompt_source(
            domain, boxes, class_name, self.decoders, self.settings, several=several
        )
        return found, domain

    def decode(
        self,
        item: CaseItem[Any],
        domain: "Domain[Any] | None" = None,
        *,
        uncertainty: bool | None = None,
        observers: Sequence[FrameObserver] = (),
    ) -> Prediction[Any]:
        """Predict a read case.

        Args:
            item: The case, its source and its prompts.
            domain: Writes the prediction; None: the session's.
            uncertainty: See `predict`.
            observers: Get each frame's prompts and the logits of every network.
        """
        if uncertainty is None:
            known = capabilities(self.domain).value_maps is not None
            uncertainty = len(self.networks) > 1 and known
        seen = SourceCertainty(self.domain, item.source, self.decoders) if uncertainty else None
        watching = [*observers, *([] if seen is None else [seen])]
        result = self.inferer(item.source, self.networks[0], item.prompts, observers=watching)
        facts = item.facts(self.facts)
        sure = None if seen is None else seen.finish(facts.classes)
        if seen is not None and sure is None:
            warn_of_no_uncertainty(item.case.case_id)
        return Prediction(
            item.case, item.source, domain or self.domain, result, item.prompts, facts, sure
        )

    def write(
        self,
        prediction: Prediction[Any],
        out: Path | str,
        formats: Sequence[str] = (),
        **options: Any,
    ) -> list[Path]:
        """Write a prediction; see `Prediction.write`."""
        return prediction.write(out, formats, **options)

    def embed(self, source: Given, frames: Sequence[int] | None = None) -> int:
        """Encode frames of a source into the session's store, unless they are stored.

        Args:
            source: See `predict`.
            frames: Their numbers; None: all but the blank ones.

        Returns:
            The number of frames that were encoded.
        """
        read = self._read(source)[1]
        before = 0 if self.store is None else self.store.encoded
        for index in range(self.domain.frame_count(read)) if frames is None else frames:
            frame = self.domain.frame(read, index)
            if frames is not None or not frame.is_blank:
                self.inferer.embed(read, frame, self.networks[0])
        return 0 if self.store is None else self.store.encoded - before

    def refine(
        self,
        source: Given | Prediction[Any],
        clicks: Any,
        previous: npt.NDArray[np.floating] | None = None,
        *,
        frame: int | None = None,
        box: Sequence[float] | None = None,
    ) -> Refined:
        """Segment one object on one frame from clicks: one call of the decoder.

        The frame is encoded the first time only.

        Args:
            source: A `Prediction`, or as for `predict`.
            clicks: (x, y, sign) each, in frame space, where the centre of the first pixel is
                (0.5, 0.5); sign 1 inside and 0 outside the object. Or prompts of one object on one
                frame as for `predict`, in the source's own coordinates.
            previous: float32 (1, 256, 256), the logits of the last click.
            frame: The frame's number; None: that of the prompts.
            box: xyxy around the object in frame space, upper ends exclusive, beside clicks.

        Raises:
            InputError: The clicks are not of one object on one frame.
        """
        read = source.source if isinstance(source, Prediction) else self._read(source)[1]
        index, asked = self._clicks(read, clicks, frame, box)
        return refine_frame(
            self.inferer, self.networks, read, self.domain.frame(read, index), asked, previous
        )

    def carry(
        self, source: Given | Prediction[Any], frame: int, prompts: FramePrompts, reach: int
    ) -> dict[int, Refined]:
        """Carry one object from its frame to those beside it, both ways.

        Args:
            source: See `refine`.
            frame: The frame that the prompts are on.
            prompts: Of one object.
            reach: Frames on each side at most; the session's rule of propagation may end before.

        Returns:
            By frame index, the prompted one included: the object's mask.
        """
        read = source.source if isinstance(source, Prediction) else self._read(source)[1]
        tracks = self.inferer.tracks(read, self.networks, {frame: prompts}, reach=reach)
        found = {}
        for index, track in tracks.items():
            geometry = FrameGeometry(track.size, self.networks[0].long_side)
            low_res = track.low_res.float().mean(0)
            logits = geometry.logits_to_frame(low_res)[0, 0].cpu().numpy()
            iou = float(track.iou.float().mean())
            mask = on_valid(logits > 0, self.domain.frame(read, index))
            found[index] = Refined(mask, low_res[0].cpu().numpy(), iou, index)
        return found

    def _clicks(
        self, source: Source, clicks: Any, frame: int | None, box: Sequence[float] | None
    ) -> tuple[int, FramePrompts]:
        """Return the frame and the prompts of one object on it."""
        if frame is not None and not isinstance(clicks, Mapping):
            if not 0 <= frame < self.domain.frame_count(source):
                raise InputError(
                    f"frame {frame}: the source has frames 0 to "
                    f"{self.domain.frame_count(source) - 1}"
                )
            return frame, click_prompts(clicks, box)
        if not isinstance(clicks, Mapping) or box is not None:
            raise InputError(
                "clicks: say which frame (x, y, sign) are on, or give them as "
                '{"points": …, "labels": …} in the coordinates of the source'
            )
        given = prompt_values(clicks)
        named = capabilities(self.domain).prompt_names
        classes = self.classes or ({} if named is None else named.prompt_classes([given]))
        found = {
            index: value if isinstance(value, FramePrompts) else FramePrompts(*value)
            for index, value in self.domain.read_boxes(source, given, class_names=classes).items()
            if frame is None or index == frame
        }
        count = sum(len(prompts) for prompts in found.values())
        if count != 1:
            raise InputError(f"clicks: expected one object on one frame, got {count}")
        return next(iter(found.items()))

    def _read(self, source: Given, series: str | None = None) -> tuple[Case, Source]:
        """Return the case and the source, from a path, a case, or a read source."""
        if isinstance(source, Path | str):
            cases = self.cases(source, series)
            if len(cases) != 1:
                raise InputError(
                    f"{source} holds {len(cases)} sources; give one, or use samonai.predict"
                )
            source = cases[0]
        if isinstance(source, Case):
            return source, self.domain.read(source)
        if not hasattr(source, "content_hash"):
            raise InputError(
                f"the source: expected a path, a case or a source read by the domain, got "
                f"{type(source).__name__}"
            )
        return Case(source.source_id, Path(source.content_hash())), source

    def _prompts(self, given: Any) -> tuple[Path | PromptValues | None, str | None]:
        """Return the given prompts on frames, and as a text."""
        if given is None or isinstance(given, Path):
            return given, None
        if not isinstance(given, str):
            return prompt_values(given), None
        if not given.strip():
            raise InputError("the prompt is empty; leave it out to predict everything")
        known = {name.casefold() for name in self.classes.values()}
        if given.casefold() in known:
            return None, given
        path = Path(given)
        is_file = path.suffix.lower() in self.domain.prompt_endings or path.exists()
        return (path, None) if is_file else (None, given)


def runs_of(model: Any, checkpoint: Path | str | None, device: Any) -> list[TrainedRun]:
    """Return the given runs; empty for a network or a model's name."""
    if isinstance(model, str):
        is_run = model not in CHECKPOINTS and Path(model).is_dir()
        return (
            opened_runs(TrainedRun, Path(model), checkpoint=checkpoint, device=device)
            if is_run
            else []
        )
    if isinstance(model, TrainedRun | Path | list | tuple):
        return opened_runs(TrainedRun, model, checkpoint=checkpoint, device=device)
    return []


__all__ = ["Prediction", "Refined", "Session"]
