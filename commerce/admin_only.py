"""Middleware that only admin needs: the API knows neither sessions nor messages, and speaks English.

Beneath every path it would cost the API 2 to 4 % of its orders/s.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.middleware import locale
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin


class _AdminOnly(MiddlewareMixin):
    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info.startswith(f"/{settings.ADMIN_PATH}"):
            return super().__call__(request)
        return self.get_response(request)


class SessionMiddleware(_AdminOnly, sessions.SessionMiddleware):
    pass


class AuthenticationMiddleware(_AdminOnly, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(_AdminOnly, messages.MessageMiddleware):
    pass


class LocaleMiddleware(_AdminOnly, locale.LocaleMiddleware):
    """Admin speaks its reader's language."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        try:
            return super().process_response(request, response)
        finally:
            # The thread's next request may be the API's.
            translation.deactivate()
