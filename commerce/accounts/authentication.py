"""Authentication of API requests: the access token names the user, and each request reads that user's row."""

from functools import cache, lru_cache
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import Token
from rest_framework_simplejwt.utils import aware_utcnow, get_md5_hash_password

from events.prepared import PreparedStatement

USER_FIELDS = ("id", "password", "username", "is_active")
"""Fields of the user that each request reads, in the model's order. Django loads the other fields on access."""


class TokenAuthentication(JWTAuthentication):
    """Authentication by access token, which can read one more value in the query for the user.

    A view's attribute `read_with_caller` is the SQL expression of the value. The value is `request.read_with_caller`.
    """

    def __init__(self) -> None:
        """Skip simplejwt's constructor, which looks up the user model for every request."""

    def authenticate(self, request: Request) -> tuple[Any, Token] | None:
        self._also = getattr(request.parser_context.get("view"), "read_with_caller", None) or "NULL"
        self._read_with_caller: Any = None
        caller = super().authenticate(request)
        request.read_with_caller = self._read_with_caller  # type: ignore[attr-defined]
        return caller

    def get_user(self, validated_token: Token) -> Any:
        """Return the token's `User` after simplejwt's checks. Raise AuthenticationFailed if one of them fails.

        The query is written in SQL, which takes less CPU than the ORM, because every request with a token runs it.
        """
        with connection.cursor() as cursor:
            _caller_and(self._also).execute(cursor, [validated_token[api_settings.USER_ID_CLAIM]])
            row = cursor.fetchone()
        if row is None:
            raise AuthenticationFailed("User not found", code="user_not_found")
        *fields, self._read_with_caller = row
        user = User.from_db(connection.alias, USER_FIELDS, fields)
        if not user.is_active:
            raise AuthenticationFailed("User is inactive", code="user_inactive")
        if validated_token.get(api_settings.REVOKE_TOKEN_CLAIM) != get_md5_hash_password(user.password):
            raise AuthenticationFailed("The user's password has been changed.", code="password_changed")
        return user

    def get_validated_token(self, raw_token: bytes) -> Token:
        """Return the token. Raise InvalidToken if it is invalid or has expired.

        Its expiry is checked each time. Its signature is checked once, and a valid token is cached.
        """
        token = _decoded(raw_token)
        try:
            token.check_exp(current_time=aware_utcnow())
        except TokenError as error:
            raise InvalidToken from error
        return token

    def get_raw_token(self, header: bytes) -> bytes | None:
        """Return the token in an `Authorization` header, or None if the header is empty or its scheme is not Bearer.

        The scheme may be in any case (RFC 9110, section 11.1). Raise AuthenticationFailed if Bearer is not followed by
        exactly one word.
        """
        scheme, space, token = header.partition(b" ")
        return super().get_raw_token(scheme.title() + space + token)


@cache
def _caller_and(expression: str) -> PreparedStatement:
    """Return the statement that reads a user by id and, in the same query, `expression`.

    The statements are cached without a limit, because views use few expressions.
    """
    return PreparedStatement(
        f"SELECT id, password, username, is_active, {expression} FROM auth_user WHERE id = %s::bigint"  # noqa: S608 - comes from the view
    )


@lru_cache(maxsize=4_096)
def _decoded(raw_token: bytes) -> Token:
    """Return the token after a check of its signature. Raise InvalidToken if it is invalid.

    The cache has valid tokens only, because it does not keep errors.
    """
    return JWTAuthentication().get_validated_token(raw_token)
