"""One event, one line, and no secret in it: whatever a client sends, and whatever an exception says."""

import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from events.correlation import request_id, trace_id
from events.foreign_text import TEXT_LIMIT_CHARS, cut_note, stack_trace
from events.timestamps import rfc3339

HIDDEN = "***"

_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A quoted value may lack its end, where the text was cut.
_VALUE = r"""("(?:[^"\\]|\\[\s\S])*+(?:"|\\?\Z)|'(?:[^'\\]|\\[\s\S])*+(?:'|\\?\Z)|[^\s"',;&)}\]]++)"""
CREDENTIALS_IN_URL = re.compile(r"(://[^\s/:@]*+:)[^\s/@]++@")
# Each is linear in the length of the text: what repeats is possessive, or cannot begin inside of what it has passed.
_SECRETS = (
    (re.compile(r"\b(Bearer|Basic)\s++[\w.~+/=-]++", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # A JSON Web Token, wherever it stands, also one that the cut has left without its last parts: `eyJ` is `{"`.
    (re.compile(r"\beyJ[\w.-]*+"), HIDDEN),
    (CREDENTIALS_IN_URL, rf"\1{HIDDEN}@"),
    # What is named for what it is, in JSON, in Python's repr or in a query.
    (
        re.compile(
            rf"""(\b\w*(?:password|passwd|secret|token|authorization|api_?key|refresh|access)["']?\s*+[=:]\s*+){_VALUE}""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # PostgreSQL shows the row that it refused.
    (re.compile(r"(Failing row contains ).*"), rf"\1{HIDDEN}"),
)
# At the end of a text that was cut: it may have lost the @.
_CUT_CREDENTIALS = re.compile(r"(://[^\s/:@]*+:)[^\s/@]++\Z")


def without_secrets(text: str, *, secrets: Sequence[str]) -> str:
    """Return `text`, cut, without `secrets` and without what looks like a secret, also where the cut splits it."""
    size = len(text)
    text = text[:TEXT_LIMIT_CHARS]
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
        if size > TEXT_LIMIT_CHARS:
            text = _without_beginning(text, secret)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    if size <= TEXT_LIMIT_CHARS:
        return text
    return _CUT_CREDENTIALS.sub(rf"\1{HIDDEN}", text) + cut_note(shown=TEXT_LIMIT_CHARS, size=size)


def _without_beginning(text: str, secret: str) -> str:
    """Hide the beginning of `secret` where `text` ends with one."""
    for length in range(len(secret) - 1, 0, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + HIDDEN
    return text


class LineFormatter(logging.Formatter):
    """A line for people, with the request and the trace it is about at its end."""

    def __init__(self, *args: Any, secrets: Sequence[str] = (), **kwargs: Any) -> None:
        """`secrets` are hidden wherever they stand."""
        super().__init__(*args, **kwargs)
        self._secrets = [secret for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        # Another formatter may have kept a stack trace here, with the secrets in it.
        record.exc_text = None if record.exc_info else record.exc_text and self._shown(record.exc_text)
        text = super().format(record)
        known = [f"{name}={value}" for name, value in _about().items()]
        return _CONTROL_CHARACTERS.sub(_escaped, f"{text} [{' '.join(known)}]" if known else text)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging names it
        return self._shown(super().formatMessage(record))

    def formatException(self, exc_info: Any) -> str:  # noqa: N802 - logging names it
        return stack_trace(exc_info[1], self._shown).rstrip("\n")

    def _shown(self, text: str) -> str:
        return without_secrets(text, secrets=self._secrets)


class JSONFormatter(LineFormatter):
    """A line for machines: one JSON object in ASCII, which no character of a message can end."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": self._shown(record.getMessage()),
            **_about(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _about() -> dict[str, str]:
    """What is known of the request that the line comes from."""
    known = {"requestId": request_id.get(), "traceId": trace_id()}
    return {name: value for name, value in known.items() if value}


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()


FORMATTERS = {
    "text": f"{__name__}.{LineFormatter.__name__}",
    "json": f"{__name__}.{JSONFormatter.__name__}",
}
"""One line an event either way: for people, or for machines."""


def logging_configuration(log_format: str, *, secrets: Sequence[str | None]) -> dict[str, Any]:
    """Return what `logging.config.dictConfig` takes. No line has one of `secrets` in it."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": FORMATTERS[log_format],
                "fmt": "{levelname} {name}: {message}",
                "style": "{",
                "secrets": secrets,
            }
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["console"], "level": "INFO"},
        "loggers": {
            # Django's own handler of development would write everything a second time, over many lines.
            "django": {"handlers": []},
            # The client logs every refused connection several times a second. Our own code logs whatever the client
            # raises, and every outage, once.
            "kafka": {"level": "CRITICAL"},
            "django.request": {"level": "ERROR"},
            "axes": {"level": "WARNING"},
            # The exporter reports a collector that is away once a batch, when its spans are lost, and not at every
            # attempt.
            "opentelemetry.exporter": {"level": "ERROR"},
        },
    }
