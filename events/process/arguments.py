"""Argument types for argparse. Each raises ValueError for an invalid argument."""


def positive(text: str) -> int:
    """Return an integer of at least 1."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def positive_float(text: str) -> float:
    """Return a number above 0."""
    if not (number := float(text)) > 0:
        raise ValueError
    return number


def port(text: str) -> int:
    """Return a TCP port from 1 to 65535."""
    if not 0 < (number := int(text)) < 2**16:
        raise ValueError
    return number
