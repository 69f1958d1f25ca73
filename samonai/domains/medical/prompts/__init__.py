"""Prompt files of scans: boxes and points in voxel indices."""
