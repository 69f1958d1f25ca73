"""Shared names of methods and metrics, and colour-blind safe colours."""

METHOD_LABELS = {
    "finetuned": "after fine-tuning",
    "zero_shot": "before fine-tuning",
    "box": "filled box",
}
"""Names of the methods in tables and pictures."""

METRIC_LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "surface_dice": "surface Dice",
    "boundary_f1": "boundary F1",
    "instance_precision": "object precision",
    "instance_recall": "object recall",
    "instance_f1": "object F1",
    "hd95_mm": "HD95 (mm)",
    "volume_difference_ml": "volume difference (ml)",
}
"""Names of the metrics in tables and pictures."""

FRACTIONS = (
    *("dice", "iou", "surface_dice", "boundary_f1"),
    *("instance_precision", "instance_recall", "instance_f1"),
)
"""The metrics that lie between 0 and 1."""

METHOD_COLOURS = {"finetuned": "#0072b2", "zero_shot": "#e69f00", "box": "#b4b4b4"}

_CLASS_COLOURS = (
    (230, 110, 20),
    (70, 175, 235),
    (0, 170, 115),
    (245, 215, 60),
    (205, 110, 170),
    (95, 95, 225),
    (215, 60, 60),
    (150, 205, 70),
)


def class_colour(position: int) -> tuple[int, int, int]:
    """Return the colour of a class as RGB, 0..255; they repeat from the ninth on.

    Args:
        position: 0 for the first class, 1 for the next.
    """
    return _CLASS_COLOURS[position % len(_CLASS_COLOURS)]
