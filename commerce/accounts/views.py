from django.contrib.auth.models import User
from rest_framework.generics import CreateAPIView
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from commerce.accounts.serializers import LoginSerializer, RefreshSerializer, RegistrationSerializer
from commerce.api.throttling import RegisterThrottle, TokenThrottle


class RegisterView(CreateAPIView[User]):
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = (RegisterThrottle,)
    serializer_class = RegistrationSerializer


class LoginView(TokenObtainPairView):
    throttle_classes = (TokenThrottle,)
    serializer_class = LoginSerializer


class RefreshView(TokenRefreshView):
    """New tokens for a refresh token, which is dead afterwards."""

    serializer_class = RefreshSerializer
