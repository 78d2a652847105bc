"""The API's tokens, whose claims are judged before they are used: a good signature alone does not make them ours."""

from typing import Annotated, Any

import msgspec
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError
from rest_framework_simplejwt.state import token_backend


class Claims(msgspec.Struct):
    """Those that the database is asked for, or that are computed with."""

    exp: Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800)]
    """Seconds since 1970, up to the year 9999, the last that Python knows."""
    jti: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,255}\Z")]
    user_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,18}\Z")] | Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class WellFormed:
    """Refuses, as no good token, what would otherwise fail in the database or in arithmetic."""

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
    """A refresh token of which two parallel uses have one winner."""

    def blacklist(self) -> Any:
        found: Any = super().blacklist()
        _, created = found
        if not created:
            raise TokenError("Token is blacklisted")
        return found


def user_of_refresh_token(raw: str) -> str | int | None:
    """Return the id of the user that a token was signed for, spent or not; None for one that is not ours."""
    try:
        return msgspec.convert(token_backend.decode(raw, verify=True), Claims).user_id  # type: ignore[arg-type]
    except (TokenBackendError, msgspec.ValidationError):
        return None
