"""Choosing models and cases on top of single runs: folds, seeds, settings, what to annotate."""

from samonai.selection.members import RunSet, cross_validate, open_runs, repeat_seeds

__all__ = ["RunSet", "cross_validate", "open_runs", "repeat_seeds"]
