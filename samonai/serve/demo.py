"""Phantom patients to annotate: `samonai serve --demo`."""

from pathlib import Path

from samonai.domains.medical.phantom.cases import PHANTOM_CLASSES, write_phantoms

PATIENTS = 8
SHAPE = (96, 96, 12)
_IMAGES = "imagesTr"


def demo_images(out: Path) -> tuple[Path, dict[int, str]]:
    """Write phantom patients below a folder, unless they are there, and return where they are.

    Args:
        out: The workspace.

    Returns:
        The folder of images, and label value to name of what can be seen on them.
    """
    folder = out / "demo-images"
    if not (folder / _IMAGES).is_dir():
        write_phantoms(folder, patients=PATIENTS, shape=SHAPE, dicom=False)
    return folder / _IMAGES, dict(PHANTOM_CLASSES)
