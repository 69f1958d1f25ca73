"""`samonai predict`."""
EXAMPLE = ""


def predict() -> None:
    """To be written."""
