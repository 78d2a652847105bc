"""The message of an e-mail delivery, in plain text and HTML.

The first attempt to send it composes it, and each further attempt sends the same bytes. If an operator sends a failed
e-mail again, its message is composed anew.
"""

from email import message_from_bytes
from email.charset import BASE64, Charset
from email.message import Message
from email.utils import format_datetime
from typing import Any, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string

from notifications.mail.opting_out import link_for
from notifications.models import EmailDelivery

# With this charset, a message has only ASCII, so that every mail server passes it on without changing it.
_ASCII_ONLY = Charset("utf-8")
_ASCII_ONLY.body_encoding = BASE64


def compose(delivery: EmailDelivery) -> bytes:
    """Return the bytes of the message of an e-mail delivery, with lines that end in LF.

    The Message-ID contains the event's id, so it is the same in all messages about one notification.

    Raises:
        ValueError: the delivery's address is not an e-mail address.
    """
    # Django would take `Name <name@example.com>`, too, and encode what stands before the @ into another mailbox.
    try:
        validate_email(delivery.address)
    except ValidationError as error:
        raise ValueError(f"{delivery.address!r} is not an e-mail address") from error
    return _email(delivery).message().as_bytes()


def composed(delivery: EmailDelivery) -> EmailMessage:
    """Return the delivery's stored message for Django's e-mail backends, which change only its line ends."""
    content = bytes(delivery.content or b"")
    email: Any = EmailMessage(to=[delivery.address])
    frozen = message_from_bytes(content, _class=_Frozen)
    frozen.content = content
    email.message = lambda: frozen
    return cast(EmailMessage, email)


def _email(delivery: EmailDelivery) -> EmailMultiAlternatives:
    notification = delivery.notification
    opt_out = link_for(notification.user_id)
    words = {"subject": delivery.subject, "text": delivery.text, "opt_out": opt_out}
    email = EmailMultiAlternatives(
        subject=delivery.subject,
        body=render_to_string("notifications/email.txt", words),
        to=[delivery.address],
        headers={
            "Message-ID": f"<{notification.event_id}@{_host()}>",
            "Date": format_datetime(delivery.created_at),
            "Auto-Submitted": "auto-generated",
            "List-Unsubscribe": f"<{opt_out}>",
            # RFC 8058: a mail program may send this as a POST request to the link.
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
    )
    email.encoding = _ASCII_ONLY
    email.attach_alternative(render_to_string("notifications/email.html", words), "text/html")
    return email


def _host() -> str:
    """Return this site's host for the right side of a Message-ID. An IPv6 address gets brackets (RFC 5322)."""
    host = urlsplit(settings.SITE_URL).hostname or ""
    return f"[{host}]" if ":" in host else host


class _Frozen(Message):
    """A message that is written as the bytes of `content`. Only the line ends are chosen by the e-mail backend."""

    content: bytes

    def as_bytes(self, unixfrom: bool = False, linesep: str = "\n") -> bytes:  # type: ignore[override]  # noqa: FBT001, FBT002
        return self.content.replace(b"\n", linesep.encode())
