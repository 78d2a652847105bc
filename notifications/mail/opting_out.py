"""Links that turn a user's e-mails off without a login.

The signature proves that a link comes from a mail of ours. Links do not expire, because mails are kept for years.
"""

from django.conf import settings
from django.contrib.auth.models import User
from django.core.signing import BadSignature, Signer
from django.db import transaction
from django.urls import reverse

from notifications.models import EmailOptOut

_signer = Signer(salt="notifications.mail.opting_out")


def link_for(user_id: int) -> str:
    """Return the absolute URL of the page on which this user turns e-mails off. Each mail to the user links to it."""
    return settings.SITE_URL + reverse("email-opt-out", args=[_signer.sign(str(user_id))])


def user_of(token: str) -> int | None:
    """Return the user's id in the token of a link; None if this site has not signed the token."""
    try:
        return int(_signer.unsign(token))
    except BadSignature:
        return None


def set_wanted(user_id: int, *, wanted: bool) -> None:
    """Turn the user's e-mails on or off. This holds for mails that are recorded but not sent, too.

    Raises User.DoesNotExist.
    """
    # With the lock, another request cannot delete the user before the commit.
    with transaction.atomic():
        user = User.objects.select_for_update(no_key=True).only("pk").get(pk=user_id)
        if wanted:
            EmailOptOut.objects.filter(user=user).delete()
        else:
            EmailOptOut.objects.get_or_create(user=user)
