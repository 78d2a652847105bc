from typing import Any, cast

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Exists, OuterRef
from rest_framework.exceptions import NotFound
from rest_framework.generics import CreateAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from commerce.accounts.schema import describe_login, describe_me, describe_refresh, describe_register
from commerce.accounts.serializers import (
    LoginSerializer,
    MeChangesSerializer,
    MeSerializer,
    RefreshSerializer,
    RegistrationSerializer,
)
from commerce.accounts.tokens import user_of_refresh_token
from commerce.api.throttling import RefreshThrottle, RegisterThrottle, Throttle, TokenThrottle
from events.views import FreedAtOnce
from notifications.models import EmailOptOut


@describe_register
class RegisterView(CreateAPIView[User]):
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = (RegisterThrottle,)
    serializer_class = RegistrationSerializer


@describe_login
class LoginView(TokenObtainPairView):
    throttle_classes = (TokenThrottle,)
    serializer_class = LoginSerializer


class RefreshUserThrottle(Throttle):
    """A throttle that counts the refreshes of one user from all addresses together."""

    scope = "refresh"

    def client(self, request: Request) -> Any:
        """Return the client whose limit the request counts towards: the refresh token's user, as text such as "user 7".

        Return None for an invalid token, whose request is not counted for any user. The view rejects such a token
        without writing to the database.
        """
        token = request.data.get("refresh") if isinstance(request.data, dict) else None
        user_id = user_of_refresh_token(token) if isinstance(token, str) else None
        return None if user_id is None else f"user {user_id}"


@describe_refresh
class RefreshView(TokenRefreshView):
    """Exchange a refresh token for new tokens. The old refresh token stops working."""

    throttle_classes = (RefreshThrottle, RefreshUserThrottle)
    serializer_class = RefreshSerializer


@describe_me
class MeView(FreedAtOnce):
    """Endpoint for the caller's own account."""

    def get(self, request: Request) -> Response:
        return Response(MeSerializer(self._account()).data)

    @transaction.atomic
    def patch(self, request: Request) -> Response:
        changes = MeChangesSerializer(self._account(), data=request.data)
        changes.is_valid(raise_exception=True)
        return Response(MeSerializer(changes.save()).data)

    def _account(self) -> User:
        """Return the caller's account with the annotation `wants_emails`.

        Raise NotFound if the account was deleted during the request.
        """
        wants_emails = ~Exists(EmailOptOut.objects.filter(user=OuterRef("pk")))
        accounts = User.objects.annotate(wants_emails=wants_emails)
        account = accounts.filter(pk=cast(int, self.request.user.pk)).first()
        if account is None:
            raise NotFound
        return account
