"""Every way to set a password hashes the password's normal form, so that the login accepts every spelling of it."""

import unicodedata
from collections.abc import Callable

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from rest_framework.test import APIClient

from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
PASSWORDS = ("ＣＲéme brûlée ﬁne", "비밀번호는 한글", "Ångström ① ẛ̣")
"""Passwords with several spellings in Unicode. The NFKC form of the second equals its NFC form."""
OLD = "crème brûlée"


def new_account_in_admin(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"username": "mina", "usable_password": "true", "password1": password, "password2": password}
    assert superuser().post("/admin/auth/user/add/", body).status_code == 302


def new_password_in_admin(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f"/admin/auth/user/{UserFactory.create(username='mina').pk}/password/"
    body = {"usable_password": "true", "password1": password, "password2": password}
    assert superuser().post(page, body).status_code == 302


def own_new_password_in_admin(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"old_password": OLD, "new_password1": password, "new_password2": password}
    assert superuser("mina").post("/admin/password_change/", body).status_code == 302


def createsuperuser(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", password)
    call_command("createsuperuser", "--noinput", username="mina", email="mina@example.com")


def changepassword(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def type_it(*, prompt: str) -> str:
        return password

    UserFactory.create(username="mina")
    monkeypatch.setattr("getpass.getpass", type_it)
    call_command("changepassword", "mina")


def superuser(name: str = "boss") -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser(name, password=OLD))
    return client


@pytest.mark.parametrize("typed", FORMS)
@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "way",
    [new_account_in_admin, new_password_in_admin, own_new_password_in_admin, createsuperuser, changepassword],
    ids=lambda way: way.__name__,
)
def test_a_new_password_works_in_every_spelling(
    monkeypatch: pytest.MonkeyPatch, way: Callable[[str, pytest.MonkeyPatch], None], password: str, typed: str
) -> None:
    way(unicodedata.normalize(typed, password), monkeypatch)
    User.objects.update(is_staff=True)
    for form in FORMS:
        body = {"username": "mina", "password": unicodedata.normalize(form, password)}
        assert APIClient().post("/api/auth/token", body, format="json").status_code == 200
        assert Client().post("/admin/login/?next=/admin/", body)["Location"] == "/admin/"
    body["password"] += "x"
    assert APIClient().post("/api/auth/token", body, format="json").status_code == 401


def change_own(client: Client, old: str) -> int:
    body = {"old_password": old, "new_password1": "another horse", "new_password2": "another horse"}
    return client.post("/admin/password_change/", body).status_code


@pytest.mark.parametrize("form", FORMS)
def test_the_own_old_password_works_in_every_spelling(form: str) -> None:
    assert change_own(superuser(), OLD + "x") == 200
    assert change_own(superuser("mina"), unicodedata.normalize(form, OLD)) == 302


def test_an_own_password_of_an_older_release_works() -> None:
    spelled = unicodedata.normalize("NFD", OLD)
    client = superuser()
    User.objects.update(password=PBKDF2PasswordHasher().encode(spelled, "salt", 1))
    client.force_login(User.objects.get())
    assert change_own(client, OLD) == 200
    assert change_own(client, spelled) == 302


def test_the_own_password_page_belongs_to_admin(admin_client: Client) -> None:
    page = admin_client.get("/admin/password_change/")
    assert page.status_code == 200
    assert 'name="old_password"' in page.content.decode()
    assert Client().get("/admin/password_change/").status_code == 302
