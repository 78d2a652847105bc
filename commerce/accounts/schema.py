"""Parts of the OpenAPI document: registration, tokens, the caller's account, the security scheme, and "First steps"."""

from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.utils import OpenApiExample, OpenApiRequest, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework_simplejwt.settings import api_settings as jwt_settings

from commerce.accounts.demo_accounts import ACCOUNTS
from commerce.accounts.names import NAME_TAKEN
from commerce.accounts.serializers import (
    PASSWORD_MAX_LENGTH,
    MeChangesSerializer,
    MeSerializer,
    RegistrationSerializer,
)
from commerce.api.schema import EXAMPLE_SITE

TOO_MANY_FROM_ADDRESS = "Too many requests from this address within a minute"
CREDENTIALS = {"username": "mina", "password": "correct horse battery"}
ME = {"id": 45, "username": "mina", "email": "mina@example.com", "emailNotifications": True}
TOKENS = {"access": "eyJhbGciOiJIUzI1NiIs...", "refresh": "eyJhbGciOiJIUzI1NiIs..."}
ACCESS_TOKEN_MINUTES = int(jwt_settings.ACCESS_TOKEN_LIFETIME.total_seconds() // 60)


class TokenScheme(SimpleJWTScheme):
    target_class = "commerce.accounts.authentication.TokenAuthentication"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return super().get_security_definition(auto_schema) | {  # type: ignore[no-untyped-call]
            "description": "For the orders, notifications and everything else of a user: the `access` token from "
            "`POST /api/auth/token`, sent as `Authorization: Bearer <token>`. Paste the token alone, without `Bearer`. "
            f"It is valid for {ACCESS_TOKEN_MINUTES} minutes."
        }


class CredentialsSerializer(serializers.Serializer[Any]):
    username = serializers.RegexField(User.username_validator.regex, max_length=User.username.field.max_length)
    password = serializers.RegexField(r"^[^\u0000]+$", max_length=PASSWORD_MAX_LENGTH)


class RefreshTokenSerializer(serializers.Serializer[Any]):
    refresh = serializers.RegexField(r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")


class TokensSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(
        help_text=f"JWT for `Authorization: Bearer`, valid for {ACCESS_TOKEN_MINUTES} minutes."
    )
    refresh = serializers.CharField(
        help_text=f"JWT for one exchange for new tokens within {jwt_settings.REFRESH_TOKEN_LIFETIME.days} days."
    )


_operation = partial(extend_schema, tags=["Accounts"])
_TOKENS = OpenApiResponse(TokensSerializer, examples=[OpenApiExample("Example", TOKENS)])


def _body(serializer: Any, example: Any) -> OpenApiRequest:
    return OpenApiRequest(serializer, examples=[OpenApiExample("Example", example)])


def _wrong(pointer: str, detail: str) -> list[OpenApiExample]:
    """Return an example of one entry of `errors` in a response 400. `pointer` is the JSON pointer to the field."""
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

describe_me = extend_schema_view(
    get=_operation(
        operation_id="getMe",
        summary="The caller's own account",
        responses={200: OpenApiResponse(MeSerializer, examples=[OpenApiExample("Example", ME)])},
    ),
    patch=_operation(
        operation_id="changeMe",
        summary="Change the caller's e-mail address, or turn e-mails on or off",
        description="A field that is missing stays as it is. Tokens remain valid.",
        request=_body(MeChangesSerializer, {"email": ME["email"], "emailNotifications": False}),
        responses={
            200: OpenApiResponse(MeSerializer, examples=[OpenApiExample("Example", ME | {"emailNotifications": False})])
        },
        examples=_wrong("/email", "Enter a valid email address."),
    ),
)


def add_first_steps(result: dict[str, Any], **context: Any) -> dict[str, Any]:
    """Begin the description in the OpenAPI document `result` with how to get and use a token.

    drf-spectacular calls this hook.
    """
    result["info"]["description"] = f"{_first_steps()}\n\n{result['info']['description']}"
    return result


def _first_steps() -> str:
    if settings.DEBUG:
        demo = ACCOUNTS[0]
        name, password = demo.name, demo.password
        account = f"""\
`make run` has an account to try it with: `{name}`, password `{password}`. Elsewhere, register one with
`POST /api/auth/register`."""
    else:
        # This site has no demo accounts.
        name, password = CREDENTIALS["username"], CREDENTIALS["password"]
        account = "Register an account with `POST /api/auth/register`. For one with these credentials:"
    return f"""\
## First steps: get a token, and use it

{account}

```bash
curl {EXAMPLE_SITE}/api/auth/token -H 'Content-Type: application/json' \\
  -d '{{"username":"{name}","password":"{password}"}}'
```

The answer has two tokens: `{{"access":"...","refresh":"..."}}`.

- On the page `/api/docs`: press **Authorize**, paste the value of `access` below *jwtAuth*, press *Authorize* there and
  *Close*. Then choose an operation, such as `POST /api/orders`, and press *Try it out* and *Execute*.
- In a program: send the header `Authorization: Bearer <access>`, such as
  `curl {EXAMPLE_SITE}/api/orders -H "Authorization: Bearer <access>"`.

After {ACCESS_TOKEN_MINUTES} minutes, or a 401, exchange the `refresh` token for new tokens with
`POST /api/auth/token/refresh`. It works once. Only `GET /metrics` has another token, *metricsToken*."""
