import importlib
import threading
import unicodedata
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from rest_framework.test import APIClient

from commerce.accounts.names import fold, validate_new_name
from commerce.models import AccountName
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"
PAIRS = [
    ("Admin", "admin"),
    ("admin", "ADMIN"),
    ("straße", "STRASSE"),
    ("ΝΙΚΟΣ", "νικος"),
    ("ａｄｍｉｎ", "Admin"),
    ("İzmir", "i̇zmir"),
]
INVISIBLE = (
    *("\u3164", "\u1160", "\u115f", "\uffa0", "\u200b", "\u200d", "\u202e", "\u2066", "\ufe0f", "\u00ad", "\u034f"),
    *("\u180e", "\ufeff", "\U000e0041", "\U000e0100", "\u2060", "\u17b4"),
)
# Cyrillic a and e, Greek omicron, Cherokee and Armenian with Latin letters, and other mixtures that are not allowed.
MIXED = ("\u0430dmin", "admin\u0435", "r\u03bfot", "\u13aadmin", "\u0578ame", "민아カ", "бα", "ไทยไทa漢б")
GOOD = (
    "mina",
    "민아",
    "mina-민아.漢",
    "ミナとmina漢",
    "Зоя_1",
    "Ζωή",
    "محمد7",
    "דנה",
    "नमन",
    "jose+shop@example.com",
    "Łukasz",
    "ɐ",
)


def register(username: str) -> Any:
    return APIClient().post("/api/auth/register", {"username": username, "password": PASSWORD}, format="json")


@pytest.mark.parametrize("name", GOOD)
def test_a_name_of_one_script_or_a_known_mixture_is_accepted(name: str) -> None:
    assert register(name).status_code == 201


@pytest.mark.parametrize("name", MIXED)
def test_a_name_of_mixed_scripts_is_refused(name: str) -> None:
    response = register(name)
    assert response.status_code == 400
    assert "several scripts" in response.content.decode()


@pytest.mark.parametrize("invisible", INVISIBLE, ids=lambda letter: f"U+{ord(letter):04X}")
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_name_with_an_invisible_character_is_refused(invisible: str, place: int) -> None:
    name = "admin"[:place] + invisible + "admin"[place:]
    assert register(name).status_code == 400
    with pytest.raises(ValidationError):
        validate_new_name(name)
    assert not User.objects.exists()


def test_no_format_or_tag_character_gets_into_a_name() -> None:
    for code in range(0x110000):
        letter = chr(code)
        if unicodedata.category(letter) == "Cf" and fold(letter) == "":
            with pytest.raises(ValidationError):
                validate_new_name(f"a{letter}")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_names_that_differ_in_case_or_width_are_one(first: str, second: str) -> None:
    assert fold(first) == fold(second)
    UserFactory.create(username=User.normalize_username(first))
    response = register(second)
    assert response.status_code == 400
    assert "/username" in [error["pointer"] for error in response.json()["errors"]]


def test_a_name_is_used_for_login_as_it_was_registered() -> None:
    register("Mina")
    statuses = [
        APIClient().post("/api/auth/token", {"username": name, "password": PASSWORD}, format="json").status_code
        for name in ("Mina", "mina", "MINA")
    ]
    assert statuses == [200, 401, 401]


@pytest.mark.django_db(transaction=True)
def test_of_parallel_registrations_of_one_folded_name_one_wins() -> None:
    names = ["mina", "Mina", "mIna", "miNa", "minA", "MINA"]
    together = threading.Barrier(len(names))
    statuses: list[int] = []

    def ask(name: str) -> None:
        together.wait()
        try:
            statuses.append(register(name).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [400] * 5


@pytest.mark.django_db(transaction=True)
def test_accounts_that_collide_can_be_migrated() -> None:
    call_command("migrate", "commerce", "0002_groups", verbosity=0)
    try:
        User.objects.bulk_create([User(username=name) for name in ("admin", "Admin", "mina")])
    finally:
        call_command("migrate", "commerce", verbosity=0)
    kept = AccountName.objects.order_by("pk").values_list("folded", "collides")
    assert list(kept) == [("admin", False), ("admin", True), ("mina", False)]


@pytest.mark.django_db(transaction=True)
def test_a_taken_name_leaves_no_account_outside_of_a_transaction() -> None:
    User.objects.create_user("admin", password=PASSWORD)
    other = User.objects.create_user("mina", password=PASSWORD)
    with pytest.raises(IntegrityError):
        User.objects.create_superuser("Admin", password=PASSWORD)
    other.username = "ADMIN"
    with pytest.raises(IntegrityError):
        other.save()
    assert sorted(User.objects.values_list("username", flat=True)) == ["admin", "mina"]


def test_the_database_refuses_a_taken_name_everywhere_else() -> None:
    UserFactory.create(username="admin")
    for make in (User.objects.create_user, User.objects.create_superuser):
        with pytest.raises(IntegrityError), transaction.atomic():
            make("ADMIN", password=PASSWORD)


# --- Existing accounts -----------------------------------------------------------------------------


def migrated_accounts(*names: str) -> list[User]:
    """Create accounts with these names in sequence, and let the migration save their folded names.

    Then give each account the password `PASSWORD`, and return the accounts.
    """
    accounts = User.objects.bulk_create([User(username=name) for name in names])
    AccountName.objects.all().delete()
    migration = importlib.import_module("commerce.migrations.0004_existing_account_names")
    with connection.schema_editor() as editor:
        migration.save_existing_names(apps, editor)
    for account in accounts:
        account.set_password(PASSWORD)
        account.save()
    return accounts


def test_accounts_that_already_collide_keep_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commerce.migrations.0004_existing_account_names.ACCOUNT_BATCH_SIZE", 2)
    migrated_accounts("admin", "mina", "Admin", "admin\u1160", "аdmin")
    assert list(AccountName.objects.order_by("pk").values_list("folded", "collides")) == [
        ("admin", False),
        ("mina", False),
        ("admin", True),
        ("admin", True),
        ("аdmin", False),
    ]
    for name in ("admin", "Admin", "admin\u1160", "аdmin"):
        body = {"username": name, "password": PASSWORD}
        assert APIClient().post("/api/auth/token", body, format="json").status_code == 200
    assert register("ADMIN").status_code == 400


def test_a_colliding_account_can_take_only_a_free_name() -> None:
    _, mina, other = migrated_accounts("admin", "mina", "Admin")
    other.username = "Yuna"
    other.save()
    assert AccountName.objects.get(user=other).collides is False
    assert register("yuna").status_code == 400
    other.username = "MINA"
    with pytest.raises(IntegrityError), transaction.atomic():
        other.save()
    mina.delete()
    assert register("mina").status_code == 201


def test_saving_an_account_adds_its_missing_folded_name() -> None:
    UserFactory.create(username="admin")
    (account,) = User.objects.bulk_create([User(username="Admin")])
    account.set_password(PASSWORD)
    account.save()
    assert AccountName.objects.get(user=account).collides is True


def test_missing_folded_names_of_an_older_release_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commerce.accounts.names.ACCOUNT_BATCH_SIZE", 2)
    UserFactory.create(username="admin")
    User.objects.bulk_create([User(username=name) for name in ("Mina", "mina", "ADMIN", "straße", "STRASSE", "yuna")])
    call_command("prune_logins")
    assert list(AccountName.objects.order_by("pk").values_list("folded", "collides")) == [
        ("admin", False),
        ("mina", False),
        ("mina", True),
        ("admin", True),
        ("strasse", False),
        ("strasse", True),
        ("yuna", False),
    ]
    for name in ("MINA", "Strasse", "YUNA", "Admin"):
        assert register(name).status_code == 400
        with pytest.raises(IntegrityError), transaction.atomic():
            User.objects.create_user(name)
    call_command("prune_logins")
    assert AccountName.objects.count() == 7


# --- Admin -------------------------------------------------------------------------------------------


def add(client: Client, name: str) -> Any:
    body = {"username": name, "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    return client.post("/admin/auth/user/add/", body)


def test_admin_refuses_the_names_that_registration_refuses(admin_client: Client) -> None:
    for name in ("ADMIN", "ａdmin", "\u0430dmin", "mi\u3164na"):
        page = add(admin_client, name)
        assert page.status_code == 200, name
        assert page.context["adminform"].errors["username"]
    assert add(admin_client, "mina").status_code == 302
    assert AccountName.objects.filter(folded="mina").exists()


def test_admin_saves_an_account_that_keeps_its_old_name(admin_client: Client, admin_user: User) -> None:
    _, _, account = migrated_accounts("mina", "yuna", "MINA")
    page = f"/admin/auth/user/{account.pk}/change/"
    body = {"email": "mina@example.com", "date_joined_0": "2025-01-30", "date_joined_1": "10:15:30"}
    assert admin_client.post(page, body | {"username": "MINA"}).status_code == 302
    refused = admin_client.post(page, body | {"username": "Yuna"})
    assert refused.context["adminform"].errors["username"]
    account.refresh_from_db()
    assert (account.username, account.email) == ("MINA", "mina@example.com")
