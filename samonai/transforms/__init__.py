"""MONAI dictionary transforms over the layers below: what bundle configurations name."""
