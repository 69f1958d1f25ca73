"""Prompt sources at inference: prompt files, coarse label maps, keyframe interpolation."""
