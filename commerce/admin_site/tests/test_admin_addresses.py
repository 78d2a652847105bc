"""Odd admin URLs, which no link leads to, cause no server error."""

import json
import logging
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.db import DataError, models, transaction
from django.test import Client
from django.urls import reverse

from events.admin.read_only import ReadOnlyAdmin
from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter
from events.troubles import Poison
from orders.services import Line, place_order
from testkit.factories import NotificationFactory, UserFactory, kafka_record

# Real transactions, because an error of PostgreSQL would abort the transaction of the test.
pytestmark = pytest.mark.django_db(transaction=True)

NUL, HUGE, LONG, SURROGATE = "%00", str(10**30), "9" * 5_000, "%ED%A0%80"
ODD = ("", NUL, f"1{NUL}", "0", "-1", "9999", HUGE, LONG, SURROGATE, "%FF", "nonsense", "1,,2", "[]", "2025-02-30")
OF_A_FIELD = (f"1{NUL}", "-1", "9999", HUGE, "nonsense")
LISTS = sorted(admin.site._registry, key=lambda model: model._meta.label)
IDS = {"ids": lambda model: model._meta.label}


@pytest.fixture(autouse=True)
def _a_row_of_each() -> None:
    place_order(user_id=UserFactory.create().pk, lines=[Line(1, 2, Decimal("100.00"))])
    NotificationFactory.create()
    with transaction.atomic():
        record_dead_letter(record=kafka_record(b"garbage"), error=Poison("bad"), group="g")


def place_of(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def queries_of(model: type[models.Model]) -> Iterator[str]:
    """Yield query strings with odd values for searching, sorting, paging, filters, periods and unknown lookups."""
    for name in ("q", "o", "p", "e", "all", "_facets", "_popup", "_to_field", "_changelist_filters", "state", "no__in"):
        yield from (f"{name}={value}" for value in ODD)
    for field in model._meta.fields:
        lookups = ("__year", "__gte") if isinstance(field, models.DateTimeField) else ("", "__in")
        yield from (f"{field.attname}{lookup}={value}" for lookup in lookups for value in OF_A_FIELD)
        yield f"{field.attname}{lookups[1]}"
    yield f"{NUL}=1"
    yield "&".join(["a=1"] * 1_001)
    yield f"e=1&{model._meta.pk.name}__in=x"
    for field in model._meta.fields:
        if isinstance(field, models.DateTimeField):
            for year, month, day in ((9999, 12, 31), (0, 1, 1), (2025, 2, 30), (2025, 13, 1), (1, 1, 1), (HUGE, 1, 1)):
                period = [f"{field.name}__year={year}", f"{field.name}__month={month}", f"{field.name}__day={day}"]
                yield from ("&".join(period[:length]) for length in (1, 2, 3))


def failures(client: Client, addresses: Iterator[str] | list[str]) -> list[Any]:
    client.raise_request_exception = False
    return [(one[:200], status) for one in addresses if (status := client.get(one).status_code) >= 500]


@pytest.mark.parametrize("model", LISTS, **IDS)
def test_no_query_of_a_list_is_a_server_error(admin_client: Client, model: type[models.Model]) -> None:
    assert failures(admin_client, [f"{place_of(model)}?{query}" for query in queries_of(model)]) == []


READ_ONLY = [model for model in LISTS if isinstance(admin.site.get_model_admin(model), ReadOnlyAdmin)]


@pytest.mark.parametrize("model", READ_ONLY, **IDS)
def test_only_a_lists_own_filters_choose_its_rows(admin_client: Client, model: type[models.Model]) -> None:
    """A list refuses every lookup that is not one of its filters. Such a lookup in a large table may lack an index."""
    offered = {one[0] if isinstance(one, tuple) else one for one in admin.site.get_model_admin(model).list_filter}
    others = [field.attname for field in model._meta.fields if field.name not in offered]
    lookups = [f"{name}{kind}=1" for name in others for kind in ("", "__contains", "__gt")]
    lookups += [
        f"{name}__{kind}=1" for name in offered if isinstance(name, str) for kind in ("contains", "regex", "gt")
    ]
    assert len(lookups) > 10
    assert {one: admin_client.get(f"{place_of(model)}?{one}").status_code for one in lookups} == dict.fromkeys(
        lookups, 400
    )


@pytest.mark.parametrize("model", LISTS, **IDS)
def test_no_id_in_an_address_is_a_server_error(admin_client: Client, model: type[models.Model]) -> None:
    ids = (NUL, f"1{NUL}", "_00", "0", "-1", HUGE, LONG, SURROGATE, "%FF", "x", "1%0A")
    pages = ("change/", "history/", "delete/", "", "change/pay", "change/?_popup=1&_to_field=%00")
    assert failures(admin_client, [f"{place_of(model)}{one}/{page}" for one in ids for page in pages]) == []


@pytest.mark.parametrize("model", LISTS, **IDS)
def test_no_query_of_an_add_page_is_a_server_error(admin_client: Client, model: type[models.Model]) -> None:
    queries = [f"{field.name}={value}" for field in model._meta.fields for value in OF_A_FIELD]
    assert failures(admin_client, [f"{place_of(model)}add/?{query}" for query in queries]) == []


@pytest.mark.parametrize(
    "page",
    [
        *("", "jsi18n/", "login/", "pipeline/", "pipeline/state", "password_change/", "autocomplete/", "search/"),
        *("r/1/1/", f"r/{HUGE}/1/", f"r/1/{HUGE}/", f"r/1/{NUL}/", f"no{NUL}/", "auth/", "i18n/setlang/"),
    ],
)
def test_no_query_of_another_page_is_a_server_error(admin_client: Client, page: str) -> None:
    names = ("next", "q", "s", "term", "app_label", "model_name", "field_name", "page", "e", "extended", "lang")
    queries = [f"{name}={value}" for name in names for value in ODD] + [f"s=o&page={value}" for value in ODD]
    assert failures(admin_client, [f"/admin/{page}?{query}" for query in queries]) == []
    assert failures(Client(), [f"/admin/{page}?{query}" for query in queries]) == []


@pytest.mark.parametrize("field", ["orders/order/user", "auth/user/groups", "admin/logentry/user", "no/no/no"])
def test_no_autocompletion_is_a_server_error(admin_client: Client, field: str) -> None:
    app, model, name = field.split("/")
    asked = f"/admin/autocomplete/?app_label={app}&model_name={model}&field_name={name}"
    assert failures(admin_client, [f"{asked}&{name}={value}" for name in ("term", "page") for value in ODD]) == []


@pytest.mark.parametrize("query", [f"q={NUL}", "created_at__year=9999", "id__in=x&e=1", f"created_at__gte={NUL}"])
def test_an_odd_query_gets_a_page_that_says_so(admin_client: Client, query: str) -> None:
    headers = {"accept": "text/html", "accept-language": "ko"}
    answer = admin_client.get(f"/admin/orders/order/?{query}", headers=headers)
    assert answer.status_code == 400
    assert answer["Content-Type"].startswith("text/html")
    assert "주소" in answer.content.decode()


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def query_invalid_id(*_: object) -> None:
    DeadLetter.objects.get(pk="nothing")


PLACES = {
    "commerce.admin_site.navigation.count_open_letters": "?q=1",
    "commerce.operations.figures.count_open_letters": "pipeline/state?q=1",
    "orders.admin.OrderAdmin.status_label": "orders/order/?status__exact=PENDING",
    "orders.admin.OrderAdmin.find": "orders/order/?q=1",
    "events.admin.outbox.OutboxStateFilter.queryset": "events/outboxevent/?state=pending",
    "events.admin.large_tables.EstimatingPaginator.count": "notifications/notification/?q=1",
}
"""Functions of this project, each with an admin URL that calls it."""


@pytest.mark.parametrize(
    "fail",
    [
        fail_with(ValueError("a fault of the code")),
        fail_with(OverflowError("a fault of the code")),
        fail_with(DataError("a fault of the code")),
        lambda *_: json.loads("a fault of the code"),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_of_our_code_is_a_logged_server_error(
    admin_client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    fail: Callable[..., Any],
) -> None:
    monkeypatch.setattr(place, property(fail) if place.endswith("count") else fail)
    admin_client.raise_request_exception = False
    assert admin_client.get(f"/admin/{PLACES[place]}").status_code == 500
    (line,) = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert (line.name, line.levelname) == ("django.request", "ERROR")
    assert line.exc_info is not None


@pytest.mark.parametrize(
    "place", ["commerce.operations.figures.count_open_letters", "orders.admin.OrderAdmin.status_label"]
)
def test_an_impossible_query_of_our_code_is_a_server_error(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(place, query_invalid_id)
    admin_client.raise_request_exception = False
    assert admin_client.get(f"/admin/{PLACES[place]}").status_code == 500
