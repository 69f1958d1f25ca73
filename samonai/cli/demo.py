"""`samonai demo`."""
EXAMPLE = ""


def demo() -> None:
    """To be written."""
