"""Ids in the words of others: of whoever searches, and of messages that name a row."""

from uuid import UUID

MAX_ID_DIGITS = 18
"""A number of more digits is no id of this database."""


def id_or_none(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS else None


def uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
