"""The message as a mail program reads it. A user's name or address cannot inject headers or text into it."""

import re
from collections.abc import Callable
from datetime import timedelta
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.template.loader import get_template
from django.test import Client
from pytest_django import Settings

from events.wire.timestamps import now
from events.work.models import LeasedWork
from events.work.outcomes import Done, Failed
from notifications.models import EmailDelivery, EmailOptOut
from testkit.mail.deliveries import customer, delivery_to, let_pauses_pass, notify_at, send_due
from testkit.mail.server import Accepted, MailServer

pytestmark = pytest.mark.django_db

EVENT_ID = UUID("5f0c7a3e-0000-4000-8000-000000000001")


def sent(server: MailServer, user: User, **event: Any) -> Accepted:
    """Notify the user of an event with these fields, and return the mail that the server has accepted."""
    assert notify_at(user.pk, **event) is not None
    ((_, outcome),) = send_due()
    assert isinstance(outcome, Done), outcome
    return server.accepted[-1]


def part(message: EmailMessage, kind: str) -> str:
    found = message.get_body([kind])
    assert found is not None
    content = found.get_content()
    assert isinstance(content, str)
    return content


@pytest.mark.parametrize(
    ("event_type", "words", "sentence"),
    [
        ("ORDER_CREATED", "주문이 생성되었습니다", "주문이 생성되었습니다. 주문번호: 123, 금액: 50000.00원"),
        ("ORDER_PAID", "결제가 완료되었습니다", "결제가 완료되었습니다. 주문번호: 123, 금액: 50000.00원"),
        ("ORDER_CANCELLED", "주문이 취소되었습니다", "주문이 취소되었습니다. 주문번호: 123, 금액: 50000.00원"),
    ],
)
def test_a_mail_tells_what_happened(server: MailServer, event_type: str, words: str, sentence: str) -> None:
    mail = sent(server, customer("you@example.com"), event_type=event_type, order_id=123, event_id=EVENT_ID)
    message = mail.message
    assert message["Subject"] == f"[Commerce] {words}"
    assert message["From"] == "가게 <shop@shop.example>"
    assert message["To"] == "you@example.com"
    assert message["Message-ID"] == f"<{EVENT_ID}@shop.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert abs(parsedate_to_datetime(message["Date"]) - now()) < timedelta(minutes=1)
    assert [one.get_content_type() for one in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert part(message, "plain").startswith(f"{sentence}\n\nhttps://shop.example/api/orders/123\n\n-- \n")
    assert sentence in part(message, "html")
    assert 'href="https://shop.example/api/orders/123"' in part(message, "html")
    assert (mail.sender, mail.recipients) == ("shop@shop.example", ["you@example.com"])


def test_a_mail_is_seven_bit_clean_and_has_short_lines(server: MailServer) -> None:
    content = sent(server, customer("long" * 15 + "@" + "sub." * 40 + "example.com")).content
    assert content.isascii()
    assert b"\0" not in content
    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")
    assert max(map(len, content.split(b"\r\n"))) <= 998


class Addresses(HTMLParser):
    """Collects all addresses in HTML that a mail program may load or follow."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "background", "srcset")]
        assert "url(" not in str(attrs)


def test_a_mail_loads_nothing_and_links_to_this_site_alone(server: MailServer) -> None:
    message = sent(server, customer()).message
    html, plain = part(message, "html"), part(message, "plain")
    addresses = Addresses()
    addresses.feed(html)
    assert addresses.tags.isdisjoint({"img", "link", "script", "iframe", "object", "style", "video", "form"})
    links = [*addresses.found, *re.findall(r"https?://\S+", plain)]
    assert len(links) == 4
    assert {urlsplit(link).netloc for link in links} == {"shop.example"}


def test_the_unsubscribe_link_works_with_one_click(server: MailServer, settings: Settings, client: Client) -> None:
    user = customer()
    message = sent(server, user).message
    link = message["List-Unsubscribe"].strip()
    assert link.startswith("<https://shop.example/")
    assert link.endswith(">")
    assert link[1:-1] in part(message, "plain")
    answer = client.post(urlsplit(link[1:-1]).path, {"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200
    assert EmailOptOut.objects.filter(user=user).exists()


ADDRESSES = {
    '"quoted,local"@example.com': '"quoted,local"@example.com',
    "o'brien+shop@example.com": "o'brien+shop@example.com",
    "x=y!z#%&*/?^`{|}~@example.com": "x=y!z#%&*/?^`{|}~@example.com",
    "you@한국.kr": "you@xn--3e0b707e.kr",
    "you@bücher.example": "you@xn--bcher-kva.example",
    "you@[192.0.2.1]": "you@[192.0.2.1]",
    "l" * 64 + "@example.com": "l" * 64 + "@example.com",
}


@pytest.mark.parametrize(("address", "recipient"), ADDRESSES.items())
def test_every_valid_address_gets_its_mail(server: MailServer, address: str, recipient: str) -> None:
    mail = sent(server, customer(address))
    assert list(mail.recipients) == [recipient]
    assert [found.addr_spec for found in mail.message["To"].addresses] == [recipient]
    assert mail.content.isascii()


@pytest.mark.parametrize(
    "address",
    [
        "you@example.com\nBcc: other@example.com",
        "you@example.com\r\nBcc: other@example.com",
        "you@example.com\rBcc: other@example.com",
        "\nyou@example.com",
        "you@example.com\n",
        "you@example.com\n\n<b>body</b>",
        "you@example.com\u2028Bcc: other@example.com",
        "you@example.com, other@example.com",
        "you@example.com>, <other@example.com",
        "Name <you@example.com>",
        "you@example.com> SIZE=1\r\nRCPT TO:<other@example.com",
        "이름@example.com",
        "😀@example.com",
        "you@😀..example",
        "you",
        "@example.com",
        "you@example.com.",
        "you@" + "x" * 64 + ".example",
        " you@example.com",
    ],
)
def test_an_invalid_address_fails_at_once_and_injects_nothing(server: MailServer, address: str) -> None:
    """SQL saves the address, so no form validates it."""
    user = customer()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE auth_user SET email = %s WHERE id = %s", [address, user.pk])
    other = delivery_to()
    delivery = notify_at(user.pk)
    assert delivery is not None
    send_due()
    delivery.refresh_from_db()
    assert delivery.state == LeasedWork.State.FAILED
    assert delivery.last_error == f"The message cannot be composed: {address!r} is not an e-mail address"
    assert [mail.recipients for mail in server.accepted] == [[other.address]]


@pytest.mark.parametrize(
    "name", ["a\r\nBcc: other@example.com", '<b>"O\'Brien", 김</b>', "😀", "{{ subject }}", "a\n\n.\r\nQUIT"]
)
def test_a_name_of_a_user_is_not_in_the_mail(server: MailServer, name: str) -> None:
    user = customer()
    User.objects.filter(pk=user.pk).update(username=name, first_name=name, last_name=name)
    before = sent(server, customer()).message
    message = sent(server, user).message
    assert message.keys() == before.keys()
    for kind in ("plain", "html"):
        assert name not in part(message, kind)


def test_text_in_a_delivery_is_escaped(server: MailServer) -> None:
    delivery = delivery_to()
    text = '<script>alert("1")</script> {{ subject }} 김 😀\n.\n..\n--\nhttps://evil.example/"onclick="x'
    EmailDelivery.objects.filter(pk=delivery.pk).update(text=text)
    send_due()
    message = server.accepted[0].message
    assert text in part(message, "plain")
    assert "<script" not in part(message, "html")
    assert '"onclick' not in part(message, "html")


@pytest.mark.parametrize("subject", ["a\nBcc: x@example.com", "a\r\n\r\nbody", "a\rb"])
def test_a_subject_with_a_line_break_fails_at_once(server: MailServer, subject: str) -> None:
    delivery = delivery_to()
    EmailDelivery.objects.filter(pk=delivery.pk).update(subject=subject)
    ((_, outcome),) = send_due()
    assert isinstance(outcome, Failed)
    assert server.accepted == []


def test_a_long_subject_with_emoji_is_read_as_it_was_written(server: MailServer) -> None:
    delivery = delivery_to()
    subject = "[Commerce] " + "주문 😀 " * 25
    EmailDelivery.objects.filter(pk=delivery.pk).update(subject=subject.strip())
    send_due()
    assert server.accepted[0].message["Subject"].strip() == subject.strip()
    assert max(map(len, server.accepted[0].content.split(b"\r\n"))) <= 998


def change_site(settings: Settings, tmp_path: Path) -> None:
    settings.SITE_URL = "https://other.example"


def change_sender(settings: Settings, tmp_path: Path) -> None:
    settings.DEFAULT_FROM_EMAIL = "Other <other@shop.example>"


def change_key(settings: Settings, tmp_path: Path) -> None:
    settings.SECRET_KEY = "x" * 50


def change_templates(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "notifications"
    folder.mkdir()
    for name in ("email.txt", "email.html"):
        (folder / name).write_text("{% broken %}")
    (options,) = settings.TEMPLATES
    settings.TEMPLATES = [{**options, "DIRS": [tmp_path, *options["DIRS"]]}]
    with pytest.raises(Exception, match="broken"):
        get_template("notifications/email.txt")


def change_address(settings: Settings, tmp_path: Path) -> None:
    User.objects.update(email="moved@example.com")


@pytest.mark.parametrize("change", [change_site, change_sender, change_key, change_templates, change_address])
def test_every_attempt_sends_the_same_bytes(
    server: MailServer, settings: Settings, tmp_path: Path, change: Callable[[Settings, Path], None]
) -> None:
    delivery_to("you@example.com")
    server.fail("MESSAGE", answer="451 later", takes=True, times=1)
    send_due()
    change(settings, tmp_path)
    let_pauses_pass()
    send_due()
    first, second = server.accepted
    assert first.content == second.content
    assert first.recipients == second.recipients == ["you@example.com"]
    assert EmailDelivery.objects.get().state == LeasedWork.State.DONE


def test_a_message_has_its_id_from_the_event(server: MailServer) -> None:
    """The Message-ID contains the event's id, so that all messages for one event have the same Message-ID."""
    for _ in range(2):
        delivery_to()
    send_due()
    ids = {mail.message["Message-ID"] for mail in server.accepted}
    rows = EmailDelivery.objects.values_list("notification__event_id", flat=True)
    assert ids == {f"<{event_id}@shop.example>" for event_id in rows}


@pytest.mark.parametrize(
    ("site", "host"), [("https://shop.example:8443/x", "shop.example"), ("http://[::1]:8080", "[::1]")]
)
def test_the_right_side_of_a_message_id_is_the_sites_host(
    server: MailServer, settings: Settings, site: str, host: str
) -> None:
    settings.SITE_URL = site
    assert sent(server, customer(), event_id=EVENT_ID).message["Message-ID"] == f"<{EVENT_ID}@{host}>"
