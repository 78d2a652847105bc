"""An account with orders cannot be deleted, so admin does not offer to delete it, and says why."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models.deletion import PROTECT, get_candidate_relations_to_delete
from django.test import Client
from django.test.utils import CaptureQueriesContext

from commerce.accounts.kept_accounts import PROTECTING
from testkit.factories import OrderFactory, UserFactory

pytestmark = pytest.mark.django_db

USERS = "/admin/auth/user/"
DELETE = 'href="{}{}/remove/"'
REASON = {
    "en": "This account cannot be deleted, because it has orders. Clear “Active” to close it instead.",
    "ko": "이 계정에는 주문 기록이 있어 삭제할 수 없습니다. 사용을 중지하려면 “활성”을 해제하세요.",
}


@pytest.fixture
def customer() -> User:
    """Return a user with an order."""
    customer = UserFactory.create(username="mina")
    OrderFactory.create(user=customer)
    return customer


def page(client: Client, path: str, language: str = "en") -> str:
    return client.get(path, headers={"accept-language": language}, follow=True).content.decode()


def choose(client: Client, *users: User, **more: str) -> Any:
    return client.post(USERS, {"action": "delete_selected", "_selected_action": [one.pk for one in users], **more})


def test_every_relation_that_protects_an_account_is_known() -> None:
    """`PROTECTING` has all relations that make Django refuse to delete an account, also those with the name `+`."""
    assert {one.related_model._meta.label for one in PROTECTING} == {"orders.Order"}
    options: Any = User._meta
    relations: Any = get_candidate_relations_to_delete(options)
    assert [one for one in relations if one.on_delete is PROTECT] == PROTECTING


@pytest.mark.parametrize("language", ["en", "ko"])
def test_an_account_with_orders_has_a_reason_and_no_delete(admin_client: Client, customer: User, language: str) -> None:
    text = page(admin_client, f"{USERS}{customer.pk}/change/", language)
    assert REASON[language] in text
    assert DELETE.format(USERS, customer.pk) not in text
    other = UserFactory.create()
    text = page(admin_client, f"{USERS}{other.pk}/change/", language)
    assert REASON[language] not in text
    assert DELETE.format(USERS, other.pk) in text


def test_who_may_not_delete_reads_no_reason(client: Client, customer: User) -> None:
    viewer = UserFactory.create(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_user"))
    client.force_login(viewer)
    assert REASON["en"] not in page(client, f"{USERS}{customer.pk}/change/")
    assert client.get(f"{USERS}{customer.pk}/delete/").status_code == 403


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(("path", "status"), [("delete", 200), ("remove", 403)])
def test_a_typed_address_deletes_no_account_with_orders(
    admin_client: Client, customer: User, path: str, method: str, status: int
) -> None:
    answer = getattr(admin_client, method)(f"{USERS}{customer.pk}/{path}/", {"post": "yes"}, follow=True)
    assert answer.status_code == status
    assert User.objects.filter(pk=customer.pk).exists()
    if status == 200:
        assert answer.redirect_chain == [(f"{USERS}{customer.pk}/change/", 302)]
        assert "The account was not deleted." in answer.content.decode()
        assert REASON["en"] in answer.content.decode()


def test_an_account_without_orders_is_deleted(admin_client: Client, customer: User) -> None:
    other = UserFactory.create()
    assert admin_client.post(f"{USERS}{other.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=other.pk).exists()


def test_the_question_names_the_accounts_that_are_skipped(admin_client: Client, customer: User) -> None:
    kim, lee = UserFactory.create(username="kim"), UserFactory.create(username="lee")
    OrderFactory.create(user=kim)
    text = choose(admin_client, customer, kim, lee).content.decode()
    assert "2 accounts are skipped: mina, kim. They cannot be deleted; their pages say why." in text
    assert f'name="_selected_action" value="{lee.pk}"' in text
    assert f'name="_selected_action" value="{kim.pk}"' not in text
    choose(admin_client, customer, kim, lee, post="yes")
    assert set(User.objects.filter(pk__in=[customer.pk, kim.pk, lee.pk])) == {customer, kim}


def test_nothing_is_asked_if_every_account_is_skipped(admin_client: Client, customer: User) -> None:
    answer = choose(admin_client, customer)
    assert answer["Location"] == USERS
    assert "1 account is skipped: mina. It cannot be deleted; its page says why." in page(admin_client, USERS)


def test_an_account_of_many_orders_costs_no_more(admin_client: Client, customer: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as queries:
            page(admin_client, f"{USERS}{customer.pk}/change/")
        return len(queries)

    before = queries()
    OrderFactory.create_batch(20, user=customer)
    assert queries() == before


def test_a_group_of_customers_is_deleted(admin_client: Client, customer: User) -> None:
    group = Group.objects.create(name="shop")
    customer.groups.add(group)
    assert admin_client.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Group.objects.filter(pk=group.pk).exists()
