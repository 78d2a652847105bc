"""Rates such as `60/min`, as the environment gives them."""

import re
from typing import NamedTuple

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Rate(NamedTuple):
    requests: int
    seconds: int
    """Length of the window that the requests are counted in."""


def parse_rate(text: str) -> Rate | None:
    """None for an empty text: no limit. Raises ValueError."""
    if not text.strip():
        return None
    parts = re.fullmatch(r"([1-9][0-9]{0,8})/(s|min|h|d)", text.strip())
    if parts is None:
        raise ValueError(f"{text!r} is no rate: give requests per s, min, h or d, such as 60/min")
    return Rate(int(parts[1]), SECONDS[parts[2]])
