"""Limit the length of text from outside (messages, headers, exceptions) before it is logged, stored or shown."""

import traceback
from collections.abc import Callable

from django.template.defaultfilters import pluralize

TEXT_LIMIT_CHARS = 8 * 1024
"""Default limit of one text, in characters."""


def cut(text: str, limit: int = TEXT_LIMIT_CHARS) -> str:
    """Return `text` if it has at most `limit` characters, else its first `limit` characters and a note of its size."""
    return text if len(text) <= limit else text[:limit] + cut_note(shown=limit, size=len(text))


def cut_note(*, shown: int, size: int) -> str:
    return f"... (the first {shown} of {size} characters)"


def storable(text: str) -> str:
    """Return `text` with NUL and lone surrogates escaped, because PostgreSQL's type text cannot hold them."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def stack_trace(error: BaseException, shorten: Callable[[str], str] = cut) -> str:
    """Return the last parts of the stack trace of `error`. A part is a frame or the text of an exception.

    The parts have at most `TEXT_LIMIT_CHARS` characters in all, but the last part is returned even if it is longer. If
    earlier parts are left out, the first line says how many. `shorten` first shortens each part, so that a long text of
    an exception does not displace the frames.
    """
    parts = [shorten(part) for part in traceback.format_exception(error)]
    size = kept = 0
    while kept < len(parts) and (kept == 0 or size + len(parts[-1 - kept]) <= TEXT_LIMIT_CHARS):
        size += len(parts[-1 - kept])
        kept += 1
    left_out = len(parts) - kept
    earlier = (
        f"{left_out} earlier part{pluralize(left_out)} of the stack trace {pluralize(left_out, 'is,are')} left out"
    )
    note = f"... ({earlier})\n" if left_out else ""
    return note + "".join(parts[left_out:])
