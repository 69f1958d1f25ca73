"""Readers of prompts drawn on pictures in annotation tools: CVAT, Label Studio, LabelMe, napari."""
