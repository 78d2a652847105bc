"""Admin pages of models from packages: accounts, groups and failed logins look like all other pages."""

import re
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from unfold.admin import ModelAdmin

from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

LOGINS = "/admin/axes/accessattempt/"


def text_of(client: Client, path: str, language: str = "en") -> str:
    answer = client.get(path, headers={"accept-language": language})
    assert answer.status_code == 200
    return answer.content.decode()


def test_every_page_of_admin_is_one_of_unfold() -> None:
    assert [model for model, page in admin.site._registry.items() if not isinstance(page, ModelAdmin)] == []


def inputs(page: str, kind: str) -> list[str]:
    return re.findall(rf'<input type="{kind}"[^>]*>', page)


@pytest.mark.parametrize("page", ["add", "{user}/password", "{user}/change"])
def test_the_fields_of_an_account_have_borders(admin_client: Client, user: User, page: str) -> None:
    text = text_of(admin_client, f"/admin/auth/user/{page.format(user=user.pk)}/")
    fields = inputs(text, "password") + [one for one in inputs(text, "text") if 'name="username"' in one]
    visible = [one for one in fields if "hidden" not in one]
    assert len(visible) == {"add": 3, "{user}/password": 2, "{user}/change": 1}[page]
    assert [one for one in visible if "border" not in one] == []


@pytest.mark.parametrize(("language", "label"), [("en", "Set a new password"), ("ko", "새 비밀번호 설정")])
def test_a_new_password_is_one_button_away(admin_client: Client, user: User, language: str, label: str) -> None:
    page = f"/admin/auth/user/{user.pk}"
    text = text_of(admin_client, f"{page}/change/", language)
    assert f'href="{page}/new-password/"' in text
    assert label in text
    body = {"usable_password": "true", "password1": "another horse", "password2": "another horse"}
    opened = admin_client.get(f"{page}/new-password/")
    assert opened["Location"] == f"{page}/password/"
    assert admin_client.post(opened["Location"], body).status_code == 302
    user.refresh_from_db()
    assert user.check_password("another horse")


def test_who_may_only_view_accounts_sets_no_password(client: Client, user: User) -> None:
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_user"))
    client.force_login(viewer)
    assert "new-password" not in text_of(client, f"/admin/auth/user/{user.pk}/change/")
    assert client.get(f"/admin/auth/user/{user.pk}/new-password/").status_code == 403


@pytest.mark.parametrize(("model", "title"), [("user", "Add user"), ("group", "Add group")])
def test_a_list_of_accounts_has_an_add_button(admin_client: Client, model: str, title: str) -> None:
    text = text_of(admin_client, f"/admin/auth/{model}/")
    assert re.search(rf'<a href="/admin/auth/{model}/add/"[^>]*title="{title}"', text)


# --- Failed logins --------------------------------------------------------------------------------


def fail(name: str, failures: int, **fields: Any) -> AccessAttempt:
    return AccessAttempt.objects.create(username=name, ip_address="192.0.2.1", failures_since_start=failures, **fields)


def test_failed_logins_show_what_is_locked(admin_client: Client) -> None:
    limit = settings.AXES_FAILURE_LIMIT
    fail("mina", limit - 1)
    assert "1 attempt left" in text_of(admin_client, LOGINS)
    assert "1회 남음" in text_of(admin_client, LOGINS, "ko")
    # Another browser at the same address counts as well.
    fail("mina", 1, user_agent="another")
    text = text_of(admin_client, LOGINS)
    assert text.count("locked") == 2
    assert "attempt left" not in text
    # Failed logins before the lockout's time do not count.
    AccessAttempt.objects.exclude(user_agent="another").update(attempt_time=timezone.now() - settings.AXES_COOLOFF_TIME)
    text = text_of(admin_client, LOGINS)
    assert "locked" not in text
    assert f"{limit - 1} attempts left" in text


def test_a_failed_login_is_shown_and_deleted_but_not_changed(admin_client: Client) -> None:
    attempt = fail("mina", 10, get_data="next=secret", post_data="password=secret")
    text = text_of(admin_client, f"{LOGINS}{attempt.pk}/change/")
    assert "192.0.2.1" in text
    assert "secret" not in text
    assert admin_client.post(f"{LOGINS}{attempt.pk}/change/", {}).status_code == 403
    assert admin_client.get(f"{LOGINS}add/").status_code == 403
    assert admin_client.post(f"{LOGINS}{attempt.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not AccessAttempt.objects.exists()


@pytest.mark.parametrize(("language", "words"), [("en", "Failed logins"), ("ko", "로그인 실패 기록")])
def test_failed_logins_are_called_the_same_everywhere(admin_client: Client, language: str, words: str) -> None:
    text = text_of(admin_client, LOGINS, language)
    assert text.count(words) >= 2
    assert "Axes" not in text
    assert "Access attempts" not in text


def test_models_that_nothing_writes_have_no_page(admin_client: Client) -> None:
    for model in ("accesslog", "accessfailurelog"):
        assert admin_client.get(f"/admin/axes/{model}/").status_code == 404


# --- Breadcrumbs ----------------------------------------------------------------------------------


def breadcrumbs(client: Client, path: str) -> list[str]:
    (head,) = re.findall(r"<h1.*?</h1>", text_of(client, path), re.DOTALL)
    texts = [
        re.sub(r"<[^>]+>", "", one).strip()
        for one in re.findall(r"<(?:a|span)[^>]*tracking-tight.*?</", head, re.DOTALL)
    ]
    return [text.removesuffix("</").strip() for text in texts]


def test_breadcrumbs_say_a_name_once(admin_client: Client) -> None:
    user = UserFactory.create(username="mina")
    assert breadcrumbs(admin_client, "/admin/orders/order/") == ["Orders"]
    assert breadcrumbs(admin_client, "/admin/notifications/notification/") == ["Notifications"]
    assert breadcrumbs(admin_client, f"/admin/auth/user/{user.pk}/change/") == ["Users", "mina"]
    assert breadcrumbs(admin_client, "/admin/pipeline/") == ["Event pipeline"]


@pytest.mark.parametrize(
    ("page", "deed"), [("history", "History"), ("delete", "Delete"), ("password", "Change password")]
)
def test_breadcrumbs_say_what_the_page_does(admin_client: Client, page: str, deed: str) -> None:
    user = UserFactory.create(username="mina")
    assert breadcrumbs(admin_client, f"/admin/auth/user/{user.pk}/{page}/") == ["Users", "mina", deed]
    assert breadcrumbs(admin_client, "/admin/auth/user/add/") == ["Users", "Add"]


def test_a_failed_login_is_named_by_account_and_address() -> None:
    assert str(AccessAttempt(username="mallory", ip_address="10.0.0.7")) == "mallory, 10.0.0.7"
