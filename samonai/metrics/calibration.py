"""Calibration of probabilities: ECE, reliability diagram, and temperature scaling.

All is computed from two histograms of logits, of voxels inside and outside the structure, so memory
does not grow with the data, and every temperature can be tried without another prediction.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit

ECE_BINS = 15
"""Bins of equal width over the probability, 0..1."""

_LIMIT, _BINS = 40.0, 4000
"""Logits are clipped to ±40 and binned by 0.02, far finer than any of the reported numbers."""

_CENTRES = (np.arange(_BINS) + 0.5) * (2 * _LIMIT / _BINS) - _LIMIT
_TEMPERATURES = (0.05, 20.0)


class LogitHistogram:
    """Histogram of voxels' logits, separate for voxels inside and outside the structure."""

    def __init__(self, counts: npt.NDArray[np.int64] | None = None) -> None:
        """Start empty, or from int64 (2, 4000) counts: outside, inside."""
        self.counts = np.zeros((2, _BINS), np.int64) if counts is None else counts

    def __add__(self, other: "LogitHistogram") -> "LogitHistogram":
        """Return the counts of both together."""
        return LogitHistogram(self.counts + other.counts)

    @property
    def voxels(self) -> int:
        """Return the number of counted voxels."""
        return int(self.counts.sum())

    def add(self, logits: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]) -> None:
        """Count voxels.

        Args:
            logits: float32 (M,).
            inside: bool (M,), whether each lies in the structure by the reference.
        """
        position = (np.asarray(logits, np.float64) + _LIMIT) * (_BINS / (2 * _LIMIT))
        rows = position.astype(np.int64).clip(0, _BINS - 1)
        for side in (0, 1):
            self.counts[side] += np.bincount(rows[inside == bool(side)], minlength=_BINS)

    def nll(self, temperature: float = 1.0) -> float | None:
        """Return the mean negative log-likelihood in nats; None without voxels."""
        if not self.voxels:
            return None
        scaled = _CENTRES / temperature
        outside, inside = np.logaddexp(0, scaled), np.logaddexp(0, -scaled)
        return float((self.counts[0] @ outside + self.counts[1] @ inside) / self.voxels)

    def reliability(self, temperature: float = 1.0) -> list[dict[str, Any]]:
        """Return, for each of the `ECE_BINS`, `voxels`, mean `probability` and true `frequency`."""
        probability = expit(_CENTRES / temperature)
        bins = (probability * ECE_BINS).astype(int).clip(0, ECE_BINS - 1)
        total = self.counts.sum(0)
        voxels = np.bincount(bins, total, ECE_BINS)
        inside = np.bincount(bins, self.counts[1], ECE_BINS)
        claimed = np.bincount(bins, total * probability, ECE_BINS)
        return [
            {
                "voxels": int(count),
                "probability": float(claim / count) if count else None,
                "frequency": float(found / count) if count else None,
            }
            for count, found, claim in zip(voxels, inside, claimed, strict=True)
        ]

    def ece(self, temperature: float = 1.0) -> float | None:
        """Return the expected calibration error, 0..1; None without voxels."""
        if not self.voxels:
            return None
        rows = [row for row in self.reliability(temperature) if row["voxels"]]
        gaps = (row["voxels"] * abs(row["probability"] - row["frequency"]) for row in rows)
        return sum(gaps) / self.voxels

    def fit_temperature(self) -> float:
        """Fit the temperature of least negative log-likelihood; 1 without voxels."""
        if not self.voxels:
            return 1.0
        found = minimize_scalar(
            lambda logarithm: self.nll(float(np.exp(logarithm))),
            bounds=tuple(np.log(_TEMPERATURES)),
            method="bounded",
        )
        return float(np.exp(found.x))
