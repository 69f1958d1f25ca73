"""Model and case selection: cross-validation, seeds, sweeps, learning curves, active learning."""

from samonai.selection.calibrate import Calibrated, calibrate
from samonai.selection.curve import Curve, curve
from samonai.selection.members import RunSet, cross_validate, repeat_seeds
from samonai.selection.rank import Ranked, rank
from samonai.selection.sweep import Sweep, sweep

__all__ = [
    "Calibrated",
    "Curve",
    "Ranked",
    "RunSet",
    "Sweep",
    "calibrate",
    "cross_validate",
    "curve",
    "rank",
    "repeat_seeds",
    "sweep",
]
