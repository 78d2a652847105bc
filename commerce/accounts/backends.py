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
    """A backend that tries the normal form of a password, and then its given spelling, of which older hashes may be.

    It always tries both, so that known, unknown and inactive names take the same time.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if password is None:
            return None
        spellings = dict.fromkeys((normalized(password), password))
        users = [super(NormalizingBackend, self).authenticate(request, username, one, **kwargs) for one in spellings]
        return next(filter(None, users), None)
