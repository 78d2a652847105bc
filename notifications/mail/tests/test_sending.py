"""What becomes of a mail for every answer and fault of the mail server."""

import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from pytest_django import Settings

from events.work.models import LeasedWork
from events.work.outcomes import Done, Failed, ServiceUnavailable, TryAgain
from events.work.worker import CLAIM_AFTER_OUTAGE_S, Worker
from notifications.models import EmailDelivery
from notifications.work import EMAIL
from testkit.mail.deliveries import customer, delivery_to, let_pauses_pass, notify_at, send_due
from testkit.mail.server import Fault, MailServer, Stage

pytestmark = pytest.mark.django_db

State = LeasedWork.State


def outage() -> str:
    """Send all due mails. Check that sending raises ServiceUnavailable, and return its message."""
    with pytest.raises(ServiceUnavailable) as caught:
        send_due()
    return str(caught.value)


def test_one_connection_carries_many_mails(server: MailServer) -> None:
    addresses = {delivery_to().address for _ in range(20)}
    assert [type(outcome) for _, outcome in send_due()] == [Done] * 20
    assert {mail.connection for mail in server.accepted} == {1}
    assert sorted(mail.recipients[0] for mail in server.accepted) == sorted(addresses)
    assert {mail.sender for mail in server.accepted} == {"shop@shop.example"}
    assert send_due() == []
    assert EmailDelivery.objects.filter(state=State.DONE, last_error="", attempts=1, lease=None).count() == 20


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "MESSAGE"])
def test_5xx_fails_at_once_and_says_why(server: MailServer, stage: Stage) -> None:
    delivery = delivery_to()
    server.fail(stage, answer="550-5.7.1 refused\n550 for good: 없음")
    ((_, outcome),) = send_due()
    assert isinstance(outcome, Failed)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == (State.FAILED, 1)
    assert f"127.0.0.1:{server.port} answered 550 5.7.1 refused\nfor good: 없음" in delivery.last_error
    let_pauses_pass()
    assert send_due() == []
    assert server.accepted == []


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "MESSAGE"])
def test_4xx_is_tried_again_and_sent_once(server: MailServer, stage: Stage) -> None:
    delivery = delivery_to()
    server.fail(stage, answer="450 4.2.1 busy", times=2)
    for attempts in (1, 2):
        ((_, outcome),) = send_due()
        assert isinstance(outcome, TryAgain)
        delivery.refresh_from_db()
        assert (delivery.state, delivery.attempts) == (State.PENDING, attempts)
        assert "answered 450 4.2.1 busy" in delivery.last_error
        assert send_due() == []
        let_pauses_pass()
    send_due()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_error) == (State.DONE, "")
    assert len(server.accepted) == 1


def test_pauses_grow_to_half_an_hour(server: MailServer) -> None:
    delivery = delivery_to()
    server.fail("RCPT", answer="450 later")
    pauses = []
    for _ in range(12):
        send_due()
        row: Any = EmailDelivery.objects.annotate(pause=F("due_at") - Now()).get(pk=delivery.pk)
        pauses.append(row.pause.total_seconds())
        let_pauses_pass()
    # Half of a pause is random.
    longest = [min(30 * 2**number, 1800) for number in range(12)]
    assert all(limit * 0.5 - 5 < pause <= limit for pause, limit in zip(pauses, longest, strict=True))


@pytest.mark.parametrize("stage", ["RCPT", "DATA", "MESSAGE"])
@pytest.mark.parametrize("answer", ["550 no", "450 later", "354 what", "no number"])
def test_one_bad_address_holds_up_no_other_mail(server: MailServer, stage: Stage, answer: str) -> None:
    bad = delivery_to("bad@example.com")
    others = [delivery_to() for _ in range(5)]
    server.fail(stage, answer=answer, recipient="bad@example.com")
    for _ in range(3):
        with suppress(ServiceUnavailable):
            send_due()
    assert all(len(server.mails_to(other.address)) == 1 for other in others)
    assert EmailDelivery.objects.filter(state=State.DONE, attempts=1).count() == 5
    bad.refresh_from_db()
    assert bad.attempts == 1


OUTAGES: dict[str, tuple[Stage, dict[str, Any]]] = {
    "connection-refused-by-421": ("CONNECT", {"answer": "421 too busy"}),
    "connection-refused-by-554": ("CONNECT", {"answer": "554 no SMTP here"}),
    "no-smtp-at-all": ("CONNECT", {"answer": "HTTP/1.1 400 Bad Request", "then": "close"}),
    "closed-at-once": ("CONNECT", {"then": "close"}),
    "reset-at-once": ("CONNECT", {"then": "reset"}),
    "ehlo-refused": ("EHLO", {"answer": "502 no"}),
    "closed-at-ehlo": ("EHLO", {"then": "close"}),
    "421-at-mail": ("MAIL", {"answer": "421 shutting down", "then": "close"}),
    "authentication-needed": ("MAIL", {"answer": "530 authentication required"}),
    "421-at-rcpt": ("RCPT", {"answer": "421 shutting down", "then": "close"}),
    "closed-at-rcpt": ("RCPT", {"then": "close"}),
    "reset-at-rcpt": ("RCPT", {"then": "reset"}),
    "closed-at-data": ("DATA", {"then": "close"}),
    "421-at-data": ("DATA", {"answer": "421 shutting down", "then": "close"}),
    "closed-after-message": ("MESSAGE", {"then": "close"}),
    "reset-after-message": ("MESSAGE", {"then": "reset"}),
    "421-after-message": ("MESSAGE", {"answer": "421 shutting down", "then": "close"}),
    "no-answer-but-a-line": ("MESSAGE", {"answer": "nonsense"}),
}


@pytest.mark.parametrize(("stage", "fault"), OUTAGES.values(), ids=OUTAGES.keys())
def test_an_outage_costs_one_mail_an_attempt(server: MailServer, stage: Stage, fault: dict[str, Any]) -> None:
    for _ in range(5):
        delivery_to()
    server.fail(stage, **fault)
    assert outage().startswith(f"The mail server 127.0.0.1:{server.port} ")
    assert sorted(EmailDelivery.objects.pending().values_list("attempts", flat=True)) == [0, 0, 0, 0, 1]
    server.heal()
    assert len(send_due()) == 4
    let_pauses_pass()
    assert len(send_due()) == 1
    assert len(server.accepted) == len({mail.recipients[0] for mail in server.accepted}) == 5


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "MESSAGE", "RSET"])
def test_a_silent_server_is_an_outage(server: MailServer, settings: Settings, stage: Stage) -> None:
    settings.EMAIL_TIMEOUT = 0.3
    first = delivery_to()
    server.fail(stage, then="be silent")
    if stage == "RSET":
        # The connection is asked for before its second mail. It is then opened anew.
        delivery_to()
        send_due()
        assert [mail.connection for mail in server.accepted] == [1, 2]
        return
    assert "timed out" in outage()
    first.refresh_from_db()
    assert (first.state, first.attempts) == (State.PENDING, 1)
    server.heal()
    let_pauses_pass()
    send_due()
    assert len(server.accepted) == 1


def test_a_slow_server_gets_each_mail_once(server: MailServer, settings: Settings) -> None:
    settings.EMAIL_TIMEOUT = 1
    server.pause_per_byte_s = 0.002
    for _ in range(3):
        delivery_to()
    send_due()
    assert len(server.accepted) == 3


def test_a_server_that_trickles_while_opening_gets_no_mail(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifications.mail.sending.OPENING_S", 0.2)
    server.pause_per_byte_s = 0.005
    delivery_to()
    assert "took more than 0.2 s to open a connection" in outage()
    assert server.accepted == []


@pytest.mark.parametrize("stage", ["MAIL", "MESSAGE"])
def test_a_server_that_trickles_its_answer_is_cut_off(
    server: MailServer, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """Sending must not outlast the lease. Otherwise two senders would send the same mail at the same time."""
    monkeypatch.setattr("notifications.mail.sending.SENDING_S", 0.3)
    delivery_to()
    server.fail(stage, answer="250-" + "x" * 200, pause_per_byte_s=0.05)
    begun = time.monotonic()
    assert "Connection unexpectedly closed" in outage()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("stage", ["RSET", "QUIT"])
def test_a_server_that_trickles_between_mails_is_cut_off(
    server: MailServer, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    monkeypatch.setattr("notifications.mail.sending.OPENING_S", 0.3)
    monkeypatch.setattr("notifications.mail.sending.CLOSING_S", 0.3)
    for _ in range(2):
        delivery_to()
    server.fail(stage, answer="250-" + "x" * 200, pause_per_byte_s=0.05)
    begun = time.monotonic()
    with suppress(ServiceUnavailable):
        send_due()
    assert time.monotonic() - begun < 5
    server.heal()
    let_pauses_pass()
    send_due()
    assert len(server.accepted) == 2


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("moment", ["before the next mail", "right after 250"])
def test_a_connection_that_ends_between_mails_is_opened_anew(server: MailServer, then: Any, moment: str) -> None:
    for _ in range(7):
        delivery_to()
    if moment == "right after 250":
        server.fail("ACCEPTED", then=then)
    else:
        server.fail("RSET", then=then)
    results = send_due()
    assert [type(outcome) for _, outcome in results] == [Done] * 7
    assert sorted(mail.connection for mail in server.accepted) == list(range(1, 8))
    assert len({mail.recipients[0] for mail in server.accepted}) == 7


@pytest.mark.parametrize(
    "last", [Fault(then="close"), Fault(answer="421 enough mails", then="close"), Fault(answer="421 enough mails")]
)
def test_a_limit_of_mails_per_connection_loses_and_doubles_none(server: MailServer, last: Fault) -> None:
    for _ in range(7):
        delivery_to()
    server.mails_per_connection, server.after_last_mail = 2, last
    for _ in range(7):
        try:
            send_due()
        except ServiceUnavailable:
            let_pauses_pass()
    assert len(server.accepted) == len({mail.recipients[0] for mail in server.accepted}) == 7
    assert not EmailDelivery.objects.pending().exists()
    assert EmailDelivery.objects.filter(state=State.DONE).count() == 7


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_lost_answer_causes_a_second_mail_of_the_same_bytes(server: MailServer, then: Any) -> None:
    delivery_to()
    server.fail("MESSAGE", then=then, takes=True, times=1)
    outage()
    let_pauses_pass()
    send_due()
    first, second = server.accepted
    assert first.content == second.content
    assert first.message["Message-ID"]


@pytest.mark.parametrize("answer", ["500 what", "x" * 9000, ""])
def test_a_strange_end_of_the_connection_changes_nothing(server: MailServer, settings: Settings, answer: str) -> None:
    settings.EMAIL_TIMEOUT = 0.3
    delivery_to()
    server.fail("QUIT", answer=answer, then="go on" if answer else "be silent")
    assert [type(outcome) for _, outcome in send_due()] == [Done]


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "nowhere.invalid"])
def test_a_host_that_cannot_be_resolved_is_an_outage(server: MailServer, settings: Settings, host: str) -> None:
    settings.EMAIL_HOST = host
    delivery_to()
    assert f"{host}:{server.port} is not available: " in outage()
    assert EmailDelivery.objects.pending().count() == 1


def test_a_delivery_fails_with_its_last_error_after_its_deadline(server: MailServer) -> None:
    delivery = delivery_to()
    untried = delivery_to()
    server.fail("RCPT", answer="450 mailbox is locked", recipient=delivery.address)
    EmailDelivery.objects.filter(pk=untried.pk).update(deadline_at=Now())
    send_due()
    EmailDelivery.objects.filter(pk=delivery.pk).update(due_at=Now(), deadline_at=Now())
    send_due()
    delivery.refresh_from_db()
    untried.refresh_from_db()
    assert (delivery.state, untried.state) == (State.FAILED, State.FAILED)
    assert "450 mailbox is locked" in delivery.last_error
    assert untried.last_error == "Its deadline passed before the first attempt"
    assert server.accepted == []


def test_a_failed_delivery_can_be_sent_again(server: MailServer) -> None:
    delivery = delivery_to()
    server.fail("RCPT", answer="550 no such user", times=1)
    send_due()
    assert EmailDelivery.objects.all().try_again(within=timedelta(hours=1)) == 1
    send_due()
    delivery.refresh_from_db()
    assert delivery.state == State.DONE
    assert len(server.accepted) == 1


def test_a_user_who_changed_the_address_gets_the_mail_there(server: MailServer) -> None:
    user = customer("old@example.com")
    notify_at(user.pk)
    user.email = "new@example.com"
    user.save()
    send_due()
    assert [mail.recipients for mail in server.accepted] == [["new@example.com"]]


@pytest.mark.django_db(transaction=True)
def test_mails_go_out_as_soon_as_the_server_is_back(server: MailServer) -> None:
    deliveries = [delivery_to() for _ in range(10)]
    server.go_down()
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            server.come_back()

    worker = Worker(EMAIL, stopping=lambda: len(server.accepted) == 7, wait=wait)
    worker.run()
    assert len(pauses) == 3
    assert pauses[0] < pauses[2] <= 4
    # Each of the three failed attempts was one of another mail.
    assert sorted(row.attempts for row in EmailDelivery.objects.all()) == [1] * len(deliveries)
    let_pauses_pass()
    send_due()
    assert len(server.accepted) == len({mail.recipients[0] for mail in server.accepted}) == 10


@pytest.mark.django_db(transaction=True)
def test_nothing_is_claimed_in_the_first_second_after_an_outage(server: MailServer) -> None:
    """After the database's outage, another sender may still have to record a sent mail, even if its lease has ended."""
    delivery_to()
    port = connection.settings_dict["PORT"]
    connection.settings_dict["PORT"] = "1"
    connection.close()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        assert server.accepted == []
        connection.settings_dict["PORT"] = port

    Worker(EMAIL, stopping=lambda: len(server.accepted) == 1, wait=wait).run()
    outage, before_claim = waits
    assert 0.5 <= outage <= 1
    assert before_claim == CLAIM_AFTER_OUTAGE_S
