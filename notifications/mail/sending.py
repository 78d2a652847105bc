"""Send deliveries through Django's e-mail backend, and judge what the mail server answers."""

import smtplib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import get_connection
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.db.models.functions import Now

from events.work.kinds import Act
from events.work.outcomes import Cancelled, Done, Failed, Outcome, ServiceUnavailable, TryAgain
from notifications.mail.composing import compose, composed
from notifications.mail.cutting import cut_after
from notifications.models import EmailDelivery

SERVICE_CODES = {421, 530, 534, 535, 538}
"""SMTP codes about the connection or this client's login, and not about one mail (RFC 5321 and RFC 4954)."""
OPENING_S, SENDING_S, CLOSING_S = 60, 60, 10
"""Longest times of opening a connection, of sending one mail, and of closing the connection, in seconds. EMAIL_TIMEOUT
alone limits none of them: it begins anew with each answer of the server, and even with each byte of an answer. Opening
is not cut off: its time is checked when it ends. Closing a connection that could not be opened is not limited."""


@contextmanager
def session() -> Iterator[Act[EmailDelivery]]:
    """Yield the function that sends one e-mail delivery. All deliveries of this block share one connection."""
    mailer = Mailer()
    try:
        yield mailer.send
    finally:
        mailer.close()


class Mailer:
    def __init__(self) -> None:
        self._backend = get_connection()

    def send(self, delivery: EmailDelivery) -> Outcome:
        """Send one mail, and return Done; otherwise return the outcome that says why it was not sent.

        Raises:
            ServiceUnavailable: the mail server is away, closes the connection, or refuses the login; or the settings
                turn e-mails off, or the lease of the delivery has ended. A server that has got the message may have
                accepted it nevertheless. The next attempt sends the same bytes.
        """
        if not settings.EMAIL_ENABLED:
            raise ServiceUnavailable("EMAIL_URL is not set: set it to a mail server")
        user = User.objects.filter(pk=delivery.notification.user_id).select_related("email_opt_out").first()
        if reason := _why_unwanted(user):
            return Cancelled(reason)
        try:
            if delivery.content is None:
                assert user is not None
                delivery.address = user.email
                delivery.content = compose(delivery)
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
            raise ServiceUnavailable(f"{self._server} failed: {error}") from error
        return Done()

    def _send(self, delivery: EmailDelivery) -> None:
        message = composed(delivery)
        if not isinstance(self._backend, SMTPBackend):
            _confirm(delivery)
            self._backend.send_messages([message])
            return
        connection = self._open(self._backend)
        _confirm(delivery)
        with cut_after(SENDING_S, connection.sock):
            self._backend.send_messages([message])

    def _open(self, backend: SMTPBackend) -> smtplib.SMTP:
        """Return an open connection to the mail server. Replace one that the server has closed since the last mail.

        The command RSET shows whether an open connection still works. It also makes the server drop the last mail, if
        the server has refused the sender or the recipient.

        Raises ServiceUnavailable if no connection can be opened.
        """
        begun = time.monotonic()
        if connection := backend.connection:
            try:
                with cut_after(OPENING_S, connection.sock):
                    code, _ = connection.rset()
            except OSError:
                code = None
            if code != 250:
                self.close()
        try:
            backend.open()
            assert backend.connection is not None
            # Otherwise smtplib sends EHLO with the first mail, and a refusal of EHLO would count for this mail.
            backend.connection.ehlo_or_helo_if_needed()
        except smtplib.SMTPAuthenticationError as error:
            raise ServiceUnavailable(
                f"{self._server} refuses the user and password of EMAIL_URL: {_words(error)}"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise ServiceUnavailable(
                f"{self._server} has a certificate that cannot be trusted ({error.verify_message.rstrip('.')}): "
                "correct the host in EMAIL_URL, or name the file of the server's authority in SSL_CERT_FILE"
            ) from error
        # smtplib raises ValueError for a host or a password that it cannot encode.
        except (OSError, ValueError) as error:
            raise ServiceUnavailable(f"{self._server} is not available: {_words(error)}") from error
        if time.monotonic() > begun + OPENING_S:
            self.close()
            raise ServiceUnavailable(f"{self._server} took more than {OPENING_S} s to open a connection")
        return backend.connection

    def _refused(self, code: int, answer: bytes | str) -> Outcome:
        reason = f"{self._server} answered {code} {_text(answer)}"
        # Any other code than 4xx and 5xx is no answer to our command, so client and server are out of step.
        if code in SERVICE_CODES or not 400 <= code <= 599:
            self.close()
            raise ServiceUnavailable(reason)
        return TryAgain(reason) if code < 500 else Failed(reason)

    @property
    def _server(self) -> str:
        if isinstance(self._backend, SMTPBackend):
            return f"The mail server {self._backend.host}:{self._backend.port}"
        return "The mail backend"

    def close(self) -> None:
        connection = self._backend.connection if isinstance(self._backend, SMTPBackend) else None
        # The server has answered for every mail, so a connection that fails now loses nothing.
        with suppress(OSError), cut_after(CLOSING_S, connection.sock if connection else None):
            self._backend.close()


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered {error.smtp_code} {_text(error.smtp_error)}"
    return str(error)


def _text(answer: bytes | str) -> str:
    return answer.decode(errors="backslashreplace") if isinstance(answer, bytes) else answer


def _why_unwanted(user: User | None) -> str:
    """Return why the user gets no e-mails; an empty text if the user gets them."""
    if user is None or not user.is_active:
        return "The user's account was deleted or deactivated"
    if not user.email:
        return "The user has no e-mail address any more"
    if hasattr(user, "email_opt_out"):
        return "The user has turned e-mails off"
    return ""


def _confirm(delivery: EmailDelivery) -> None:
    """Confirm that this process still has the lease of the delivery, and save the address and the message.

    A second attempt then sends the same bytes. Raises ServiceUnavailable after the end of the lease, for example in a
    process that was frozen. Another sender may have the delivery by then.
    """
    leased = EmailDelivery.objects.filter(pk=delivery.pk, lease=delivery.lease, due_at__gt=Now())
    if not leased.update(address=delivery.address, content=delivery.content):
        raise ServiceUnavailable(f"The lease of the delivery of notification {delivery.pk} ran out before it was sent")
