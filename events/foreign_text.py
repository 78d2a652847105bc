"""Bound what is logged, stored or shown of texts that others wrote: messages, headers, exceptions about them."""

import traceback
from collections.abc import Callable

LIMIT = 8 * 1024
"""Characters of one text."""


def cut(text: str, limit: int = LIMIT) -> str:
    """Return `text`, or its first `limit` characters and a note that says how many there were."""
    return text if len(text) <= limit else text[:limit] + cut_note(shown=limit, size=len(text))


def cut_note(*, shown: int, size: int) -> str:
    return f"... (the first {shown} of {size} characters)"


def stack_trace(error: BaseException, shorten: Callable[[str], str] = cut) -> str:
    """Return the end of the stack trace of `error`, at most `LIMIT` characters and a note of what was left out.

    `shorten` is called with each frame and each exception's text by itself, so that a foreign text within an
    exception's message crowds out no frame.
    """
    parts = [shorten(part) for part in traceback.format_exception(error)]
    size = kept = 0
    while kept < len(parts) and (kept == 0 or size + len(parts[-1 - kept]) <= LIMIT):
        size += len(parts[-1 - kept])
        kept += 1
    left_out = len(parts) - kept
    note = f"... ({left_out} earlier parts of the stack trace are left out)\n" if left_out else ""
    return note + "".join(parts[left_out:])
