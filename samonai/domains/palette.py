"""Colours of label values in pictures of label maps."""


def palette() -> list[int]:
    """Return 256 RGB colours for Pillow: black, then Pascal VOC's, which are distinguishable."""
    colours = []
    for value in range(256):
        red = green = blue = 0
        bits = value
        for shift in range(7, -1, -1):
            red |= (bits & 1) << shift
            green |= (bits >> 1 & 1) << shift
            blue |= (bits >> 2 & 1) << shift
            bits >>= 3
        colours += [red, green, blue]
    return colours
