"""One event, one line, and no secret in it: whatever a client sends, and whatever an exception says."""

import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from events.correlation import request_id, trace_id
from events.timestamps import rfc3339

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
    """A line for people, with the request and the trace it is about at its end."""

    def __init__(self, *args: Any, secrets: Sequence[str] = (), **kwargs: Any) -> None:
        """`secrets` are hidden wherever they stand."""
        super().__init__(*args, **kwargs)
        self._secrets = [secret for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        text = self._without_secrets(super().format(record))
        known = [f"{name}={value}" for name, value in _about().items()]
        return _CONTROL_CHARACTERS.sub(_escaped, f"{text} [{' '.join(known)}]" if known else text)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern, replacement in _SECRETS:
            text = pattern.sub(replacement, text)
        return text


class JSONFormatter(LineFormatter):
    """A line for machines: one JSON object in ASCII, which no character of a message can end."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": self._without_secrets(record.getMessage()),
            **_about(),
        }
        if record.exc_info:
            line["exception"] = self._without_secrets(self.formatException(record.exc_info))
        return json.dumps(line)


def _about() -> dict[str, str]:
    """What is known of the request that the line comes from."""
    known = {"requestId": request_id.get(), "traceId": trace_id()}
    return {name: value for name, value in known.items() if value}


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()
