"""Evaluation of predictions: metrics per case, click simulation, calibration, baselines."""

from samonai.evaluation.calibration_metrics import CalibrationMetrics
from samonai.evaluation.case_metrics import CaseMetrics
from samonai.evaluation.clicking import ClickMetrics, ClickSimulation, parse_counts
from samonai.evaluation.measures import DetectionMeasure, ObjectMeasure, VolumeMeasure

__all__ = [
    "CalibrationMetrics",
    "CaseMetrics",
    "ClickMetrics",
    "ClickSimulation",
    "DetectionMeasure",
    "ObjectMeasure",
    "VolumeMeasure",
    "parse_counts",
]
