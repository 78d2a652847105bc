"""The page on which a user turns e-mails off and on. A signed link in each mail opens it without a login."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.signing import Signer
from django.test import Client

from notifications.mail import pages
from notifications.mail.opting_out import link_for, set_wanted
from notifications.models import EmailOptOut
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def path(user: User) -> str:
    return path_for(user.pk)


def path_for(user_id: int) -> str:
    link = link_for(user_id)
    assert link.startswith(settings.SITE_URL)
    return urlsplit(link).path


def is_off(user: User) -> bool:
    return EmailOptOut.objects.filter(user=user).exists()


def press(page: str, client: Client, path: str) -> Any:
    """Send the form in the HTML `page` as a browser does, and return the response."""
    assert '<form method="post">' in page
    wanted = page.split('name="wanted" value="')[1].split('"')[0]
    return client.post(path, {"wanted": wanted})


@pytest.mark.parametrize("was_off", [False, True])
@pytest.mark.parametrize("method", ["get", "head"])
def test_looking_at_the_page_changes_nothing(client: Client, user: User, path: str, method: str, was_off: bool) -> None:
    set_wanted(user.pk, wanted=not was_off)
    for query in ("", "?wanted=false", "?wanted=true", "?List-Unsubscribe=One-Click"):
        assert getattr(client, method)(path + query).status_code == 200
        assert is_off(user) is was_off


def test_the_button_turns_mails_off_and_on_again(user: User, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    page = client.get(path).content.decode()
    assert "You get an e-mail when" in page
    assert "Turn e-mails off" in page
    after = press(page, client, path)
    assert (after.status_code, is_off(user)) == (200, True)
    assert "You get no e-mails about your orders." in after.content.decode()
    again = press(after.content.decode(), client, path)
    assert (again.status_code, is_off(user)) == (200, False)
    assert "You get an e-mail when" in again.content.decode()
    assert not client.cookies


ONE_CLICK_IN_PARTS = '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("List-Unsubscribe=One-Click", FORM),
        (ONE_CLICK_IN_PARTS, "multipart/form-data; boundary=b"),
        ("", FORM),
        ("wanted=", FORM),
        ("wanted=TRUE", FORM),
        ('{"wanted": true}', "application/json"),
    ],
)
def test_one_click_of_a_mail_program_turns_mails_off(user: User, path: str, body: str, content_type: str) -> None:
    """The mail program's request (RFC 8058) has no cookie and follows no redirect. A repeat changes nothing."""
    for _ in range(2):
        answer = Client(enforce_csrf_checks=True).generic("POST", path, body.encode(), content_type=content_type)
        assert (answer.status_code, is_off(user)) == (200, True)


def test_a_link_changes_its_own_user_alone(client: Client, user: User, path: str) -> None:
    other = UserFactory.create()
    client.post(path, {"wanted": "false", "user": other.pk, "user_id": other.pk})
    assert is_off(user)
    assert not is_off(other)
    client.post(path_for(other.pk), {"wanted": "true"})
    assert is_off(user)


def bad_paths(user: User) -> dict[str, str]:
    good = path_for(user.pk)
    token = good.rpartition("/")[2]
    number, _, signature = token.partition(":")
    foreign_key = Signer(key="another-key", salt="notifications.mail.opting_out").sign(number)
    bad = {
        "of another user": f"{user.pk + 1}:{signature}",
        "cut": token[:-1],
        "longer": f"{token}A",
        "without signature": number,
        "with an empty signature": f"{number}:",
        "signature alone": f":{signature}",
        "with another beginning": f"0{token}",
        "in lower case": token.lower(),
        "of another salt": Signer(salt="commerce.another").sign(number),
        "of another key": foreign_key,
        "of no number": Signer(salt="commerce.another").sign("x"),
        "long": "1" * 4_000,
        "odd": "%00",
        "in other digits": f"%D9%A1:{signature}",
    }
    return {name: good.replace(token, one) for name, one in bad.items()}


def test_a_link_that_is_not_ours_is_not_found(client: Client, user: User) -> None:
    for name, path in bad_paths(user).items():
        for method in ("get", "head", "post"):
            assert getattr(client, method)(path, headers=BROWSER).status_code == 404, (name, method)
        assert "Nothing is here" in client.get(path, headers=BROWSER).content.decode(), name
    assert not EmailOptOut.objects.exists()


@pytest.mark.parametrize(("language", "text"), [("en", "Nothing is here"), ("ko-KR", "페이지를 찾을 수 없습니다")])
def test_a_wrong_link_has_a_page_for_people(client: Client, language: str, text: str) -> None:
    answer = client.get("/email/opt-out/1:forged", headers=BROWSER | {"accept-language": language})
    assert (answer.status_code, answer["Content-Language"]) == (404, language[:2])
    assert text in answer.content.decode()


def test_the_link_of_a_deleted_user_is_not_found(client: Client, user: User, path: str) -> None:
    set_wanted(user.pk, wanted=False)
    user.delete()
    for method in ("get", "head", "post"):
        assert getattr(client, method)(path, headers=BROWSER).status_code == 404
    assert not EmailOptOut.objects.exists()


def test_a_user_deleted_during_the_request_is_not_found(
    client: Client, user: User, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_first(user_id: int, *, wanted: bool) -> None:
        User.objects.filter(pk=user_id).delete()
        set_wanted(user_id, wanted=wanted)

    monkeypatch.setattr(pages, "set_wanted", delete_first)
    assert client.post(path, {"wanted": "false"}).status_code == 404


def test_a_deactivated_user_can_turn_mails_off(client: Client, user: User, path: str) -> None:
    User.objects.update(is_active=False)
    assert client.post(path, {"wanted": "false"}).status_code == 200
    assert is_off(user)


def test_head_is_get_without_the_body(client: Client, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Type"] == whole["Content-Type"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_change_nothing(user: User, path: str, method: str) -> None:
    answer = Client(enforce_csrf_checks=True).generic(method, path, b"wanted=false", content_type=FORM)
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD, POST")
    assert not is_off(user)


@pytest.mark.parametrize(
    ("wanted", "language", "texts"),
    [
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko", ("주문 안내 메일", "메일 그만 받기", "메일 다시 받기")),
        ("en-GB,ko;q=0.5", "en", ("E-mails about your orders", "Turn e-mails off", "Turn e-mails on again")),
        ("fr", "en", ("E-mails about your orders", "Turn e-mails off", "Turn e-mails on again")),
    ],
)
def test_the_page_is_in_the_users_language(
    client: Client, path: str, wanted: str, language: str, texts: tuple[str, str, str]
) -> None:
    title, off, on = texts
    for page, button in (
        (client.get(path, headers={"accept-language": wanted}), off),
        (client.post(path, headers={"accept-language": wanted}), on),
    ):
        text = page.content.decode()
        assert page["Content-Language"] == language
        assert f'<html lang="{language}">' in text
        assert f"<h1>{title}</h1>" in text
        assert f"<button>{button}</button>" in text
        assert {"Accept-Language", "Cookie"} <= set(page["Vary"].split(", "))


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_page_keeps_its_address_to_itself(client: Client, path: str, method: str) -> None:
    page = getattr(client, method)(path)
    assert page["Cache-Control"] == "no-store"
    assert page["Referrer-Policy"] == "no-referrer"
    assert page["X-Frame-Options"] == "DENY"
    policy = page["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'")
    assert "frame-ancestors 'none'" in policy
    text = page.content.decode()
    assert '<meta name="robots" content="noindex">' in text
    assert "http" not in text.replace('http-equiv="', "")
    assert "<script" not in text
    assert not page.cookies
