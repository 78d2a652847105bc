"""A password in another composition of the same letters is the same password, in the API and in admin."""

import unicodedata
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest


def normalized(password: str) -> str:
    """The form of a password that is hashed, which is that of names (NFKC)."""
    return unicodedata.normalize("NFKC", password)


class NormalizingBackend(ModelBackend):
    """Tries the password in its normal form, and as it is spelled, for hashes that were made of that.

    Both are always tried, so that known, unknown and inactive names take the same time.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if password is None:
            return None
        spellings = dict.fromkeys((normalized(password), password))
        users = [super(NormalizingBackend, self).authenticate(request, username, one, **kwargs) for one in spellings]
        return next(filter(None, users), None)
