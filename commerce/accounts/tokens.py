"""The API's token classes, which validate the claims of a token in addition to its signature."""

from typing import Annotated, Any

import msgspec
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.exceptions import TokenError


class Claims(msgspec.Struct):
    """The claims of a token that this site itself uses, with their permitted values. `WellFormed` checks them."""

    exp: Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800)]
    """Seconds since 1970, up to the end of the year 9999, the last year that Python supports."""
    jti: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,255}\Z")]
    user_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,18}\Z")] | Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class WellFormed:
    """A mixin for token classes that rejects claims which would fail later in a query or in arithmetic."""

    payload: dict[str, Any]

    def verify(self) -> None:
        try:
            msgspec.convert(self.payload, Claims)
        except msgspec.ValidationError as error:
            raise TokenError("Token is invalid") from error
        super().verify()  # type: ignore[misc]


class AccessToken(WellFormed, tokens.AccessToken):
    pass


class OneUseRefreshToken(WellFormed, tokens.RefreshToken):  # type: ignore[misc]
    """A refresh token that works once. Only one of two parallel uses succeeds."""

    def blacklist(self) -> Any:
        found: Any = super().blacklist()
        _, created = found
        if not created:
            raise TokenError("Token is blacklisted")
        return found


def user_of_refresh_token(raw: str) -> str | int | None:
    """Return the user id of a refresh token that can still be used, and None for any other text.

    An access token or a used refresh token does not count, because other people may have seen it.
    """
    try:
        return OneUseRefreshToken(raw).payload["user_id"]  # type: ignore[arg-type]
    except TokenError:
        return None
