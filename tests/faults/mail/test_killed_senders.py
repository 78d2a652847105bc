"""Sending processes are killed, frozen or cut off from the database. Each mail is sent once, or again unchanged."""

import re
import time
from pathlib import Path

import httpx
import pytest

from testkit.mail.server import MailServer
from testkit.postgres import CrashingPostgres
from testkit.processes import free_port, is_frozen
from testkit.waiting import wait_until
from tests.faults.conftest import Start
from tests.faults.launcher import sabotage
from tests.faults.mail.mails import SEND, all_done, copies, has_polled, record_mails, sender_env, states
from tests.faults.places import BEFORE_SENDING, MAIL_RECORDED, MAIL_SENT
from tests.faults.short_lease import short_lease


@pytest.mark.parametrize("takes", [False, True])
def test_a_sender_killed_before_250_leaves_its_mails_to_another(
    server: MailServer, start: Start, *, takes: bool
) -> None:
    addresses = record_mails(20)
    server.fail("MESSAGE", then="be silent", takes=takes, times=1)
    victim = start(*SEND, launcher=short_lease(), **sender_env(server))
    wait_until(lambda: server.commands["MESSAGE"])
    victim.kill()
    server.heal()
    start(*SEND, launcher=short_lease(), **sender_env(server))
    wait_until(lambda: all_done(addresses))
    assert sorted(copies(server, addresses)) == [1] * 19 + [2 if takes else 1]


def test_a_sender_killed_after_250_causes_the_same_mail_again(server: MailServer, start: Start) -> None:
    addresses = record_mails(20)
    victim = start(*SEND, launcher=[*short_lease(), *sabotage("kill-before", MAIL_SENT)], **sender_env(server))
    wait_until(lambda: victim.process.poll() is not None)
    sent = len(server.accepted)
    assert 1 <= sent < 20
    start(*SEND, launcher=short_lease(), **sender_env(server))
    wait_until(lambda: all_done(addresses))
    assert sorted(copies(server, addresses)) == [1] * (20 - sent) + [2] * sent
    assert len({mail.message["Message-ID"] for mail in server.accepted}) == 20


def test_a_sender_killed_after_its_commit_causes_no_second_mail(server: MailServer, start: Start) -> None:
    addresses = record_mails(20)
    victim = start(*SEND, launcher=[*short_lease(), *sabotage("kill-after", MAIL_RECORDED)], **sender_env(server))
    wait_until(lambda: victim.process.poll() is not None)
    assert 1 <= states(addresses)["done"] < 20
    start(*SEND, launcher=short_lease(), **sender_env(server))
    wait_until(lambda: all_done(addresses))
    assert copies(server, addresses) == [1] * 20


def outcomes(port: int, outcome: str) -> float:
    """Return how often the sender with this metrics port has counted the outcome."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    (number,) = re.findall(rf'^email_deliveries_total\{{outcome="{outcome}"\}} (\S+)$', text, re.MULTILINE)
    return float(number)


def test_two_senders_send_no_mail_twice(server: MailServer, start: Start) -> None:
    addresses = record_mails(300)
    ports = [free_port(), free_port()]
    for port in ports:
        start(*SEND, f"--metrics-port={port}", **sender_env(server))
    wait_until(lambda: all_done(addresses))
    assert copies(server, addresses) == [1] * 300
    sent = [outcomes(port, "done") for port in ports]
    assert (min(sent) > 0, sum(sent)) == (True, 300)


def test_a_database_away_beyond_a_lease_doubles_no_mail(
    server: MailServer, start: Start, postgres: CrashingPostgres, tmp_path: Path
) -> None:
    """The sender updates its liveness file during the outage, too.

    Otherwise a supervisor would kill the sender before it could record that the mail was sent.
    """
    addresses = record_mails(5)
    alive = tmp_path / "alive"
    server.fail("MESSAGE", then="hold", times=1)
    holder = start(*SEND, f"--liveness-file={alive}", launcher=short_lease(seconds=20), **sender_env(server))
    wait_until(lambda: server.commands["MESSAGE"])
    start(*SEND, launcher=short_lease(), PGAPPNAME="waiting", **sender_env(server))
    wait_until(lambda: has_polled("waiting"))
    leased_until = time.monotonic() + 20
    postgres.crash()
    server.release()
    wait_until(lambda: holder.says("Recording email again: "))
    touched = alive.stat().st_mtime
    wait_until(lambda: alive.stat().st_mtime > touched)
    wait_until(lambda: time.monotonic() > leased_until)
    postgres.start()
    wait_until(lambda: all_done(addresses))
    assert copies(server, addresses) == [1] * 5


@pytest.mark.parametrize(("place", "mails"), [(BEFORE_SENDING, 1), (MAIL_SENT, 2)])
def test_a_sender_frozen_beyond_its_lease_is_refused(server: MailServer, start: Start, place: str, mails: int) -> None:
    """A sender that was frozen before it handed the mail over does not send it any more."""
    addresses = record_mails(1)
    port = free_port()
    frozen = start(
        *SEND,
        f"--metrics-port={port}",
        launcher=[*short_lease(), *sabotage("freeze-before", place)],
        **sender_env(server),
    )
    wait_until(lambda: is_frozen(frozen.family()[0]))
    start(*SEND, launcher=short_lease(), **sender_env(server))
    wait_until(lambda: all_done(addresses))
    frozen.thaw()
    wait_until(lambda: frozen.says("outlived its lease, so its outcome is not recorded"))
    assert outcomes(port, "lost") == 1
    assert copies(server, addresses) == [mails]
    assert all_done(addresses)
    more = record_mails(3)
    wait_until(lambda: all_done(more))
    assert frozen.stop() == 0
