from typing import Any

from django.contrib.auth.models import User
from rest_framework.generics import CreateAPIView
from rest_framework.request import Request
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from commerce.accounts.schema import describe_login, describe_refresh, describe_register
from commerce.accounts.serializers import LoginSerializer, RefreshSerializer, RegistrationSerializer
from commerce.accounts.tokens import user_of_refresh_token
from commerce.api.throttling import RefreshThrottle, RegisterThrottle, Throttle, TokenThrottle


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
        """Return the token's user, or None if the token is not ours. The view rejects such a token without a write."""
        token = request.data.get("refresh") if isinstance(request.data, dict) else None
        user_id = user_of_refresh_token(token) if isinstance(token, str) else None
        return None if user_id is None else f"user {user_id}"


@describe_refresh
class RefreshView(TokenRefreshView):
    """Exchange a refresh token for new tokens. The old refresh token stops working."""

    throttle_classes = (RefreshThrottle, RefreshUserThrottle)
    serializer_class = RefreshSerializer
