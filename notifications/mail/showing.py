"""The message of an e-mail delivery as admin shows it to staff."""

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import NamedTuple

from django.contrib.auth.models import User
from django.urls import reverse

from notifications.mail.composing import compose
from notifications.models import EmailDelivery

# With this policy, the document of a mail loads nothing and runs nothing, whatever the page around it may do.
_NOTHING_BUT_STYLES = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


class Shown(NamedTuple):
    """The parts of an e-mail message that admin shows, as text."""

    headers: str
    text: str
    html: str
    """An HTML document that loads nothing from anywhere."""


def show(delivery: EmailDelivery) -> Shown:
    """Return the stored message of the delivery. If none is stored, compose it as the next attempt would.

    An attempt stores the message before it sends it. If an operator sends a failed e-mail again, the stored message is
    deleted, and the next attempt composes a new one.

    The links that turn e-mails off are shown without their tokens, because anyone who has a token can turn the user's
    e-mails off.

    Raises:
        ValueError: the message cannot be composed, so it would not be sent.
    """
    content = bytes(delivery.content) if delivery.content else compose(_before_first_attempt(delivery))
    message = message_from_bytes(content, policy=policy.default)
    headers = "\n".join(f"{name}: {value}" for name, value in message.items())
    text, html = (_body(message, kind) for kind in ("plain", "html"))
    return Shown(_without_token(headers), _without_token(text), _NOTHING_BUT_STYLES + _without_token(html))


def _before_first_attempt(delivery: EmailDelivery) -> EmailDelivery:
    """Return an unsaved copy of the delivery, from which to compose the message that the first attempt would send.

    Its address is the user's current one, or the delivery's own if the user has none.
    """
    addresses = User.objects.filter(pk=delivery.notification.user_id).exclude(email="")
    copy = EmailDelivery.objects.select_related("notification").get(pk=delivery.pk)
    copy.address = addresses.values_list("email", flat=True).first() or delivery.address
    return copy


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    content = part.get_payload(decode=True) if part else b""
    return content.decode(errors="replace") if isinstance(content, bytes) else ""


def _without_token(text: str) -> str:
    path = re.escape(reverse("email-opt-out", args=["-"]).removesuffix("-"))
    return re.sub(rf"({path})[^\s<>\"']++", r"\1…", text)
