"""Log formatters that write each record on one line and without secrets, even if it has text from outside."""

import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from events.correlation import request_id, trace_id
from events.wire.foreign_text import TEXT_LIMIT_CHARS, cut_note, stack_trace
from events.wire.timestamps import rfc3339

HIDDEN = "***"

_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A quoted value may lack its closing quote if the text was cut.
_VALUE = r"""("(?:[^"\\]|\\[\s\S])*+(?:"|\\?\Z)|'(?:[^'\\]|\\[\s\S])*+(?:'|\\?\Z)|[^\s"',;&)}\]]++)"""
CREDENTIALS_IN_URL = re.compile(r"(://[^\s/:@]*+:)[^\s/@]++@")
# Each pattern takes linear time. Its repeats are possessive, or cannot match again inside text that they have passed.
_SECRETS = (
    (re.compile(r"\b(Bearer|Basic)\s++[\w.~+/=-]++", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # A JSON Web Token, also one whose end was cut off. `eyJ` is the base64 of `{"`.
    (re.compile(r"\beyJ[\w.-]*+"), HIDDEN),
    (CREDENTIALS_IN_URL, rf"\1{HIDDEN}@"),
    # A value whose name says that it is secret, in JSON, in Python's repr or in a query string.
    (
        re.compile(
            rf"""(\b\w*(?:password|passwd|secret|token|authorization|api_?key|refresh|access)["']?\s*+[=:]\s*+){_VALUE}""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # The token of a link that turns a user's e-mails off.
    (re.compile(r"(/email/opt-out/)[^\s\"'<>?#]++"), rf"\1{HIDDEN}"),
    # PostgreSQL's error messages show the rejected row.
    (re.compile(r"(Failing row contains ).*"), rf"\1{HIDDEN}"),
)
# The cut may have removed the @ after the credentials.
_CUT_CREDENTIALS = re.compile(r"(://[^\s/:@]*+:)[^\s/@]++\Z")


def without_secrets(text: str, *, secrets: Sequence[str]) -> str:
    """Return the first `TEXT_LIMIT_CHARS` characters of `text`, with `***` for `secrets` and what looks like a secret.

    A secret that the cut splits is hidden as well. If `text` is longer, a note with its length follows.
    """
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
    """Return `text`; if it ends with the beginning of `secret`, that part is hidden."""
    for length in range(len(secret) - 1, 0, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + HIDDEN
    return text


class LineFormatter(logging.Formatter):
    """A formatter for people, which appends the ids of the request and the trace."""

    def __init__(self, *args: Any, secrets: Sequence[str] = (), **kwargs: Any) -> None:
        """Create a formatter that hides `secrets` in every line."""
        super().__init__(*args, **kwargs)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        # Another formatter may have stored a stack trace in `exc_text`, with secrets in it.
        record.exc_text = None if record.exc_info else record.exc_text and self._shown(record.exc_text)
        text = super().format(record)
        known = [f"{name}={value}" for name, value in _correlation_ids().items()]
        return _CONTROL_CHARACTERS.sub(_escaped, f"{text} [{' '.join(known)}]" if known else text)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging names it
        return self._shown(super().formatMessage(record))

    def formatException(self, exc_info: Any) -> str:  # noqa: N802 - logging names it
        return stack_trace(exc_info[1], self._shown).rstrip("\n")

    def _shown(self, text: str) -> str:
        return without_secrets(text, secrets=self._secrets)


class JSONFormatter(LineFormatter):
    """A formatter for machines, which writes one JSON object in ASCII. No character of a message can end the line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": self._shown(record.getMessage()),
            **_correlation_ids(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _correlation_ids() -> dict[str, str]:
    """Return the ids of the current request and the current trace. An id that does not exist is left out."""
    known = {"requestId": request_id.get(), "traceId": trace_id()}
    return {name: value for name, value in known.items() if value}


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()


FORMATTERS = {
    "text": f"{__name__}.{LineFormatter.__name__}",
    "json": f"{__name__}.{JSONFormatter.__name__}",
}
"""Dotted paths of the formatters' classes, by the values of the setting `LOG_FORMAT`."""


def logging_configuration(log_format: str, *, secrets: Sequence[str]) -> dict[str, Any]:
    """Return a configuration for `logging.config.dictConfig`, which hides `secrets` in every line."""
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
            # Django's handler for development would write each record a second time, on many lines.
            "django": {"handlers": []},
            # The client logs every refused connection several times a second. Our code logs the client's exceptions,
            # and each outage once.
            "kafka": {"level": "CRITICAL"},
            "django.request": {"level": "ERROR"},
            "axes": {"level": "WARNING"},
            # httpx logs each request with its URL. A shop's own PAYMENT_PROVIDER may use httpx.
            "httpx": {"level": "WARNING"},
            # At this level the exporter reports an unreachable collector once per lost batch, not at every attempt.
            "opentelemetry.exporter": {"level": "ERROR"},
        },
    }
