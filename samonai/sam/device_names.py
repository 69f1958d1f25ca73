"""Names of devices of computation, checked without torch."""

from samonai.core.errors import InputError

# torch.device's own types, without those that no tensor can be computed on.
_TYPES = ("cpu", "cuda", "hpu", "mps", "mtia", "privateuseone", "xla", "xpu")


def check_device_name(device: str) -> None:
    """Check a device's name; whether this machine has the device is torch's to tell.

    Raises:
        InputError: The name is not a device type of torch, with or without a number.
    """
    name, colon, number = device.partition(":")
    if name not in _TYPES or (colon and not (number.isascii() and number.isdigit())):
        raise InputError(f"unknown device {device!r}: use cpu, cuda or cuda:N")
