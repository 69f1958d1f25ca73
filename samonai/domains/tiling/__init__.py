"""Tiling of large frames: overlapping tiles, blending of class logits, merging of objects."""
