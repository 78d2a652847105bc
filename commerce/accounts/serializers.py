import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, transaction
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer, TokenRefreshSerializer

from commerce.accounts.backends import normalized
from commerce.accounts.lockout import LockedOut, is_locked_out, seconds_locked
from commerce.accounts.names import NAME_TAKEN, validate_new_name
from commerce.accounts.tokens import OneUseRefreshToken
from notifications.mail.opting_out import set_wanted

PASSWORD_MAX_LENGTH = 128
"""Largest number of characters of a password. Hashing a longer one costs CPU without protecting more."""


class TextsSerializer(serializers.Serializer[Any]):
    """A serializer whose text fields reject numbers, which the REST framework would convert to strings."""

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


class UsernameField(serializers.CharField):
    """A username field that returns the NFKC form, because clients compose the same letters differently."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=150, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        return User.normalize_username(super().to_internal_value(data))


class NewPasswordField(serializers.CharField):
    """A password field that returns Unicode's NFKC form, so that validation and hash see the same text."""

    def __init__(self) -> None:
        super().__init__(max_length=PASSWORD_MAX_LENGTH, trim_whitespace=False, write_only=True)

    def to_internal_value(self, data: Any) -> str:
        return normalized(super().to_internal_value(data))


class EmailAddressField(serializers.EmailField):
    """A field that returns an e-mail address in NFKC form, because keyboards compose letters differently.

    The domain of the address is in lower case. null counts as an empty text, which means no address.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs |= {"max_length": User.email.field.max_length, "allow_blank": True, "allow_null": True}
        super().__init__(required=False, help_text="Empty: no address.", **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        return super().run_validation("" if data is None else data)

    def to_internal_value(self, data: Any) -> str:
        return User.objects.normalize_email(unicodedata.normalize("NFKC", super().to_internal_value(data)))


class JSONBooleanField(serializers.BooleanField):
    """A boolean field that rejects strings and numbers, which the REST framework would convert."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class RegistrationSerializer(TextsSerializer, serializers.ModelSerializer[User]):
    """Reads `{username, password, email?}` and returns `{id, username}`."""

    username = UsernameField(validators=[User.username_validator])
    password = NewPasswordField()
    email = EmailAddressField(write_only=True)

    class Meta:
        model = User
        fields = ("id", "username", "password", "email")

    def validate_username(self, name: str) -> str:
        validate_new_name(name)
        return name

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
            # Another request took the name after validate_username looked it up.
            raise serializers.ValidationError({"username": [NAME_TAKEN]}) from error


class MeSerializer(serializers.ModelSerializer[User]):
    """Returns `{id, username, email, emailNotifications}` of a user with the attribute `wants_emails`."""

    username = serializers.CharField(read_only=True)
    email = serializers.CharField(read_only=True, help_text="Empty: no address.")
    emailNotifications = serializers.BooleanField(
        read_only=True, source="wants_emails", help_text="Whether the caller gets e-mails at this address."
    )

    class Meta:
        model = User
        fields = ("id", "username", "email", "emailNotifications")


class MeChangesSerializer(TextsSerializer):
    """Reads `{email?, emailNotifications?}`."""

    email = EmailAddressField()
    emailNotifications = JSONBooleanField(required=False, source="wants_emails")

    def update(self, account: Any, validated_data: dict[str, Any]) -> User:
        if "email" in validated_data:
            account.email = validated_data["email"]
            account.save(update_fields=["email"])
        if "wants_emails" in validated_data:
            account.wants_emails = validated_data["wants_emails"]
            set_wanted(account.pk, wanted=account.wants_emails)
        return account


class LoginSerializer(TextsSerializer, TokenObtainPairSerializer):
    """Reads `{username, password}` and returns `{access, refresh}`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"] = UsernameField(write_only=True)
        self.fields["password"] = serializers.CharField(
            max_length=PASSWORD_MAX_LENGTH, trim_whitespace=False, write_only=True
        )

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        request = self.context["request"]
        try:
            tokens = super().validate(attrs)
        except AuthenticationFailed as error:
            if is_locked_out(request):
                raise LockedOut(wait=seconds_locked(request, attrs["username"])) from error
            raise
        # axes resets its count on the signal of django.contrib.auth.login, which the token login does not send.
        AxesProxyHandler.user_logged_in(sender=User, request=request, user=self.user)
        return tokens


class RefreshSerializer(TextsSerializer, TokenRefreshSerializer):
    token_class = OneUseRefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        try:
            tokens = super().validate(attrs)
            # The new tokens carry the password hash of the old one. get_user raises if the password has changed.
            authentication = JWTAuthentication()
            authentication.get_user(authentication.get_validated_token(tokens["access"].encode()))
            return tokens
        except get_user_model().DoesNotExist as error:
            raise AuthenticationFailed(self.error_messages["no_active_account"]) from error
