"""Host names and addresses of this machine's own loopback interface."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether a host name or IP address is reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
