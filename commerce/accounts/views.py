from django.contrib.auth.models import User
from rest_framework.generics import CreateAPIView
from rest_framework_simplejwt.views import TokenRefreshView

from commerce.accounts.serializers import RefreshSerializer, RegistrationSerializer


class RegisterView(CreateAPIView[User]):
    authentication_classes = ()
    permission_classes = ()
    serializer_class = RegistrationSerializer


class RefreshView(TokenRefreshView):
    """New tokens for a refresh token, which is dead afterwards."""

    serializer_class = RefreshSerializer
