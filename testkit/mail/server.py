"""An SMTP server that records the mails it accepts, and whose faults a test switches on and off."""
# ruff: noqa: N802 - aiosmtpd finds methods by the names of commands

import asyncio
import socket
import ssl
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import quote

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from testkit.proxy import HOST, bound_socket

CONTROL_TIMEOUT_S = 10
"""Seconds that switching a fault on or off may take."""

Stage = Literal["CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "MESSAGE", "ACCEPTED", "RSET", "QUIT"]
"""The point of an SMTP connection at which a fault strikes: the command with this name, or

- CONNECT: before the greeting
- MESSAGE: after the message and before the answer to it
- ACCEPTED: right after the server has answered the message with 250
"""
Security = Literal["none", "starttls", "tls"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the server does in place of its usual answer to a command or a message."""

    answer: str = ""
    """Lines that the server sends when the fault strikes, such as `550 no such user`."""
    pause_per_byte_s: float = 0
    then: Literal["go on", "hold", "be silent", "close", "reset"] = "go on"
    """What the server does after `answer`. With `hold`, its usual answer follows when the test calls `release`."""
    takes: bool = False
    """Whether the server accepts the message although its client gets no 250. Only for the stage MESSAGE."""
    times: float = float("inf")
    """Largest number of times that the fault strikes."""
    recipient: str = ""
    """If set, the fault strikes only mails to this address."""


class Accepted(NamedTuple):
    """A mail that the server has accepted."""

    connection: int
    """Number of the connection that brought the mail, from 1."""
    sender: str
    recipients: Sequence[str]
    content: bytes
    was_encrypted: bool

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.content, _class=EmailMessage, policy=policy.default)


class MailServer:
    """Serves SMTP in a separate thread. All faults can be switched on and off during the traffic."""

    def __init__(
        self, *, security: Security = "none", login: tuple[str, str] | None = None, host_of_certificate: str = HOST
    ) -> None:
        self.security = security
        self.login = login
        self.authority = trustme.CA()
        """The authority that signed the server's certificate."""
        self.tls: ssl.SSLContext | None = None
        if security != "none":
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(host_of_certificate).configure_cert(self.tls)
        self.accepted: list[Accepted] = []
        self.commands: Counter[Stage] = Counter()
        """How often clients have reached each stage."""
        self.connections_made = 0
        self.faults: dict[Stage, list[Fault]] = defaultdict(list)
        self.mails_per_connection: float = float("inf")
        """After this number of mails on a connection, the server does `after_last_mail` instead of accepting more."""
        self.after_last_mail = Fault(then="close")
        self.released = asyncio.Event()
        self.pause_per_byte_s = 0.0
        """Seconds that the server pauses before each byte of an answer."""
        # This socket is bound and never listens: it reserves the port while connections are refused.
        self._reservation = bound_socket(0)
        self.port: int = self._reservation.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail-server", daemon=True)
        self._listener: asyncio.Server | None = None
        self._conversations: set[Conversation] = set()

    @property
    def url(self) -> str:
        """The EMAIL_URL of the server."""
        scheme = {"none": "smtp", "starttls": "smtp+tls", "tls": "smtp+ssl"}[self.security]
        login = ":".join(quote(part, safe="") for part in self.login) + "@" if self.login else ""
        return f"{scheme}://{login}{HOST}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        self.come_back()

    def stop(self) -> None:
        self.go_down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_TIMEOUT_S)
        self._loop.close()
        self._reservation.close()

    def go_down(self) -> None:
        """Refuse new connections, and break the open ones."""
        self._do(self._refuse())

    def come_back(self) -> None:
        self._do(self._listen())

    def fail(self, stage: Stage, **fault: Any) -> None:
        """Make the server fail at this stage until `heal`. The fields of a `Fault`, in `fault`, say how."""
        self.faults[stage].append(Fault(**fault))

    def heal(self) -> None:
        """End every fault. A connection on which the server is silent is closed.

        An answer that `then="hold"` holds back still waits for `release`.
        """
        self.faults.clear()
        self.mails_per_connection = float("inf")
        self.pause_per_byte_s = 0.0
        self._do(self._close_silent())
        self.come_back()

    def fault_at(self, stage: Stage, recipients: Sequence[str]) -> Fault | None:
        """Return the fault that strikes at this stage now; None without one.

        Count the arrival at the stage, and the strike of the returned fault.
        """
        self.commands[stage] += 1
        for position, fault in enumerate(self.faults[stage]):
            if fault.times > 0 and fault.recipient in ("", *recipients):
                self.faults[stage][position] = Fault(**{**vars(fault), "times": fault.times - 1})
                return fault
        return None

    def mails_to(self, address: str) -> list[Accepted]:
        return [mail for mail in self.accepted if address in mail.recipients]

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=(given.login.decode(), given.password.decode()) == self.login, handled=False)

    async def handle_DATA(self, conversation: SMTP, session: Session, envelope: Envelope) -> str:
        """Handle a message. aiosmtpd calls this method by its name."""
        assert isinstance(conversation, Conversation)
        return await conversation.answer_to_message(envelope)

    def _do(self, switch: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(switch, self._loop).result(CONTROL_TIMEOUT_S)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await self._loop.create_server(
                lambda: Conversation(self, self._conversations),
                sock=bound_socket(self.port),
                ssl=self.tls if self.security == "tls" else None,
            )

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for conversation in list(self._conversations):
            conversation.reset()

    def release(self) -> None:
        """Send the answers that faults with `then="hold"` hold back. Later faults of this kind hold nothing back."""
        self._loop.call_soon_threadsafe(self.released.set)

    async def _close_silent(self) -> None:
        for conversation in list(self._conversations):
            if conversation.is_silent:
                conversation.close()


class Conversation(SMTP):
    """One connection of a client to the server."""

    def __init__(self, server: MailServer, conversations: "set[Conversation]") -> None:
        super().__init__(
            server,
            hostname="mail.test",
            tls_context=server.tls if server.security == "starttls" else None,
            require_starttls=server.security == "starttls",
            # Over implicit TLS, aiosmtpd does not know that the connection is secure.
            auth_require_tls=False,
            authenticator=server.authenticate,
            auth_exclude_mechanism=() if server.login else ("PLAIN", "LOGIN"),
            loop=asyncio.get_running_loop(),
        )
        self._server = server
        self._conversations = conversations
        server.connections_made += 1
        self._number = server.connections_made
        self._mails = 0
        self._was_greeted = False
        self.is_silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self not in self._conversations:
            self._conversations.add(self)
            self._socket = transport.get_extra_info("socket")
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._conversations.discard(self)
        super().connection_lost(error)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """Close the connection at once with RST, by a linger time of 0 (SO_LINGER in socket(7))."""
        # After a failed TLS handshake, aiosmtpd has a transport whose socket is closed.
        if self.transport is not None and self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(AttributeError):
                cast(asyncio.Transport, self.transport).abort()

    async def push(self, status: str | bytes) -> None:
        if not self._was_greeted:
            self._was_greeted = True
            if await self._fails("CONNECT"):
                return
        await self._write(status.encode() if isinstance(status, str) else status, self._server.pause_per_byte_s)

    async def _write(self, line: bytes, pause_per_byte_s: float) -> None:
        if not pause_per_byte_s:
            await super().push(line)
            return
        for byte in line + b"\r\n":
            await asyncio.sleep(pause_per_byte_s)
            self._writer.write(bytes([byte]))

    async def _fails(self, stage: Stage) -> bool:
        """Do what the fault of this stage says. Return whether the fault replaces the usual answer."""
        recipients = self.envelope.rcpt_tos if self.envelope else []
        return await self._commit(self._server.fault_at(stage, recipients))

    async def _commit(self, fault: Fault | None) -> bool:
        if fault is None:
            return False
        if fault.answer:
            for line in fault.answer.splitlines():
                await self._write(line.encode(), fault.pause_per_byte_s)
        if fault.then == "hold":
            await self._server.released.wait()
            return False
        if fault.then == "close":
            self.close()
        elif fault.then == "reset":
            self.reset()
        if fault.then != "go on":
            # The end of the connection cancels this wait.
            self.is_silent = True
            await asyncio.Event().wait()
        return True

    async def smtp_EHLO(self, hostname: str) -> None:
        if not await self._fails("EHLO"):
            await super().smtp_EHLO(hostname)

    async def smtp_HELO(self, hostname: str) -> None:
        if not await self._fails("EHLO"):
            await super().smtp_HELO(hostname)

    async def smtp_AUTH(self, arg: str) -> None:
        if not await self._fails("AUTH"):
            await super().smtp_AUTH(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:
        if self._mails >= self._server.mails_per_connection and await self._commit(self._server.after_last_mail):
            return
        if self._server.login and not (self.session and self.session.authenticated):
            await self.push("530 5.7.0 Authentication required")
        elif not await self._fails("MAIL"):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        assert arg is not None
        fault = self._server.fault_at("RCPT", [arg.partition("<")[2].rpartition(">")[0]])
        if not await self._commit(fault):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: str) -> None:
        if await self._fails("DATA"):
            return
        before = self._mails
        await super().smtp_DATA(arg)
        if self._mails > before:
            await self._fails("ACCEPTED")

    async def smtp_RSET(self, arg: str) -> None:
        if not await self._fails("RSET"):
            await super().smtp_RSET(arg)

    async def smtp_QUIT(self, arg: str) -> None:
        if not await self._fails("QUIT"):
            await super().smtp_QUIT(arg)

    async def answer_to_message(self, envelope: Envelope) -> str:
        """Record the message unless a fault prevents that. Return the server's answer to the message."""
        fault = self._server.fault_at("MESSAGE", envelope.rcpt_tos)
        if fault is not None and fault.then == "hold":
            await self._commit(fault)
            fault = None
        if fault is None or fault.takes:
            assert isinstance(envelope.content, bytes)
            mail = Accepted(
                self._number,
                envelope.mail_from or "",
                envelope.rcpt_tos,
                envelope.content,
                was_encrypted=self.transport is not None and self.transport.get_extra_info("sslcontext") is not None,
            )
            self._server.accepted.append(mail)
            self._mails += 1
        if fault is None:
            return "250 OK"
        if fault.then == "go on" and not fault.pause_per_byte_s:
            return fault.answer
        await self._commit(fault)
        raise AssertionError("the end of the connection cancels the answer")
