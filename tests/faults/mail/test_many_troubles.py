"""The mails of 200 orders, while senders are killed and the mail server misbehaves."""

from collections import Counter
from typing import Any

from testkit.database import rows
from testkit.mail.server import MailServer, Stage
from testkit.processes import ProductProcess
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, Site, Start
from tests.faults.mail.mails import SEND, sender_env
from tests.faults.oracle import Oracle
from tests.faults.short_lease import short_lease

ORDERS = 200
TROUBLES: tuple[tuple[Stage, dict[str, Any]], ...] = (
    ("MESSAGE", {"then": "be silent", "times": 1}),
    ("MESSAGE", {"answer": "451 later", "times": 10}),
    ("ACCEPTED", {"then": "close", "times": 10}),
    ("MESSAGE", {"then": "be silent", "takes": True, "times": 1}),
    ("RCPT", {"answer": "450 greylisted", "times": 10}),
    ("MESSAGE", {"then": "reset", "takes": True, "times": 2}),
    ("CONNECT", {"answer": "421 busy", "then": "close", "times": 3}),
    ("DATA", {"answer": "354 out of step\n250 OK", "times": 2}),
)


def deliveries() -> list[tuple[str, str]]:
    """Return the event id and the state of each e-mail delivery."""
    return [
        (str(event_id), state)
        for event_id, state in rows(
            "SELECT event_id, state FROM notifications_emaildelivery"
            " JOIN notifications_notification AS n ON n.id = notification_id"
        )
    ]


def wait_for_progress(server: MailServer, sender: ProductProcess) -> None:
    """Wait until the sender has sent some mails, or pauses because of the mail server."""
    goal = min(len(server.accepted) + 15, ORDERS)
    wait_until(lambda: len(server.accepted) >= goal or sender.says("No email"))


def test_kills_and_a_bad_server_lose_no_mail(site: Site, oracle: Oracle, server: MailServer, start: Start) -> None:
    rows("UPDATE auth_user SET email = username || '@example.com' WHERE email = ''")
    site.consumer.stop()
    start(*CONSUME, **sender_env(server))
    oracle.place_orders(site.web.url, ORDERS, at_once=4)
    assert oracle.settle_and_compare().notifications == ORDERS
    assert len(deliveries()) == ORDERS

    victim = start(*SEND, launcher=short_lease(), **sender_env(server))
    for stage, fault in TROUBLES:
        server.fail(stage, **fault)
        wait_for_progress(server, victim)
        victim.kill()
        victim = start(*SEND, launcher=short_lease(), **sender_env(server))
    server.heal()
    wait_until(lambda: {state for _, state in deliveries()} == {"done"})

    contents: dict[str, set[bytes]] = {}
    copies: Counter[str] = Counter()
    for mail in server.accepted:
        message_id = str(mail.message["Message-ID"])
        copies[message_id] += 1
        contents.setdefault(message_id, set()).add(mail.content)
    assert contents.keys() == {f"<{event_id}@shop.example>" for event_id, _ in deliveries()}
    assert all(len(each) == 1 for each in contents.values())
    print(f"{len(copies)} mails, {copies.total() - len(copies)} second copies")
    assert copies.total() - len(copies) < ORDERS / 2
