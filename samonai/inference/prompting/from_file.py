"""Prompts from a user's file: boxes, or a coarse label map to refine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from samonai.core.errors import InputError
from samonai.core.pseudonyms import stands_for
from samonai.core.settings import renamed_parameters, validate_fields
from samonai.domains.base import Case, Domain, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.prompting.compatibility import PromptCompatibility
from samonai.inference.prompting.from_labels import prompts_from_label
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile, PromptValues
from samonai.settings.inference import CoarseLabelSettings


@dataclass(frozen=True)
class CoarseLabel(CoarseLabelSettings):
    """Prompts from a coarse label: boxes around its components.

    The settings are those of `CoarseLabelSettings`; see `prompts_from_label` for components that
    are too small, and `samonai.embeddings.targets` for the policies.

    Raises:
        InputError: A value cannot be used.
    """

    def __post_init__(self) -> None:
        """Check the settings."""
        validate_fields(self)


@renamed_parameters(
    margin="coarse_label.margin",
    specks="coarse_label.min_area",
    components="coarse_label.components",
)
class FilePrompts:
    """Reads each case's prompts from a file, or from the file in a folder named like the case.

    The domain recognises a file of boxes or clicks, of its own or of another tool; any other file
    is a label map on the source's grid, each component of which gives a box per frame. For a
    single source, a folder without a file of its name is its label: one file per structure, or
    label objects.

    Args:
        path: The file or folder, or the content of a file of boxes.
        class_names: Label value to name, for files that name classes; none: the names that the
            prompts bring, see `classes`.
        several: Whether there are several cases, so that a file must state the case of its boxes.
        coarse_label: Settings of boxes from a label map; None: the defaults.
        compatibility: Checks the kinds of prompts.

    Raises:
        InputError: The file or folder does not exist.
    """

    def __init__(
        self,
        path: Path | PromptValues | str | None,
        class_names: Mapping[int, str] | None = None,
        *,
        several: bool = False,
        coarse_label: CoarseLabel | None = None,
        compatibility: PromptCompatibility | None = None,
    ) -> None:
        """Keep the path and the options."""
        if path is None:
            raise InputError("no prompts given; name a file of boxes or a coarse label map")
        self.path = Path(path) if isinstance(path, str) else path
        if isinstance(self.path, Path) and not self.path.exists():
            raise InputError(f"{self.path}: no such file of boxes")
        self.class_names = dict(class_names or {})
        self.several, self.compatibility = several, compatibility
        self.coarse_label = coarse_label or CoarseLabel()
        self._named: dict[int, str] | None = None
        self._lock = Lock()

    def classes(self, domain: Domain[SourceT], case: Case) -> dict[int, str]:
        """Return label value to name: the decoder's classes, or those that the prompts name.

        The prompts of several cases are looked through together, once, so that a name has one label
        value in all of them.

        Raises:
            InputError: A file of prompts cannot be read, or names some classes only.
        """
        names = capabilities(domain).prompt_names
        if self.class_names or names is None:
            return self.class_names
        with self._lock:
            if self._named is None:
                self._named = names.prompt_classes(self._files(case))
            return self._named

    def _files(self, case: Case) -> list[PromptFile]:
        """Return all files of prompts, of one case or of several."""
        path = self.path
        if isinstance(path, PromptValues) or not path.is_dir():
            return [path]
        if not self.several:
            return [_file_of(case, path, or_folder=True)]
        return [one for one in sorted(path.iterdir()) if not one.name.startswith(".")]

    def __call__(
        self, domain: Domain[SourceT], case: Case, source: SourceT
    ) -> dict[int, FramePrompts]:
        """Return a case's prompts by frame index.

        Raises:
            InputError: The file has no prompts for this case, or they do not fit the source.
        """
        prompts = self._read(domain, case, source)
        if self.compatibility is not None:
            self.compatibility.check(prompts)
        return prompts

    def _read(
        self, domain: Domain[SourceT], case: Case, source: SourceT
    ) -> dict[int, FramePrompts]:
        path, shared = self.path, self.several
        names, classes = capabilities(domain).prompt_names, self.classes(domain, case)
        if isinstance(path, Path) and path.is_dir():
            path, shared = _file_of(case, path, or_folder=not self.several), False
        if isinstance(path, PromptValues) or _holds_prompts(domain, path):
            boxes = domain.read_boxes(source, path, class_names=classes, only_case=not shared)
            return {
                index: found if isinstance(found, FramePrompts) else FramePrompts(*found)
                for index, found in boxes.items()
            }
        if shared:
            raise InputError(f"{path}: one label map for several cases; give a folder of them")
        if names is not None and classes and not self.class_names:
            domain = names.with_classes(classes)
        labelled = domain.with_label(source, path)
        prompts = prompts_from_label(
            domain,
            labelled,
            margin=self.coarse_label.margin,
            specks=self.coarse_label.min_area,
            components=self.coarse_label.components,
        )
        if not prompts:
            raise InputError(f"{path}: the label map is empty, so there is nothing to refine")
        return prompts


def _holds_prompts(domain: Domain[Any], path: Path) -> bool:
    names = capabilities(domain).prompt_names
    if names is None:
        return path.suffix.lower() in domain.prompt_endings
    return names.holds_prompts(path)


def _file_of(case: Case, folder: Path, *, or_folder: bool) -> Path:
    """Return the file of a folder that is named like the case; or the folder, if it has others."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.name.startswith(f"{case.case_id}.")
        or stands_for(path.stem.removesuffix(".nii"), case.case_id)
    ]
    if or_folder and not found and any(path.is_file() for path in folder.iterdir()):
        return folder
    if len(found) != 1:
        raise InputError(
            f"{folder}: {len(found)} files are named {case.case_id}.*; expected one of boxes "
            f"(.json, .csv) or one label map"
        )
    return found[0]
