"""`make run` writes each mail to a file that mail programs can open."""

import email
from email import policy
from pathlib import Path

import pytest
from pytest_django import Settings

from notifications.models import EmailDelivery
from testkit.mail.deliveries import delivery_to, let_pauses_pass, send_due, use_mail_server

pytestmark = pytest.mark.django_db


def test_a_mail_is_a_file_that_a_second_attempt_replaces(settings: Settings, tmp_path: Path) -> None:
    use_mail_server(settings, f"filemail://{tmp_path}/mails")
    first, second = delivery_to("first@example.com"), delivery_to("second@example.com")
    send_due()
    files = list((tmp_path / "mails").iterdir())
    contents = {file.read_bytes() for file in files}
    assert {file.suffix for file in files} == {".eml"}
    assert all(content.count(b"\n") == content.count(b"\r\n") for content in contents)
    mails = {
        str(mail["To"]): mail for mail in (email.message_from_bytes(one, policy=policy.default) for one in contents)
    }
    assert set(mails) == {first.address, second.address}
    assert mails[first.address]["Subject"] == first.subject

    EmailDelivery.objects.update(state="pending", finished_at=None)
    let_pauses_pass()
    send_due()
    assert {file.read_bytes() for file in (tmp_path / "mails").iterdir()} == contents
