"""Names that a setting can choose from, where its description and its component share them."""

HEADS = ("promptable", "semantic", "both")
PROMPTABLE, SEMANTIC, BOTH = HEADS
LOSS_RECIPES = ("dice_bce", "dice_focal", "dice_ce", "bce", "dice_boundary", "dice_hausdorff")
COMPONENTS = ("each", "largest", "whole")
CLICK_RULES = ("uniform", "largest")
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "auto")
AUTOMATIC = ("classes", "box", "points", "box_and_points", "proposed", "box_and_proposed", "grid")
PROPAGATE_PROMPTS = ("box", "mask", "box+mask")
"""Prompts made of a frame's mask for the next frame: the box around it, its logits, or both."""
SPREADS = ("none", "propagate", "interpolate")
SIMULATED_PROMPTS = ("slices", "volume", "clicks", "middle", "middle_click", "keyframes")
"""A box per frame and object; one box per class around the whole structure; one click per frame
and object, at its interior centre; one box per class on its middle frame alone; one click there; or
a box on its first, middle and last frame."""
CT_WINDOWS = ("soft_tissue", "lung", "bone", "brain", "liver")
CHANNELS = ("grey", "neighbours", "windows")
CROPS = ("none", "body", "prompt")
SCALINGS = ("auto", "raster", "set", "fixed")
PLACINGS = ("prompts", "objects", "grid")
ALL_TOKENS, LOCAL = "all", "auto"
WINDOWS = (ALL_TOKENS, LOCAL)
"""Image tokens that the mask decoder sees: all, or a window around each prompt."""
