"""COCO: the objects of pictures as shapes that prompt."""

from pathlib import PurePosixPath

import numpy as np

from samonai.domains.annotations.drawn import DrawnImage, DrawnShape, corners
from samonai.domains.coco import CocoFile, CocoObject


def coco_images(coco: CocoFile) -> list[DrawnImage]:
    """Return the pictures of a COCO file with their shapes.

    Raises:
        InputError: An annotation cannot be read.
    """
    found = []
    for image in coco.images:
        shapes = [
            _shape(one) for one in coco.objects(image) if not one.crowd and one.part()[1].any()
        ]
        left_out = ("crowd",) * sum(one.crowd for one in coco.objects(image))
        found.append(
            DrawnImage(PurePosixPath(image.name).name, image.size, tuple(shapes), left_out)
        )
    return found


def _shape(one: CocoObject) -> DrawnShape:
    if one.rings:
        return DrawnShape(one.name, np.concatenate(one.rings))
    (top, left), mask = one.part()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = corners(left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
    return DrawnShape(one.name, box)
