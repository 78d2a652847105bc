"""Descriptions of registration and tokens for the OpenAPI document, and its security scheme."""

from functools import partial
from typing import Any

from django.contrib.auth.models import User
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.utils import OpenApiExample, OpenApiRequest, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework_simplejwt.settings import api_settings as jwt_settings

from commerce.accounts.names import NAME_TAKEN
from commerce.accounts.serializers import PASSWORD_MAX_LENGTH, RegistrationSerializer

TOO_MANY_FROM_ADDRESS = "Too many requests from this address within a minute"
CREDENTIALS = {"username": "mina", "password": "correct horse battery"}
TOKENS = {"access": "eyJhbGciOiJIUzI1NiIs...", "refresh": "eyJhbGciOiJIUzI1NiIs..."}


class TokenScheme(SimpleJWTScheme):
    target_class = "commerce.accounts.authentication.TokenAuthentication"


class CredentialsSerializer(serializers.Serializer[Any]):
    username = serializers.RegexField(User.username_validator.regex, max_length=User.username.field.max_length)
    password = serializers.RegexField(r"^[^\u0000]+$", max_length=PASSWORD_MAX_LENGTH)


class RefreshTokenSerializer(serializers.Serializer[Any]):
    refresh = serializers.RegexField(r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")


class TokensSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(
        help_text=f"JWT for `Authorization: Bearer`, valid for "
        f"{jwt_settings.ACCESS_TOKEN_LIFETIME.total_seconds() / 60:.0f} minutes."
    )
    refresh = serializers.CharField(
        help_text=f"JWT for one exchange for new tokens within {jwt_settings.REFRESH_TOKEN_LIFETIME.days} days."
    )


_operation = partial(extend_schema, tags=["Accounts"])
_TOKENS = OpenApiResponse(TokensSerializer, examples=[OpenApiExample("Example", TOKENS)])


def _body(serializer: Any, example: Any) -> OpenApiRequest:
    return OpenApiRequest(serializer, examples=[OpenApiExample("Example", example)])


def _wrong(pointer: str, detail: str) -> list[OpenApiExample]:
    """Return an example of an error in a request's body."""
    error = {"pointer": pointer, "detail": detail}
    return [OpenApiExample("Example", error, response_only=True, status_codes=["400"])]


describe_register = extend_schema_view(
    post=_operation(
        operation_id="register",
        summary="Register a customer",
        description="A weak password or a taken name is 400. An address has 60 requests a minute.",
        request=_body(RegistrationSerializer, CREDENTIALS | {"email": "mina@example.com"}),
        responses={
            201: OpenApiResponse(
                RegistrationSerializer, examples=[OpenApiExample("Example", {"id": 45, "username": "mina"})]
            ),
            429: OpenApiResponse(description=f"{TOO_MANY_FROM_ADDRESS}."),
        },
        examples=_wrong("/username", str(NAME_TAKEN)),
    )
)
describe_login = extend_schema_view(
    post=_operation(
        operation_id="logIn",
        summary="Get tokens for a name and a password",
        description="An address has 60 requests a minute. After ten wrong passwords for one name from one "
        "address that pair is locked for five minutes, even for the right password.",
        request=_body(CredentialsSerializer, CREDENTIALS),
        responses={
            200: _TOKENS,
            401: OpenApiResponse(description="Name and password do not belong together."),
            429: OpenApiResponse(description=f"{TOO_MANY_FROM_ADDRESS}, or too many wrong passwords for this name."),
        },
        examples=_wrong("/password", "This field is required."),
    )
)
describe_refresh = extend_schema_view(
    post=_operation(
        operation_id="refreshTokens",
        summary="Get new tokens for a refresh token",
        description="The old refresh token stops working; of two parallel uses one gets 401. An address and a user "
        "have 60 requests a minute each.",
        request=_body(RefreshTokenSerializer, {"refresh": TOKENS["refresh"]}),
        responses={
            200: _TOKENS,
            401: OpenApiResponse(description="The refresh token was used before, has expired, or is invalid."),
            429: OpenApiResponse(description="Too many requests from this address or by this user."),
        },
        examples=_wrong("/refresh", "This field is required."),
    )
)
