"""A mail server in trouble delays neither requests nor notifications. A waiting sender ends soon after SIGTERM."""

from collections.abc import Callable, Iterator
from statistics import median

import pytest

from testkit.database import rows
from testkit.mail.server import MailServer, Stage
from testkit.postgres import CrashingPostgres
from testkit.waiting import wait_until
from tests.faults.commands.test_endings_of_commands import CLEAN_EXIT, end
from tests.faults.conftest import CONSUME, Site, Start
from tests.faults.mail.mails import SEND, all_done, copies, has_polled, record_mails, sender_env
from tests.faults.oracle import Oracle
from tests.faults.short_lease import short_lease
from tests.faults.troubled_database import locked, waiting_for

DELIVERIES = "notifications_emaildelivery"
SILENT_STAGES: tuple[Stage, ...] = ("CONNECT", "EHLO", "MESSAGE", "QUIT")


@pytest.fixture
def silent_servers(site: Site) -> Iterator[dict[Stage, MailServer]]:
    """Start a mail server for each stage in `SILENT_STAGES`. Each server falls silent at its stage."""
    servers: dict[Stage, MailServer] = {stage: MailServer() for stage in SILENT_STAGES}
    for stage, server in servers.items():
        server.start()
        server.fail(stage, then="be silent")
    yield servers
    for server in servers.values():
        server.stop()


def test_senders_of_a_silent_or_refusing_server_end_in_time(
    server: MailServer, silent_servers: dict[Stage, MailServer], start: Start
) -> None:
    """A sender that starts later sends each mail that the ended senders had claimed, and sends it once."""
    addresses = record_mails(250)
    server.go_down()
    refused = start(*SEND, launcher=short_lease(), **sender_env(server))
    silenced = [start(*SEND, launcher=short_lease(), **sender_env(one)) for one in silent_servers.values()]
    wait_until(lambda: refused.says("No email for "))
    wait_until(lambda: all(one.commands[stage] for stage, one in silent_servers.items()))
    assert end(refused, *silenced) == [CLEAN_EXIT] * 5
    assert not any(process.says("Traceback") for process in (refused, *silenced))
    server.come_back()
    start(*SEND, launcher=short_lease(), **sender_env(server))
    wait_until(lambda: all_done(addresses))
    sent_before = [copies(one, addresses) for one in silent_servers.values()]
    assert [sum(each) for each in zip(copies(server, addresses), *sent_before, strict=True)] == [1] * 250


def test_idle_senders_end_at_once(server: MailServer, start: Start) -> None:
    with_server = start(*SEND, PGAPPNAME="idle", **sender_env(server))
    without = start(*SEND)
    wait_until(lambda: has_polled("idle"))
    wait_until(lambda: without.says("EMAIL_URL is not set, so notifications get no e-mails"))
    assert end(with_server, without, within=3) == [CLEAN_EXIT] * 2


def test_senders_without_a_database_end_in_time(server: MailServer, start: Start, postgres: CrashingPostgres) -> None:
    hanging = start(*SEND, **sender_env(server))
    with locked(DELIVERIES):
        wait_until(lambda: waiting_for(DELIVERIES))
        assert end(hanging) == [CLEAN_EXIT]
    record_mails(1)
    server.fail("MESSAGE", then="hold")
    recording = start(*SEND, **sender_env(server))
    wait_until(lambda: server.commands["MESSAGE"])
    waiting = start(*SEND, PGAPPNAME="waiting", **sender_env(server))
    wait_until(lambda: has_polled("waiting"))
    postgres.crash()
    server.release()
    wait_until(lambda: waiting.says("No email for ") and recording.says("Recording email again: "))
    assert end(waiting, recording) == [CLEAN_EXIT] * 2


def notification_delays(*, after: int) -> list[float]:
    """Return the seconds from each event to its notification, for the orders with ids above `after`, by order id."""
    sql = """
        SELECT extract(epoch FROM told.created_at - event.created_at)::float
        FROM notifications_notification AS told JOIN events_outboxevent AS event USING (event_id)
        WHERE told.order_id > %(after)s ORDER BY told.order_id
        """
    return [delay for (delay,) in rows(sql, after=after)]


def silent(server: MailServer) -> None:
    server.fail("MESSAGE", then="be silent")


def dead(server: MailServer) -> None:
    server.go_down()


@pytest.mark.idle
@pytest.mark.parametrize("trouble", [silent, dead])
def test_mail_trouble_delays_neither_requests_nor_notifications(
    site: Site, oracle: Oracle, server: MailServer, start: Start, trouble: Callable[[MailServer], None]
) -> None:
    rows("UPDATE auth_user SET email = username || '@example.com' WHERE email = ''")
    site.consumer.stop()
    start(*CONSUME, **sender_env(server))
    before = oracle.place_orders(site.web.url, 20)
    assert oracle.settle_and_compare().notifications == 20
    trouble(server)
    sender = start(*SEND, **sender_env(server))
    wait_until(lambda: server.commands["MESSAGE"] or sender.says("No email for "))
    during = oracle.place_orders(site.web.url, 40)
    wait_until(lambda: rows("SELECT count(*) FROM notifications_emaildelivery")[0][0] >= 60, timeout=10)
    assert oracle.settle_and_compare().notifications == 60
    assert median(during) < 2 * median(before) + 0.05
    delays = notification_delays(after=oracle.started_after)
    assert median(delays[20:]) < 2 * median(delays[:20]) + 0.2
    assert len(server.accepted) == 0
