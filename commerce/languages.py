"""Admin speaks its reader's language. The API speaks English, whatever its client accepts."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.middleware.locale import LocaleMiddleware
from django.utils import translation


class AdminLocaleMiddleware(LocaleMiddleware):
    def __call__(self, request: HttpRequest) -> Any:
        if not request.path_info.startswith(f"/{settings.ADMIN_PATH}"):
            return self.get_response(request)
        try:
            return super().__call__(request)
        finally:
            # The thread's next request may be the API's.
            translation.deactivate()
