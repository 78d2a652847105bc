"""Admin of e-mails: their list, the mail as it is sent, and the action to send failed ones again."""

import html
import re
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events.work.models import LeasedWork
from notifications.admin import EmailDeliveryAdmin
from notifications.mail.composing import compose
from notifications.mail.opting_out import link_for
from notifications.models import EmailDelivery, Notification
from testkit.factories import EmailDeliveryFactory, NotificationFactory, UserFactory

pytestmark = pytest.mark.django_db

EMAILS = "/admin/notifications/emaildelivery/"


@pytest.fixture
def user() -> User:
    return UserFactory.create(pk=10**7, email="mina@example.com")


@pytest.fixture
def by_state(user: User) -> dict[str, EmailDelivery]:
    """Return one e-mail delivery to `user` per state, by the state. All but the pending one have a stored message."""
    made = {}
    for state in LeasedWork.State.values:
        made[state] = EmailDeliveryFactory.create(state=state, notification__user_id=user.pk)
        if state != "pending":
            EmailDelivery.objects.filter(pk=made[state].pk).update(content=compose(made[state]), attempts=3)
    return made


@pytest.fixture
def viewer(client: Client) -> Client:
    """Return a client of a staff member who may only view e-mails."""
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_emaildelivery"))
    client.force_login(viewer)
    return client


def page_of(client: Client, delivery: EmailDelivery) -> str:
    response = client.get(f"{EMAILS}{delivery.pk}/change/")
    assert response.status_code == 200
    return response.content.decode()


def listed(client: Client, query: dict[str, Any] | None = None) -> list[int]:
    response = client.get(EMAILS, query)
    assert response.status_code == 200
    return [row.pk for row in response.context["cl"].result_list]


# --- The list -------------------------------------------------------------------------------------


def test_the_list_shows_state_attempts_and_last_error(admin_client: Client) -> None:
    EmailDeliveryFactory.create(state="failed", attempts=4711, last_error=f"550 <b>no</b> {'x' * 200}")
    text = admin_client.get(EMAILS).content.decode()
    for part in ("mina@example.com", "[Commerce] 주문이 생성되었습니다", "Failed", "4711", "550 &lt;b&gt;no&lt;/b&gt;"):
        assert part in text
    assert "x" * 200 not in text


def test_all_states_are_listed_newest_first(admin_client: Client, by_state: dict[str, EmailDelivery]) -> None:
    assert listed(admin_client) == sorted((row.pk for row in by_state.values()), reverse=True)


@pytest.mark.parametrize("state", LeasedWork.State.values)
def test_a_filter_shows_one_state(admin_client: Client, by_state: dict[str, EmailDelivery], state: str) -> None:
    assert listed(admin_client, {"state__exact": state}) == [by_state[state].pk]


def test_pending_mails_are_listed_as_they_are_due(admin_client: Client) -> None:
    late, soon, leased = (
        EmailDeliveryFactory.create(due_at=Now() + timedelta(minutes=minutes), lease=lease)
        for minutes, lease in ((60, None), (1, None), (30, uuid4()))
    )
    assert listed(admin_client, {"state__exact": "pending"}) == [soon.pk, leased.pk, late.pk]
    assert admin_client.get(EMAILS).content.decode().count("with a worker until") == 1


def test_finished_mails_are_not_due(admin_client: Client, by_state: dict[str, EmailDelivery]) -> None:
    EmailDelivery.objects.update(due_at="2031-01-30T10:15:30Z")
    for state, delivery in by_state.items():
        assert ("2031-01-30" in page_of(admin_client, delivery)) is (state == "pending")


def test_other_columns_cannot_be_filtered_or_sorted_by(
    admin_client: Client, by_state: dict[str, EmailDelivery]
) -> None:
    for query in ({"last_error__contains": "x"}, {"address": "a"}, {"state__contains": "f"}, {"notification__type": 1}):
        assert admin_client.get(EMAILS, query).status_code == 400
    assert listed(admin_client, {"o": "2"}) == listed(admin_client)


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("user", 4),
        ("order", 1),
        ("notification", 1),
        ("mina@example.com", 4),
        ("Mina@Example.com", 4),
        (" mina@example.com ", 4),
        ("mina@example.co", 0),
        ("mina", 0),
        ("%", 0),
        ("999999999", 0),
        ("9" * 30, 0),
        ("-1", 0),
    ],
)
def test_the_search_finds_by_id_and_by_address(
    admin_client: Client, user: User, by_state: dict[str, EmailDelivery], term: str, found: int
) -> None:
    EmailDeliveryFactory.create(address="other@example.com", notification=NotificationFactory(user_id=10**9))
    sought = by_state["failed"]
    Notification.objects.filter(pk=sought.pk).update(order_id=10**6)
    ids = {"user": user.pk, "order": 10**6, "notification": sought.pk}
    pks = listed(admin_client, {"q": str(ids.get(term, term))})
    assert len(pks) == found
    assert pks == sorted(pks, reverse=True)
    if term in ("order", "notification"):
        assert pks == [sought.pk]


def test_a_list_reads_no_messages(admin_client: Client, by_state: dict[str, EmailDelivery]) -> None:
    with CaptureQueriesContext(connection) as queries:
        listed(admin_client)
    sent = " ".join(query["sql"] for query in queries)
    assert '"notifications_emaildelivery"."subject"' in sent
    assert '"notifications_emaildelivery"."content"' not in sent
    assert '"notifications_emaildelivery"."text"' not in sent


@pytest.fixture
def many(user: User) -> None:
    """Create 20,000 e-mail deliveries: most are sent, some have failed, and some are pending."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH inserted AS (
                INSERT INTO notifications_notification (user_id, order_id, event_id, type, message, created_at)
                SELECT 1000000 + n, 5000000 + n, gen_random_uuid(), 'ORDER_PAID', '', now()
                FROM generate_series(1, 20000) AS n RETURNING *
            )
            INSERT INTO notifications_emaildelivery
                (notification_id, address, subject, text, state, finished_at, due_at)
            SELECT id, 'user' || order_id || '@example.com', '', '', state,
                CASE state WHEN 'pending' THEN NULL ELSE now() - make_interval(secs => order_id) END,
                now() + make_interval(secs => order_id)
            FROM inserted, LATERAL (SELECT CASE WHEN order_id % 1000 = 0 THEN 'failed'
                WHEN order_id % 1000 = 1 THEN 'pending' ELSE 'done' END AS state) AS given
            """
        )
        cursor.execute("ANALYZE notifications_emaildelivery, notifications_notification")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, 50),
        ({"state__exact": "failed"}, 20),
        ({"state__exact": "pending"}, 20),
        ({"state__exact": "cancelled"}, 0),
        ({"state__exact": "done"}, 50),
        ({"q": "user5000007@example.com"}, 1),
        ({"q": "user5000001@example.com"}, 1),
        ({"q": "1000007"}, 1),
        ({"q": "5000007"}, 1),
        ({"q": "nobody@example.com"}, 0),
    ],
)
def test_no_list_reads_the_whole_table(admin_client: Client, many: None, query: dict[str, str], shown: int) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert len(listed(admin_client, query)) == shown
    selects = [one["sql"] for one in queries if re.search(r"FROM \(?.*notifications_(email|notif)", one["sql"])]
    assert selects
    for sql in selects:
        if sql.startswith("EXPLAIN"):
            continue
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
            ((plan,),) = cursor.fetchall()
        read = [node for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"]
        # Counting at most 1,001 rows stops there.
        too_many = [node for node in read if node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 2_000]
        assert too_many == [], sql


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for one in plan.get("Plans", []):
        yield from nodes(one)


# --- The page of an e-mail ----------------------------------------------------------------------


def frame(page: str) -> str:
    opening = '<iframe class="mail" sandbox="" title="The e-mail as HTML"'
    (found,) = re.findall(rf'{opening} srcdoc="(.*?)"></iframe>', page, re.DOTALL)
    return html.unescape(found)


def preformatted(page: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r'<pre class="message" tabindex="0">(.*?)</pre>', page, re.S)]


@pytest.mark.parametrize("state", LeasedWork.State.values)
def test_the_page_shows_the_mail_in_every_state(
    admin_client: Client, by_state: dict[str, EmailDelivery], state: str
) -> None:
    page = page_of(admin_client, by_state[state])
    headers, text = preformatted(page)
    assert "Subject: [Commerce] 주문이 생성되었습니다" in headers
    assert "To: mina@example.com" in headers
    assert f"Message-ID: <{by_state[state].notification.event_id}@" in headers
    assert text.startswith("주문이 생성되었습니다.\n\nhttps://shop.example/api/orders/1\n")
    assert "주문이 생성되었습니다." in frame(page)
    assert ("It was not tried yet." in page) is (state == "pending")
    assert ("Every attempt sends this." in page) is (state != "pending")


def test_a_sent_mail_is_shown_as_it_was_sent(
    admin_client: Client, user: User, by_state: dict[str, EmailDelivery]
) -> None:
    User.objects.filter(pk=user.pk).update(email="new@example.com")
    EmailDelivery.objects.update(text="Another text", subject="Another subject")
    headers, text = preformatted(page_of(admin_client, by_state["failed"]))
    assert "To: mina@example.com" in headers
    assert "Another" not in headers + text


@pytest.mark.parametrize(("email", "shown"), [("new@example.com", "new@example.com"), ("", "mina@example.com")])
def test_an_untried_mail_is_shown_as_it_would_be_sent(
    admin_client: Client, user: User, by_state: dict[str, EmailDelivery], email: str, shown: str
) -> None:
    User.objects.filter(pk=user.pk).update(email=email)
    EmailDelivery.objects.update(text="Another text")
    headers, text = preformatted(page_of(admin_client, by_state["pending"]))
    assert f"To: {shown}" in headers
    assert text.startswith("Another text")
    by_state["pending"].refresh_from_db()
    assert (by_state["pending"].address, by_state["pending"].content) == ("mina@example.com", None)


def test_a_mail_that_cannot_be_composed_is_explained(
    admin_client: Client, user: User, by_state: dict[str, EmailDelivery]
) -> None:
    User.objects.filter(pk=user.pk).update(email="a@example.com\nBcc: b@example.com")
    page = page_of(admin_client, by_state["pending"])
    assert "It cannot be composed:" in page
    assert "<iframe" not in page


@pytest.mark.parametrize("is_tried", [False, True])
def test_no_page_shows_the_token_that_turns_mails_off(
    admin_client: Client, user: User, by_state: dict[str, EmailDelivery], is_tried: bool
) -> None:
    """Staff who may only view e-mails must not get the token, with which they could turn off the user's e-mails."""
    link = link_for(user.pk)
    assert link.encode() in compose(by_state["pending"])
    page = html.unescape(page_of(admin_client, by_state["failed" if is_tried else "pending"]))
    assert page.count("/email/opt-out/…") == 3
    token = link.rpartition("/")[2]
    assert token not in page
    assert token.split(":")[1] not in page


HOSTILE = (
    "<script>parent.x = 1</script><img src=https://evil.example/p.gif onerror=alert(1)>"
    '"></iframe><script>alert(2)</script><form action=https://evil.example><button>'
    "</pre><link rel=stylesheet href=https://evil.example/s.css>"
)


def test_a_hostile_mail_stays_inside_its_frame(admin_client: Client, by_state: dict[str, EmailDelivery]) -> None:
    message = EmailMessage()
    message["Subject"] = "<script>alert(0)</script>"
    message.set_content(HOSTILE)
    message.add_alternative(f"<!doctype html><html><body>{HOSTILE}</body></html>", subtype="html")
    EmailDelivery.objects.update(content=message.as_bytes(), address=HOSTILE[:200], last_error=HOSTILE)
    page = page_of(admin_client, by_state["failed"])
    assert frame(page).startswith('<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; ')
    assert HOSTILE in frame(page)
    for tag in (
        "<script>alert",
        "<script>parent",
        "<img src=https",
        "<form action=https",
        "<link rel=stylesheet href=",
    ):
        assert tag not in page


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"no headers at all",
        b"Subject: =?utf-8?b?broken\nContent-Type: text/html; charset=nowhere\n\n<p>\xff</p>",
        b"Content-Type: multipart/alternative; boundary=b\n\n--b\n",
        b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n%%%",
    ],
)
def test_broken_bytes_do_not_break_the_page(
    admin_client: Client, by_state: dict[str, EmailDelivery], content: bytes
) -> None:
    EmailDelivery.objects.update(content=content)
    page_of(admin_client, by_state["failed"])


def test_mail_notification_and_order_lead_to_one_another(
    admin_client: Client, by_state: dict[str, EmailDelivery]
) -> None:
    delivery = by_state["failed"]
    here, there = (f"/admin/notifications/{name}/{delivery.pk}/change/" for name in ("emaildelivery", "notification"))
    assert f'href="{there}"' in page_of(admin_client, delivery)
    text = admin_client.get(there).content.decode()
    assert f'href="{here}"' in text
    assert "Failed" in text


# --- Send again ---------------------------------------------------------------------------------


def send_again(client: Client, *deliveries: EmailDelivery, confirmed: bool = True) -> list[str]:
    """Send these failed e-mails again by the action of admin's list, and return the messages that admin shows."""
    posted: dict[str, Any] = {"action": "send_again_selected", "_selected_action": [row.pk for row in deliveries]}
    response: Any = client.post(EMAILS, posted | ({"confirmed": "yes"} if confirmed else {}))
    assert response.status_code in (200, 302)
    return [str(message) for message in get_messages(response.wsgi_request)]


def test_failed_mails_are_sent_again_and_the_others_are_counted(
    admin_client: Client, admin_user: User, by_state: dict[str, EmailDelivery]
) -> None:
    before = EmailDelivery.objects.get(state="failed")
    done, left = send_again(admin_client, *by_state.values())
    assert done == "1 e-mail will be sent again."
    assert left.startswith("3 are left as they are: ")
    for reason in ("pending already", "done already", "cancelled already"):
        assert f"{reason} (e-mail to mina@example.com)" in left
    again = EmailDelivery.objects.get(pk=before.pk)
    assert (again.state, again.attempts, again.finished_at, again.content) == ("pending", 0, None, None)
    assert again.last_error == before.last_error
    # The database reads its clock for each of both times.
    assert timedelta() <= again.deadline_at - again.due_at - settings.EMAIL_MAX_AGE < timedelta(seconds=1)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user, entry.change_message) == (str(before.pk), admin_user, "Send again.")
    history = admin_client.get(f"{EMAILS}{before.pk}/history/").content.decode()
    assert "Send again." in history
    assert EmailDelivery.objects.filter(state="pending").count() == 2


def test_a_mail_sent_again_goes_to_a_changed_address(
    admin_client: Client, user: User, by_state: dict[str, EmailDelivery]
) -> None:
    User.objects.filter(pk=user.pk).update(email="new@example.com")
    send_again(admin_client, by_state["failed"])
    again = EmailDelivery.objects.get(pk=by_state["failed"].pk)
    assert again.content is None
    assert "To: new@example.com" in preformatted(page_of(admin_client, again))[0]
    assert EmailDelivery.objects.filter(content=None).count() == 2


def test_a_question_says_what_will_happen(admin_client: Client, by_state: dict[str, EmailDelivery]) -> None:
    posted = {"action": "send_again_selected", "_selected_action": [row.pk for row in by_state.values()]}
    with CaptureQueriesContext(connection) as queries:
        text = html.unescape(admin_client.post(EMAILS, posted).content.decode())
    assert "Send this e-mail again? It goes to the user's current address" in text
    assert "1 can be sent again, 3 are skipped: " in text
    assert "[Commerce] 주문이 생성되었습니다" in text
    assert not any('"content"' in query["sql"] for query in queries)
    assert EmailDelivery.objects.filter(state="failed").exists()
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("state", LeasedWork.State.values)
def test_the_page_offers_to_send_failed_mails_alone(
    admin_client: Client, by_state: dict[str, EmailDelivery], state: str
) -> None:
    path = f"{EMAILS}{by_state[state].pk}/send-again/"
    assert (f'href="{path}"' in page_of(admin_client, by_state[state])) is (state == "failed")
    assert ("This cannot be done: " in admin_client.get(path).content.decode()) is (state != "failed")
    assert not LogEntry.objects.exists()
    admin_client.post(path, {"confirmed": "yes"})
    assert LogEntry.objects.count() == (state == "failed")


def test_a_viewer_can_look_and_nothing_else(viewer: Client, by_state: dict[str, EmailDelivery]) -> None:
    failed = by_state["failed"]
    assert "send_again_selected" not in viewer.get(EMAILS).content.decode()
    assert "send-again" not in page_of(viewer, failed)
    send_again(viewer, failed)
    path = f"{EMAILS}{failed.pk}/send-again/"
    assert viewer.get(path).status_code == 403
    assert viewer.post(path, {"confirmed": "yes"}).status_code == 403
    assert EmailDelivery.objects.filter(pk=failed.pk, state="failed").exists()
    User.objects.get(username="viewer").user_permissions.add(
        Permission.objects.get(codename="send_again_emaildelivery")
    )
    assert send_again(viewer, failed) == ["1 e-mail will be sent again."]


def test_nobody_adds_edits_or_deletes_mails(admin_client: Client, by_state: dict[str, EmailDelivery]) -> None:
    delivery = by_state["pending"]
    assert admin_client.get(f"{EMAILS}add/").status_code == 403
    assert admin_client.post(f"{EMAILS}{delivery.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin_client.post(f"{EMAILS}{delivery.pk}/change/", {"address": "x@example.com"}).status_code == 403
    assert EmailDelivery.objects.get(pk=delivery.pk).address == "mina@example.com"


def test_sending_all_failed_mails_of_the_list_again(
    admin_client: Client, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter matches more e-mails than one page shows."""
    monkeypatch.setattr(EmailDeliveryAdmin, "list_per_page", 2)
    failed = EmailDeliveryFactory.create_batch(5, state="failed", notification__user_id=user.pk)
    posted = {"action": "send_again_selected", "select_across": "1", "_selected_action": [failed[0].pk]}
    admin_client.post(f"{EMAILS}?state__exact=failed", posted | {"confirmed": "yes"})
    assert EmailDelivery.objects.filter(state="pending").count() == 5
