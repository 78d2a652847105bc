"""Django's debug pages without the secrets in settings, headers and variables."""

from collections.abc import ItemsView
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.utils.html import escape
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from commerce.observing.log_lines import CREDENTIALS_IN_URL, HIDDEN


def hide_secrets(text: str) -> str:
    """Return `text` without passwords in URLs, and without the configured secrets in any of their spellings."""
    for secret in settings.SECRETS:
        for spelling in {
            secret,
            quote(secret, safe=""),
            escape(secret),
            repr(secret)[1:-1],
            escape(repr(secret)[1:-1]),
        }:
            text = text.replace(spelling, HIDDEN)
    return CREDENTIALS_IN_URL.sub(rf"\1{HIDDEN}@", text)


class Filter(SafeExceptionReporterFilter):
    def is_active(self, request: Any) -> bool:
        """Return True: hide secrets in debug mode, too. `make run` shows debug pages, and may use real credentials."""
        return True

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        cleansed = super().cleanse_setting(key, value)
        return hide_secrets(cleansed) if isinstance(cleansed, str) else cleansed

    def get_post_parameters(self, request: Any) -> dict[str, Any]:
        """Hide passwords even if no view has marked them as sensitive before the error."""
        return {name: self.cleanse_setting(name, value) for name, value in super().get_post_parameters(request).items()}

    def get_cleansed_multivaluedict(self, request: Any, multivaluedict: Any) -> Any:
        cleansed = super().get_cleansed_multivaluedict(request, multivaluedict).copy()
        for name in cleansed:
            if self.hidden_settings.search(str(name)):
                cleansed[name] = self.cleansed_substitute
        return cleansed

    def get_traceback_frame_variables(self, request: Any, tb_frame: Any) -> ItemsView[str, Any]:
        """Return the frame's variables without secrets.

        The page shortens long values after this call. A secret that was cut before would not be recognised.
        """
        variables = super().get_traceback_frame_variables(request, tb_frame)
        return {name: _hidden(value) for name, value in variables}.items()


class Reporter(ExceptionReporter):
    def get_traceback_html(self) -> SafeString:
        return SafeString(hide_secrets(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        return SafeString(hide_secrets(super().get_traceback_text()))


def _hidden(value: Any) -> Any:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a variable's __repr__ may raise anything
        return f"{type(error).__name__} while showing a {type(value).__name__}"
    shown = hide_secrets(text)
    return value if shown == text else shown
