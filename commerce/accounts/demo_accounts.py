"""The demo accounts of development, and the account that places the first order of `make run`."""

from typing import NamedTuple

from axes.models import AccessAttempt
from axes.utils import reset as unlock
from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import User
from django.db.models import Sum

from events.wire.timestamps import now


class Account(NamedTuple):
    name: str
    password: str
    email: str
    is_superuser: bool


ACCOUNTS = (
    Account("demo", "demo-password", "demo@example.com", is_superuser=False),
    Account("admin", "admin-password", "", is_superuser=True),
)
FALLBACK_USERNAME = "make run"
"""Name of the account that places the first order if `demo` is not active.

The name has a space, so no user can register it.
"""
RESTORE = ".venv/bin/python manage.py create_demo_accounts --restore"


def create() -> None:
    """Create the demo accounts that are missing. Existing accounts do not change."""
    for account in ACCOUNTS:
        if not User.objects.filter(username=account.name).exists():
            _give(account, User(username=account.name))


def restore() -> None:
    """Create missing demo accounts. Reset the passwords and rights of all demo accounts, and end their lockouts."""
    for account in ACCOUNTS:
        _give(account, User.objects.filter(username=account.name).first() or User(username=account.name))
        unlock(username=account.name)


def _give(account: Account, user: User) -> None:
    user.is_active = True
    user.is_staff = user.is_superuser = account.is_superuser
    if not User.objects.filter(email__iexact=account.email).exists():
        user.email = account.email
    user.set_password(account.password)
    user.save()


def describe() -> list[str]:
    """Return one line per demo account: its credentials, or why they do not work and which command repairs them."""
    return [_describe(account) for account in ACCOUNTS]


def _describe(account: Account) -> str:
    user = User.objects.get(username=account.name)
    if not user.is_active:
        state = "is deactivated"
    elif not check_password(account.password, user.password):
        state = "has a changed password"
    elif account.is_superuser and not (user.is_superuser and user.is_staff):
        state = "is not a superuser"
    elif _is_locked(account.name):
        state = f"is locked for up to {settings.AXES_COOLOFF_TIME.seconds // 60} minutes after wrong passwords"
    else:
        return f"{account.name} / {account.password}"
    return f"{account.name} {state}; to repair it, run {RESTORE}"


def _is_locked(name: str) -> bool:
    since = now() - settings.AXES_COOLOFF_TIME
    attempts = AccessAttempt.objects.filter(username=name, attempt_time__gt=since)
    by_address = attempts.values("ip_address").annotate(failures=Sum("failures_since_start"))
    return any(one["failures"] >= settings.AXES_FAILURE_LIMIT for one in by_address)


def customer() -> User:
    """Return the account that places the first order of `make run`.

    This is `demo` if it is active, else an account without a password, which is created or made active if necessary.
    """
    demo = User.objects.filter(username=ACCOUNTS[0].name, is_active=True).first()
    if demo is not None:
        return demo
    own, _ = User.objects.update_or_create(
        username=FALLBACK_USERNAME, defaults={"is_active": True}, create_defaults={"password": make_password(None)}
    )
    return own
