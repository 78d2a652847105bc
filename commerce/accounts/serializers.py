from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, transaction
from rest_framework import serializers
from rest_framework.validators import UniqueValidator
from rest_framework_simplejwt.exceptions import AuthenticationFailed, TokenError
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer, TokenRefreshSerializer
from rest_framework_simplejwt.tokens import RefreshToken

NAME_TAKEN = "A user with that name already exists."


class TextsSerializer(serializers.Serializer[Any]):
    """Takes strings alone for texts, where the REST framework would make one of a number."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            numbers = [
                name
                for name, field in self.fields.items()
                if isinstance(field, serializers.CharField) and isinstance(data.get(name), int | Decimal)
            ]
            if numbers:
                raise serializers.ValidationError({name: ["Not a valid string."] for name in numbers})
        return super().to_internal_value(data)


class RegistrationSerializer(TextsSerializer, serializers.ModelSerializer[User]):
    """`{username, password, email?}`; answers `{id, username}`."""

    username = serializers.CharField(
        max_length=150,
        validators=[User.username_validator, UniqueValidator(User.objects.all(), message=NAME_TAKEN)],
    )
    password = serializers.CharField(max_length=128, trim_whitespace=False, write_only=True)
    email = serializers.EmailField(max_length=254, required=False, write_only=True)

    class Meta:
        model = User
        fields = ("id", "username", "password", "email")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        unsaved = User(username=attrs["username"], email=attrs.get("email", ""))
        try:
            validate_password(attrs["password"], unsaved)
        except DjangoValidationError as error:
            raise serializers.ValidationError({"password": error.messages}) from error
        return attrs

    def create(self, validated_data: dict[str, Any]) -> User:
        try:
            with transaction.atomic():
                return User.objects.create_user(**validated_data)
        except IntegrityError as error:
            # Somebody took the name after it was looked up.
            raise serializers.ValidationError({"username": [NAME_TAKEN]}) from error


class OneUseRefreshToken(RefreshToken):
    """A refresh token of which two parallel uses have one winner."""

    def blacklist(self) -> Any:
        found: Any = super().blacklist()
        _, created = found
        if not created:
            raise TokenError("Token is blacklisted")
        return found


class LogInSerializer(TextsSerializer, TokenObtainPairSerializer):
    pass


class RefreshSerializer(TextsSerializer, TokenRefreshSerializer):
    token_class = OneUseRefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        try:
            return super().validate(attrs)
        except get_user_model().DoesNotExist as error:
            raise AuthenticationFailed(str(self.error_messages["no_active_account"])) from error
