"""`samonai embed`."""
EXAMPLE = ""


def embed() -> None:
    """To be written."""
