"""Automatic segmentation: point grids, instance masks, border maps, object classification."""
