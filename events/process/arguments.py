"""Types of command-line arguments, for argparse: each raises ValueError for what it refuses."""


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def positive_float(text: str) -> float:
    if not (number := float(text)) > 0:
        raise ValueError
    return number


def port(text: str) -> int:
    if not 0 < (number := int(text)) < 2**16:
        raise ValueError
    return number
