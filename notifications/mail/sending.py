"""Send deliveries through Django's e-mail backend, and judge what the mail server answers."""

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.models import User
from django.core.mail import get_connection
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from events.work.kinds import Act
from events.work.outcomes import Cancelled, Done, Failed, Outcome, ServiceUnavailable, TryAgain
from notifications.mail.composing import compose, composed
from notifications.models import EmailDelivery

SERVICE_CODES = {421, 530, 534, 535, 538}
"""SMTP codes about the connection or our authentication, and not about one mail (RFC 5321 and RFC 4954)."""


@contextmanager
def session() -> Iterator[Act[EmailDelivery]]:
    """Yield the function that sends one delivery. All deliveries of the session share one connection."""
    mailer = Mailer()
    try:
        yield mailer.send
    finally:
        mailer.close()


class Mailer:
    def __init__(self) -> None:
        self._backend = get_connection()

    def send(self, delivery: EmailDelivery) -> Outcome:
        """Send one mail, or say why it is not wanted or cannot be sent.

        Raises:
            ServiceUnavailable: the mail server is away, closes the connection, or refuses our authentication. If that
                happens after the message was handed over, the server may have taken it, and gets the same bytes again.
        """
        user = User.objects.filter(pk=delivery.notification.user_id).select_related("email_opt_out").first()
        if reason := _why_unwanted(user):
            return Cancelled(reason)
        try:
            if delivery.content is None:
                assert user is not None
                _freeze(delivery, address=user.email)
            self._send(delivery)
        except ValueError as error:
            return Failed(f"The message cannot be composed: {error}")
        except smtplib.SMTPRecipientsRefused as error:
            ((code, answer),) = error.recipients.values()
            return self._refused(code, answer)
        except smtplib.SMTPResponseException as error:
            return self._refused(error.smtp_code, error.smtp_error)
        except OSError as error:
            self.close()
            raise ServiceUnavailable(f"The connection to {self._server} failed: {error}") from error
        return Done()

    def _send(self, delivery: EmailDelivery) -> None:
        if isinstance(self._backend, SMTPBackend):
            self._connect(self._backend)
        self._backend.send_messages([composed(delivery, bytes(delivery.content or b""))])

    def _connect(self, backend: SMTPBackend) -> None:
        """Open the connection, also in place of one that the server has closed since the last mail."""
        try:
            if backend.connection is not None and backend.connection.noop()[0] != 250:
                self.close()
        except OSError:
            self.close()
        try:
            backend.open()
        except OSError as error:
            raise ServiceUnavailable(f"{self._server} is not available: {error}") from error

    def _refused(self, code: int, answer: bytes | str) -> Outcome:
        text = answer.decode(errors="backslashreplace") if isinstance(answer, bytes) else answer
        reason = f"{self._server} answered {code} {text}"
        if code in SERVICE_CODES:
            self.close()
            raise ServiceUnavailable(reason)
        return TryAgain(reason) if 400 <= code < 500 else Failed(reason)

    @property
    def _server(self) -> str:
        if isinstance(self._backend, SMTPBackend):
            return f"The mail server {self._backend.host}:{self._backend.port}"
        return "The mail backend"

    def close(self) -> None:
        self._backend.close()


def _why_unwanted(user: User | None) -> str:
    """Return why the user gets no mail, or an empty text."""
    if user is None or not user.is_active:
        return "The user's account was deleted or deactivated"
    if not user.email:
        return "The user has no e-mail address any more"
    if hasattr(user, "email_opt_out"):
        return "The user has turned e-mails off"
    return ""


def _freeze(delivery: EmailDelivery, *, address: str) -> None:
    """Compose the message and save it before it is sent, so that a second attempt can send the same bytes."""
    delivery.address = address
    delivery.content = compose(delivery)
    saved = EmailDelivery.objects.filter(pk=delivery.pk, lease=delivery.lease)
    if not saved.update(address=address, content=delivery.content):
        raise ServiceUnavailable(f"The lease of the delivery of notification {delivery.pk} ran out before it was sent")
