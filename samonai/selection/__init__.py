"""Choosing models and cases on top of single runs: folds, seeds, settings, what to annotate."""

from samonai.selection.calibrate import Calibrated, calibrate
from samonai.selection.members import RunSet, cross_validate, repeat_seeds

__all__ = ["Calibrated", "RunSet", "calibrate", "cross_validate", "repeat_seeds"]
