"""Authentication that treats two Unicode compositions of a password as the same password."""

import unicodedata
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest


def normalized(password: str) -> str:
    """Return a password in the form that is hashed: Unicode's NFKC, as for usernames."""
    return unicodedata.normalize("NFKC", password)


class NormalizingBackend(ModelBackend):
    """A backend that tries the normal form of a password, and then the password as the user typed it.

    Older releases hashed the typed form. The backend always tries both forms, so that known, unknown and inactive names
    take the same time.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if password is None:
            return None
        spellings = dict.fromkeys((normalized(password), password))
        users = [super(NormalizingBackend, self).authenticate(request, username, one, **kwargs) for one in spellings]
        return next(filter(None, users), None)
