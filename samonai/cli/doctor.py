"""`samonai doctor`."""
EXAMPLE = ""


def doctor() -> None:
    """To be written."""
