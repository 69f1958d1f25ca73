"""Average precision (COCO mAP) of objects' masks, through pycocotools.

Every object of a predicted map is a detection with its score. Average precision is the mean over
the IoU thresholds 0.50, 0.55, … 0.95, then over the classes of the reference.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.base import LabelMaps
from samonai.metrics.objects import covered_masks, objects_of

MOST_DETECTIONS = 1000
"""Largest number of detections of one class on one source; COCO's 100 is too few for newspapers."""


@dataclass(frozen=True)
class DetectedObject:
    """One object of a map.

    Attributes:
        case: Its case.
        label: Label value of its class.
        score: Its score, 0..1.
        rle: Its mask as COCO's run lengths.
    """

    case: str
    label: int
    score: float
    rle: dict[str, Any]


def detected_objects(
    maps: LabelMaps,
    classes: Mapping[int, str],
    case: str,
    known: npt.NDArray[np.bool_] | None = None,
) -> list[DetectedObject]:
    """Return the objects of a map, covered ones with all of their pixels.

    Args:
        maps: Class per pixel, with objects if there are any; objects without scores have score 1.
        classes: The evaluated classes.
        case: The case's name.
        known: bool (H, W), False on ignored pixels; None: none is ignored.
    """
    coco_mask = _pycocotools().mask
    found = []
    for value in classes:
        mask = maps.label == value
        numbers = objects_of(mask if known is None else mask & known, maps)
        whole = covered_masks(maps, value, known)
        found += [
            DetectedObject(case, int(value), 1.0, coco_mask.encode(np.asfortranarray(own)))
            for own in whole.values()
        ]
        for number in np.unique(numbers[numbers > 0]).tolist():
            if number in whole:
                continue
            own = np.asfortranarray((numbers == number).astype(np.uint8))
            score = 1.0
            if maps.scores is not None and maps.instances is not None:
                score = float(maps.scores[number - 1])
            found.append(DetectedObject(case, int(value), score, coco_mask.encode(own)))
    return found


def average_precision(
    predicted: Sequence[DetectedObject],
    reference: Sequence[DetectedObject],
    classes: Mapping[int, str],
) -> dict[str, Any]:
    """Return mAP@[.5:.95], AP at 0.5 and 0.75, and the AP of each class.

    Returns:
        `map`, `map_50`, `map_75` and `per_class` by name; None if the reference is empty.
    """
    coco = _pycocotools()
    evaluation = coco.cocoeval.COCOeval(iouType="segm")
    images = {
        one.case: {"id": number, "height": one.rle["size"][0], "width": one.rle["size"][1]}
        for number, one in enumerate([*reference, *predicted], 1)
    }
    truth = _dataset(coco, reference, images, classes)
    evaluation.cocoGt = truth
    evaluation.cocoDt = _dataset(coco, predicted, images, classes)
    evaluation.params.imgIds = sorted(image["id"] for image in images.values())
    evaluation.params.catIds = sorted(classes)
    evaluation.params.maxDets = [MOST_DETECTIONS]
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its timings
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # (thresholds, recalls, classes)
    rows = {
        "map": precision,
        "map_50": precision[evaluation.params.iouThrs == 0.5],
        "map_75": precision[np.isclose(evaluation.params.iouThrs, 0.75)],
    }
    per_class = {
        classes[value]: _mean(precision[:, :, column])
        for column, value in enumerate(sorted(classes))
    }
    return {**{name: _mean(values) for name, values in rows.items()}, "per_class": per_class}


def _dataset(
    coco: Any,
    objects: Sequence[DetectedObject],
    images: Mapping[str, dict[str, int]],
    classes: Mapping[int, str],
) -> Any:
    dataset = coco.coco.COCO()
    dataset.dataset = {
        "images": list(images.values()),
        "categories": [{"id": value, "name": name} for value, name in classes.items()],
        "annotations": [
            {
                "id": number,
                "image_id": images[one.case]["id"],
                "category_id": one.label,
                "segmentation": one.rle,
                "area": float(coco.mask.area(one.rle)),
                "score": one.score,
                "iscrowd": 0,
            }
            for number, one in enumerate(objects, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
    return dataset


def _mean(precision: npt.NDArray[np.float64]) -> float | None:
    """Return the mean over the defined values; -1 marks classes without a reference."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _pycocotools() -> Any:
    try:
        import pycocotools
        import pycocotools.coco
        import pycocotools.cocoeval
        import pycocotools.mask
    except ImportError as error:
        raise InputError(
            "average precision needs pycocotools, which is not installed: pip install "
            "'samonai[documents]'"
        ) from error
    return pycocotools
