"""`samonai evaluate`."""
EXAMPLE = ""


def evaluate() -> None:
    """To be written."""
