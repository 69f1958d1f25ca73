"""MONAI dictionary transforms for scans, for other pipelines; bundles do not use them."""
