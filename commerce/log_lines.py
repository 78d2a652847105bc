"""One event, one line, and no secret in it: whatever a client sends, and whatever an exception says."""

import logging
import re
from collections.abc import Sequence
from typing import Any

HIDDEN = "***"

_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_VALUE = r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"',;&)}\]]+)"""
_SECRETS = (
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # A JSON Web Token, wherever it stands.
    (re.compile(r"\beyJ[\w-]*\.[\w-]+\.[\w-]*"), HIDDEN),
    # Credentials within a URL.
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{HIDDEN}@"),
    # What is named for what it is, in JSON, in Python's repr or in a query.
    (
        re.compile(
            rf"""(\b\w*(?:password|passwd|secret|token|authorization|api_?key|refresh|access)["']?\s*[=:]\s*){_VALUE}""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # PostgreSQL shows the row that it refused.
    (re.compile(r"(Failing row contains ).*"), rf"\1{HIDDEN}"),
)


class LineFormatter(logging.Formatter):
    def __init__(self, *args: Any, secrets: Sequence[str] = (), **kwargs: Any) -> None:
        """`secrets` are hidden wherever they stand."""
        super().__init__(*args, **kwargs)
        self._secrets = [secret for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern, replacement in _SECRETS:
            text = pattern.sub(replacement, text)
        return _CONTROL_CHARACTERS.sub(_escaped, text)


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()
