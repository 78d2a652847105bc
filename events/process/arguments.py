"""Argument types for argparse. Each raises ValueError for an invalid argument."""


def positive(text: str) -> int:
    """Return the integer of at least 1 that `text` spells. Raises ValueError for any other text."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def positive_float(text: str) -> float:
    """Return the number above 0 that `text` spells. Raises ValueError for any other text."""
    if not (number := float(text)) > 0:
        raise ValueError
    return number


def port(text: str) -> int:
    """Return the TCP port from 1 to 65535 that `text` spells. Raises ValueError for any other text."""
    if not 0 < (number := int(text)) < 2**16:
        raise ValueError
    return number
