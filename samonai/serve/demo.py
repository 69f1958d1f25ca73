"""Phantom patients to annotate: `samonai serve --demo`."""

from pathlib import Path

from samonai.domains.medical.phantom.cases import PHANTOM_CLASSES, write_phantoms

PATIENTS = 8
SHAPE = (96, 96, 12)
_IMAGES, _LABELS = "imagesTr", "labelsTr"


def demo_images(out: Path) -> tuple[Path, Path, dict[int, str]]:
    """Write phantom patients below a folder, unless they are there, and return where they are.

    Args:
        out: The workspace.

    Returns:
        The folders of images and of true labels, and label value to name.
    """
    folder = out / "demo-images"
    if not (folder / _IMAGES).is_dir():
        write_phantoms(folder, patients=PATIENTS, shape=SHAPE, dicom=False)
    return folder / _IMAGES, folder / _LABELS, dict(PHANTOM_CLASSES)
