"""Listing of a data set's cases: paired folders, a dataset.json, or a MONAI datalist."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import files_below
from samonai.core.json_files import read_json
from samonai.domains.base import Case
from samonai.domains.medical.dataset_file import ignored_values
from samonai.domains.medical.formats.picture import PICTURE_ENDINGS
from samonai.domains.medical.formats.read_volume import ENDINGS, source_name, strip_ending
from samonai.domains.medical.labels.label_matching import (
    holds_labels_only,
    label_objects,
    match_by_series,
    series_of,
)
from samonai.domains.medical.labels.structures import holds_dicom

logger = logging.getLogger(__name__)

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_SHOWN = 3


def find_cases(
    images: Path | str, labels: Path | str | None = None, channel: int | None = None
) -> list[Case]:
    """List the cases of a data set.

    Args:
        images: A folder of volumes (and of folders with DICOM series), one volume, one folder of
            DICOM files, or a JSON file (a decathlon or nnU-Net dataset.json, a MONAI datalist).
            A folder without volumes but with a dataset.json means that file.
        labels: A folder of label maps matched by name (endings and nnU-Net's `_0000`
            removed); a folder of folders named like the images, each with one file per
            structure; a folder of DICOM-SEG and RTSTRUCT objects, matched by the series that they
            refer to; or one label for one image. None: unlabelled.
        channel: nnU-Net channel to take where cases have several.

    Returns:
        The cases, sorted by id; with `labels`, each has its label. Those of a data list have
        their validation section and their fold; those of a dataset.json have the
        label value to ignore.

    Raises:
        InputError: There are no cases, names do not match, or two cases share an id.
    """
    images = Path(images)
    labels = None if labels is None else Path(labels)
    for path in (images, labels):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    listed = _dataset_file(images)
    objects = [] if listed is not None or labels is None else label_objects(labels)
    if listed is not None:
        cases = _listed_cases(listed, labels, channel)
    elif pictures := _dicom_pictures(images, labels):
        cases = pictures
    elif objects:
        cases = match_by_series(_dicom_folders(images), objects, images)
    elif images.is_file() or _holds_dicom_files(images):
        cases = [_single_case(images, labels, channel)]
    else:
        cases = _folder_cases(images, labels, channel)
    _check_unique(cases, images)
    if ignored := ignored_values(images, labels):
        cases = [replace(each, ignored=ignored) if each.label else each for each in cases]
    return sorted(cases, key=lambda case: case.case_id)


def is_dicom_file(path: Path) -> bool:
    """Return whether a file has DICOM's preamble; a DICOMDIR is an index and no image."""
    return path.name.upper() != "DICOMDIR" and holds_dicom(path)


def is_dicom(image: Path) -> bool:
    """Return whether a case's image is DICOM: a folder, or a file of no other format's ending."""
    named = image.name.lower().endswith((*ENDINGS, *PICTURE_ENDINGS))
    return image.is_dir() or not named


def _dataset_file(images: Path) -> Path | None:
    if images.is_file():
        return images if images.suffix.lower() == ".json" else None
    inside = images / "dataset.json"
    return inside if inside.is_file() and not _volumes(images) else None


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder by name; an entry knows its kind without a look at the disk."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(shown, key=lambda entry: entry.name)


def _is_volume_name(path: Path | os.DirEntry[str]) -> bool:
    return _has_ending(path, ENDINGS)


def _has_ending(path: Path | os.DirEntry[str], endings: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(endings)


def _dicom_folders(images: Path) -> list[Path]:
    """Return the folders of one patient or series each, or the only image."""
    if images.is_file() or _holds_dicom_files(images):
        return [images]
    return list(_scans(images).values())


def _scans(images: Path) -> dict[str, Path]:
    """Return the volumes of a folder, without DICOM sub-folders that hold only label objects."""
    found = _volumes(images)
    scans = {n: path for n, path in found.items() if path.is_file() or not holds_labels_only(path)}
    if scans and len(scans) < len(found):
        count = len(found) - len(scans)
        logger.warning("left out %d folders that hold DICOM-SEG or RTSTRUCT objects only", count)
    return scans or found  # the reader refuses label objects as scans


def label_maps(folder: Path) -> dict[str, Path]:
    """Return the label maps of a folder by case: files, or sub-folders with a file per structure.

    nnU-Net and TotalSegmentator leave such folders.
    """
    return _volumes(folder, structures=True)


def _volumes(folder: Path, structures: bool = False) -> dict[str, Path]:
    """Return the volumes directly in a folder, files and DICOM sub-folders, by stripped name.

    With `structures`, also sub-folders that hold one file per structure. Pictures count in a folder
    without volumes.
    """
    return _named(folder, ENDINGS, structures) or _named(folder, PICTURE_ENDINGS, structures)


def _named(folder: Path, endings: tuple[str, ...], structures: bool) -> dict[str, Path]:
    """Return the files with an ending, and the sub-folders of `_volumes`, by stripped name."""
    found: dict[str, Path] = {}
    for entry in _visible(folder):
        path = folder / entry.name
        if entry.is_dir() and not (
            any(is_dicom_file(file) for file in files_below(path))
            or (structures and any(_has_ending(file, endings) for file in _visible(path)))
        ):
            continue
        if entry.is_file() and not _has_ending(entry, endings):
            continue
        stem = strip_ending(entry.name) if entry.is_file() else entry.name
        if stem in found:
            raise InputError(
                f"{folder}: {found[stem].name} and {path.name} are both case {stem!r}; keep one"
            )
        found[stem] = path
    return found


def _holds_dicom_files(folder: Path) -> bool:
    """Return whether a folder is itself a series: loose DICOM files and no volume files."""
    files = [entry for entry in _visible(folder) if entry.is_file()]
    others = [folder / entry.name for entry in files if not _is_volume_name(entry)]
    loose = any(is_dicom_file(path) for path in others)
    if loose and len(others) < len(files):
        raise InputError(
            f"{folder}: holds volumes and loose DICOM files; put each series in its own folder"
        )
    return loose


def _dicom_pictures(images: Path, labels: Path | None) -> list[Case]:
    """Return a case per loose DICOM file where each is a series with a label named like it."""
    if labels is None or not (images.is_dir() and labels.is_dir()):
        return []
    masks = _named(labels, PICTURE_ENDINGS, structures=False)
    files = [images / entry.name for entry in _visible(images) if entry.is_file()] if masks else []
    named = {path.stem: path for path in files if is_dicom_file(path)}
    if not named or set(named) != set(masks):
        return []
    if len(set().union(*(series_of(path) for path in named.values()))) < len(named):
        return []  # slices of one series are no pictures of their own
    return [Case(name, path, masks[name]) for name, path in named.items()]


def _single_case(image: Path, label: Path | None, channel: int | None) -> Case:
    case_id = source_name(image)
    if channel is None or not case_id.endswith(f"_{channel:04d}"):
        _warn_of_channel(channel, image)
    if label is not None and label.is_dir():
        found = _volumes(label, structures=True)
        match = _CHANNEL.match(case_id)
        names = [case_id] if match is None else [case_id, match["case"]]
        name = next((name for name in names if name in found), None)
        if name is None:
            raise InputError(f"{label}: no label named like {image.name}; has {_few(found)}")
        return Case(name, image, found[name])
    return Case(case_id, image, label)


def _folder_cases(images: Path, labels: Path | None, channel: int | None) -> list[Case]:
    found = _scans(images)
    if not found:
        raise InputError(
            f"{images}: no volumes in it; expected {', '.join((*ENDINGS, *PICTURE_ENDINGS))} files "
            f"or folders of DICOM"
        )
    if labels is None:
        return [
            Case(name, path) for name, path in _without_channels(found, channel, images).items()
        ]
    if labels.is_file():
        raise InputError(f"{labels}: one label file for a folder of images; give a folder")
    targets = _volumes(labels, structures=True)
    if not targets:
        raise InputError(
            f"{labels}: no label maps in it; expected {', '.join(ENDINGS)} files or PNG"
        )
    if set(found) & set(targets):
        _warn_of_channel(channel, images)
        named = found
    else:
        named = _match_channels(found, targets, channel, images)
    lonely = sorted(set(named) - set(targets))
    unused = sorted(set(targets) - set(named))
    if lonely or unused:
        raise InputError(
            f"{images} and {labels}: names do not match: {len(lonely)} images without a label "
            f"({_few(lonely)}), {len(unused)} labels without an image ({_few(unused)})"
        )
    return [Case(name, path, targets[name]) for name, path in named.items()]


def _warn_of_channel(channel: int | None, images: Path) -> None:
    if channel is not None:
        logger.warning("channel=%d says nothing here: %s names no channels", channel, images.name)


def _without_channels(found: dict[str, Path], channel: int | None, images: Path) -> dict[str, Path]:
    """Strip nnU-Net's `_0000` where every image has it; other numbers may be case numbers."""
    ending = f"_{channel or 0:04d}"
    if channel is not None:
        chosen = {name[:-5]: path for name, path in found.items() if name.endswith(ending)}
        if not chosen and any(_CHANNEL.match(name) for name in found):
            raise InputError(
                f"{images}: no image is channel {channel} ({ending}); has {_few(found)}"
            )
        if not chosen:
            _warn_of_channel(channel, images)
        return chosen or found
    if all(name.endswith(ending) and len(name) > len(ending) for name in found):
        return {name[:-5]: path for name, path in found.items()}
    return found


def _match_channels(
    found: dict[str, Path], targets: dict[str, Path], channel: int | None, images: Path
) -> dict[str, Path]:
    """Group images by the name before `_0000` and take one channel of each."""
    groups: dict[str, dict[int, Path]] = defaultdict(dict)
    for name, path in found.items():
        match = _CHANNEL.match(name)
        if match is None or match["case"] not in targets:
            groups[name][-1] = path
        else:
            groups[match["case"]][int(match["channel"])] = path
    taken: dict[str, Path] = {}
    for name, channels in groups.items():
        if channel is None and len(channels) > 1:
            raise InputError(
                f"{images}: case {name!r} has channels {', '.join(map(str, sorted(channels)))}; "
                "choose one: --set channel=0"
            )
        wanted = next(iter(channels)) if channel is None or -1 in channels else channel
        if wanted not in channels:
            raise InputError(f"{images}: case {name!r} has no channel {channel}")
        taken[name] = channels[wanted]
    return taken


def _listed_cases(file: Path, labels: Path | None, channel: int | None) -> list[Case]:
    content = read_json(file)
    sections = content if isinstance(content, dict) else {"training": content}
    found = [
        replace(_listed_case(entry, file, labels, channel), held_out=key == "validation")
        for key in ("training", "validation")
        if isinstance(sections.get(key), list)
        for entry in sections[key]
    ]
    if found:
        return _without_repeats(found, file)
    entries: list[Any] = next(
        (sections[key] for key in ("testing", "test") if isinstance(sections.get(key), list)), []
    )
    if not entries and isinstance(sections.get("dataset"), dict):
        entries = list(sections["dataset"].values())
    if entries:
        return [_listed_case(entry, file, labels, channel) for entry in entries]
    folder = file.parent / "imagesTr"
    if folder.is_dir():
        beside = file.parent / "labelsTr"
        return _folder_cases(folder, labels or (beside if beside.is_dir() else None), channel)
    raise InputError(f"{file}: lists no cases; expected training: [{{image, label}}, ...]")


def _without_repeats(cases: list[Case], file: Path) -> list[Case]:
    """Refuse a case that is in the training and in the validation section of a list."""
    trained = {case.image.resolve() for case in cases if not case.held_out}
    for case in cases:
        if case.held_out and case.image.resolve() in trained:
            raise InputError(
                f"{file}: {case.image.name} is in training and in validation; keep one of the two"
            )
    return cases


def _fold_of(entry: dict[str, Any], file: Path) -> int | None:
    fold = entry.get("fold")
    if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int) or fold < 0):
        raise InputError(f"{file}: fold {fold!r:.40} of an entry; expected a number from 0")
    return fold


def _listed_case(entry: Any, file: Path, labels: Path | None, channel: int | None) -> Case:
    if isinstance(entry, str):
        entry = {"image": entry}
    image = entry.get("image", entry.get("images")) if isinstance(entry, dict) else None
    if isinstance(image, list):
        if len(image) > 1 and channel is None:
            raise InputError(
                f"{file}: {len(image)} channels for one case; choose one: --set channel=0"
            )
        position = channel or 0
        image = image[position] if position < len(image) else None
    label = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(image, str) or not (label is None or isinstance(label, str)):
        raise InputError(f"{file}: cannot use the entry {entry!r:.80}; expected image and label")
    image_path, label_path = file.parent / image, None if label is None else file.parent / label
    for path in (image_path, label_path):
        if path is not None and not path.exists():
            raise InputError(f"{file}: names {path}, which does not exist")
    fold = _fold_of(entry, file)
    if label_path is None and labels is not None:
        return replace(_single_case(image_path, labels, None), fold=fold)
    case_id = source_name(image_path)
    match = _CHANNEL.match(case_id)
    if match and label_path is not None and source_name(label_path) == match["case"]:
        case_id = match["case"]
    return Case(case_id, image_path, label_path, fold=fold)


def _check_unique(cases: list[Case], images: Path) -> None:
    seen: dict[str, Path] = {}
    for case in cases:
        if case.case_id in seen:
            raise InputError(
                f"{images}: {seen[case.case_id]} and {case.image} are both case "
                f"{case.case_id!r}; rename one"
            )
        seen[case.case_id] = case.image


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) or "none") + more
