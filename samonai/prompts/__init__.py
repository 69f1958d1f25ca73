"""Prompts of a batch: boxes, points and masks; sampling them from labels; simulated clicks."""
