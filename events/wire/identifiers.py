"""Parse ids from search terms and from messages."""

from uuid import UUID

MAX_ID_DIGITS = 18
"""Largest number of digits of a primary key. A number with more digits may not fit into PostgreSQL's bigint."""


def id_or_none(text: str) -> int | None:
    """Return the integer that `text` spells in at most `MAX_ID_DIGITS` ASCII digits; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS else None


def uuid_or_none(text: str) -> UUID | None:
    """Return the UUID that `text` spells; None for any other text."""
    try:
        return UUID(text)
    except ValueError:
        return None
