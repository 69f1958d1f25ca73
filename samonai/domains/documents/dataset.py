"""Listing of a data set's pages: pictures and PDFs, with their label files."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.coco import CocoImage, read_coco
from samonai.domains.documents.formats import docbank
from samonai.domains.documents.formats.pdf import count_pdf_pages
from samonai.domains.documents.labels import LABEL_ENDINGS, is_coco
from samonai.domains.pictures import PICTURE_ENDINGS, count_pages

logger = logging.getLogger(__name__)

PAGE_ENDINGS = (".pdf", *PICTURE_ENDINGS)
MOST_PAGES = 500
"""Pages used of one file without the setting `pages`, which guards against very long files."""

_JOINED = "__"
_SHOWN = 3


@dataclass(frozen=True)
class PageChoice:
    """Selection of the pages of a file.

    Attributes:
        ranges: First and last page, from 1; none: all.
    """

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str | int | None) -> "PageChoice":
        """Read "1-3,7".

        Raises:
            InputError: The text is not a list of page numbers.
        """
        if text in (None, ""):
            return cls()
        ranges = []
        for part in str(text).split(","):
            first, _, last = part.strip().partition("-")
            try:
                ranges.append((int(first), int(last or first)))
            except ValueError:
                ranges.append((0, 0))
            if not 1 <= ranges[-1][0] <= ranges[-1][1]:
                raise InputError(f"pages={text!r}: expected numbers from 1 such as 1-3,7")
        return cls(tuple(ranges))

    def of(self, path: Path, count: int) -> list[int]:
        """Return the chosen numbers of a file's pages.

        Raises:
            InputError: None of the chosen pages exists.
        """
        if not self.ranges:
            if count > MOST_PAGES:
                logger.warning(
                    "%s has %d pages; the first %d are used, pages=... chooses others",
                    path, count, MOST_PAGES,
                )  # fmt: skip
            return list(range(1, min(count, MOST_PAGES) + 1))
        chosen = [n for n in range(1, count + 1) if any(a <= n <= b for a, b in self.ranges)]
        if not chosen:
            raise InputError(f"{path} has {count} pages, none of which was chosen")
        return chosen


def find_cases(
    images: Path | str,
    labels: Path | str | None = None,
    pages: PageChoice | None = None,
    *,
    skip_missing: bool = False,
) -> list[Case]:
    """List the pages of a data set, with their labels.

    Args:
        images: A picture or PDF, or a folder of them, including subfolders. Pages of one
            file, files of one subfolder, and pages that PubLayNet, DocBank or DocLayNet
            took from one paper, belong to one document.
        labels: A COCO file; a PAGE-XML, ALTO or mask file for one page; or a folder of these with
            a file per page of the same name; it may be the folder of images itself.
        pages: Selection of pages in files with several.
        skip_missing: Skip images of a COCO file that do not exist, instead of refusing.

    Returns:
        One case per page, sorted by id; with labels given, only the labelled pages. A case is
        named after its file, preceded by the subfolders of `images` and, in files of several
        pages, followed by the page number: `book__f11`, `report@3`.

    Raises:
        InputError: There are no pages, or labels and images do not match.
    """
    images, pages = Path(images), pages or PageChoice()
    labels = None if labels is None else Path(labels)
    for path in (images, labels):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    root = images if images.is_dir() else images.parent
    coco = _coco_file(labels)
    if coco is not None:
        cases = _coco_cases(root, images, coco, pages, skip_missing)
    else:
        files = _files(root, images, labels)
        find = _label_finder(labels, root, files)
        cases = [
            replace(case, label=find(path, case.part))
            for path in files
            for case in page_cases(root, path, pages)
        ]
        cases = _labelled(cases, images, labels)
    twice = [name for name, count in Counter(case.case_id for case in cases).items() if count > 1]
    if twice:
        raise InputError(f"{images}: two pages are named {twice[0]}; rename a file")
    return sorted(cases, key=lambda case: _order(case.case_id))


def page_cases(root: Path, path: Path, pages: PageChoice) -> list[Case]:
    """Return the pages of one file as cases.

    Raises:
        InputError: The file cannot be read.
    """
    inside = path.relative_to(root)
    name = _name(inside)
    count = _page_count(path)
    if count == 1:
        group = inside.parts[0] if len(inside.parts) > 1 else _document_of(inside.stem)
        return [Case(name, path, group=group)] if pages.of(path, 1) else []
    group = inside.parts[0] if len(inside.parts) > 1 else name
    return [
        Case(f"{name}@{number}", path, part=str(number), group=group)
        for number in pages.of(path, count)
    ]


def label_files(cases: Sequence[Case]) -> list[Path]:
    """Return the label files of cases without repetition."""
    return sorted({case.label for case in cases if case.label is not None})


def _document_of(stem: str) -> str | None:
    """Return the paper of a page with a file name of PubLayNet or DocBank, else None."""
    found = re.fullmatch(rf"(PMC\d+)_\d{{5}}|(.+)_\d+{docbank.IMAGE_SUFFIX}", stem)
    return found and (found[1] or found[2])


def _page_count(path: Path) -> int:
    if path.suffix.lower() == ".pdf":
        return count_pdf_pages(path)
    return count_pages(path) if path.suffix.lower() in (".tif", ".tiff") else 1


def _order(case_id: str) -> tuple[str, int]:
    name, _, number = case_id.rpartition("@")
    return (name, int(number)) if name and number.isdigit() else (case_id, 0)


def _files(root: Path, images: Path, labels: Path | None) -> list[Path]:
    """Return pictures and PDFs, without masks that lie in another subfolder."""
    if images.is_file():
        if images.suffix.lower() not in PAGE_ENDINGS:
            raise InputError(f"{images}: expected {', '.join(PAGE_ENDINGS)}")
        return [images]
    # Masks inside the folder of pages are not pages; with labels elsewhere, all pictures are.
    apart = labels is not None and labels.is_dir() and root.resolve() in labels.resolve().parents
    found = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in PAGE_ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not (apart and labels is not None and path.is_relative_to(labels))
    ]
    if not found:
        raise InputError(f"{images} holds no pages ({', '.join(PAGE_ENDINGS)})")
    return found


def _coco_file(labels: Path | None) -> Path | None:
    """Return the COCO file given as labels: the file itself, or the only one of a folder."""
    if labels is None or labels.is_file():
        return labels if labels is not None and is_coco(labels) else None
    found = [path for path in sorted(labels.iterdir()) if is_coco(path)]
    others = any(path.suffix.lower() == ".xml" for path in labels.rglob("*"))
    if len(found) > 1 and not others:
        names = ", ".join(path.name for path in found[:_SHOWN])
        raise InputError(f"{labels} holds {len(found)} JSON files, {names}; name one of them")
    return found[0] if found and not others else None


def _coco_cases(
    root: Path, images: Path, coco: Path, pages: PageChoice, skip_missing: bool
) -> list[Case]:
    entries = read_coco(coco).images
    if images.is_file():
        entries = tuple(entry for entry in entries if Path(entry.name).name == images.name)
        if not entries:
            raise InputError(f"{coco} names no image {images.name}")
        entries = tuple(replace(entry, name=images.name) for entry in entries)
    missing = [entry.name for entry in entries if not (root / entry.name).is_file()]
    if missing and (not skip_missing or len(missing) == len(entries)):
        raise InputError(
            f"{coco} lists {len(entries)} images, of which {len(missing)} are not in {root}, such "
            f"as {missing[0]}"
            + ("" if len(missing) == len(entries) else "; missing_images=skip leaves them out")
        )
    cases = []
    for path, found in _by_file(root, [e for e in entries if e.name not in set(missing)]).items():
        for case in page_cases(root, path, pages):
            entry = found.get(int(case.part or 1))
            if entry is not None:
                cases.append(replace(case, label=coco, group=entry.document or case.group))
    return cases


def _by_file(root: Path, entries: Sequence[CocoImage]) -> dict[Path, dict[int, CocoImage]]:
    """Return the entries of each file by page number."""
    found: dict[Path, dict[int, CocoImage]] = {}
    for entry in entries:
        found.setdefault(root / entry.name, {})[entry.page] = entry
    return found


def _label_finder(
    labels: Path | None, root: Path, files: list[Path]
) -> Callable[[Path, str | None], Path | None]:
    """Return a function from page to label: NAME.xml, NAME.png, or NAME@3.xml of page 3."""
    if labels is None:
        return lambda path, part: None
    if labels.is_file():
        if labels.suffix.lower() not in (*LABEL_ENDINGS, docbank.ENDING):
            raise InputError(
                f"{labels}: expected COCO (.json), PAGE or ALTO (.xml), DocBank (.txt), or a mask"
            )
        if len(files) > 1:
            raise InputError(f"{labels}: labels one page, but there are {len(files)} files")
        return lambda path, part: labels
    by_name = _labels_by_name(labels, {path.resolve() for path in files})
    tokens = _docbank_labels(labels, files)

    def find(path: Path, part: str | None) -> Path | None:
        inside = path.relative_to(root)
        number = "" if part is None else f"@{part}"
        if inside.stem in tokens:
            return tokens[inside.stem]
        # In the same folder, or else anywhere with a unique name.
        for name in (_name(inside) + number, inside.stem + number):
            found = by_name.get(name, [])
            if len(found) > 1:
                raise InputError(f"{labels}: {len(found)} labels are named {name}")
            if found:
                return found[0]
        return None

    return find


def _docbank_labels(labels: Path, pages: list[Path]) -> dict[str, Path]:
    """Return DocBank's token files by the names of their pages; at least one must be DocBank's.

    In other data sets a text beside a page is its transcript.
    """
    if not any(path.stem.endswith(docbank.IMAGE_SUFFIX) for path in pages):
        return {}
    texts = sorted(labels.rglob(f"*{docbank.ENDING}"))
    return {path.stem + docbank.IMAGE_SUFFIX: path for path in texts}


def _labels_by_name(labels: Path, pages: set[Path]) -> dict[str, list[Path]]:
    """Return the label files of a folder by name, with and without their subfolders."""
    named: dict[str, list[Path]] = {}
    for found in sorted(labels.rglob("*")):
        if found.suffix.lower() in LABEL_ENDINGS and found.resolve() not in pages:
            inside = found.relative_to(labels)
            for name in {_name(inside), inside.stem}:
                named.setdefault(name, []).append(found)
    return named


def _name(inside: Path) -> str:
    return _JOINED.join((*inside.parts[:-1], inside.stem))


def _labelled(cases: list[Case], images: Path, labels: Path | None) -> list[Case]:
    if labels is None:
        return cases
    kept = [case for case in cases if case.label is not None]
    if not kept:
        raise InputError(
            f"{labels} has no label named like a page of {images}, such as {cases[0].case_id}.xml"
        )
    if len(kept) < len(cases):
        logger.warning("%d of %d pages have no label", len(cases) - len(kept), len(cases))
    return kept
