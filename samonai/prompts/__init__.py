"""Prompts of a batch: boxes, points and masks; sampling them from labels; simulated clicks."""

from samonai.core.lazy_package import import_lazily

# Coarse masks, simulated clicks and the domains use it, and a prediction from boxes does not.
import_lazily("scipy.ndimage")
