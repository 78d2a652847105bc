import json
import threading
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from events.models import OutboxEvent
from events.outbox.publisher import RecordingPublisher
from orders.idempotency import KEY_LIFETIME
from orders.models import IdempotencyKey, Order
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

BODY = '{"items":[{"productId":1,"quantity":2,"price":100.00}]}'


def place(api: APIClient, key: str | None, body: str = BODY) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.post("/api/orders", body, content_type="application/json", headers=headers)


def age(by: Any) -> None:
    for row in IdempotencyKey.objects.all():
        row.created_at -= by
        row.save()


def logged_in(user: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def test_a_repeat_gets_the_first_answer_and_places_no_order(api: APIClient) -> None:
    first = place(api, "key")
    again = place(api, "key")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    for name in ("Location", "Content-Type"):
        assert again[name] == first[name]
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert Order.objects.count() == OutboxEvent.objects.count() == 1


def test_the_first_answer_equals_an_answer_without_a_key(api: APIClient) -> None:
    bare, keyed = place(api, None), place(api, "key")
    assert dict(bare.items()).keys() == dict(keyed.items()).keys()
    assert json.loads(bare.content).keys() == json.loads(keyed.content).keys()


def test_the_stored_answer_stays_when_the_order_changes(api: APIClient) -> None:
    first = place(api, "key")
    api.post(f"{first['Location']}/pay")
    assert place(api, "key").content == first.content


@pytest.mark.parametrize(
    "body",
    [
        ' { "items" : [ {"price":1e2, "quantity":2.0, "productId":1} ] } ',
        '{"items":[{"quantity":2,"price":100,"productId":1.000}]}',
        '{"items":[{"productId":1,"quantity":0.2e1,"price":100.00}]}',
    ],
)
def test_another_spelling_is_the_same_body(api: APIClient, body: str) -> None:
    first = place(api, "key")
    assert place(api, "key", body).content == first.content


@pytest.mark.parametrize(
    "body",
    [
        '{"items":[{"productId":1,"quantity":3,"price":100.00}]}',
        '{"items":[{"productId":1,"quantity":2,"price":-100.00}]}',
        '{"items":[{"productId":1,"quantity":2,"price":"100.00"}]}',
        '{"items":[{"productId":1,"quantity":2,"price":100.00}],"note":true}',
        '{"items":[]}',
        "[]",
    ],
)
def test_another_body_under_the_same_key_is_refused(api: APIClient, body: str) -> None:
    place(api, "key")
    response = place(api, "key", body)
    assert response.status_code == 422
    assert response["Content-Type"] == "application/problem+json"
    assert Order.objects.count() == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("9007199254740993", "9007199254740992"),
        ("1234567890123456789012345678901", "1234567890123456789012345678902"),
        ("1e999999999", "1e999999998"),
        ("1", "true"),
        ("1", '"1"'),
        ("null", "false"),
    ],
)
def test_different_values_are_told_apart_at_any_size(api: APIClient, one: str, other: str) -> None:
    bodies = [BODY.replace('{"items"', f'{{"note":{value},"items"') for value in (one, other)]
    assert [place(api, "key", body).status_code for body in bodies] == [201, 422]


def test_a_key_belongs_to_its_user(api: APIClient) -> None:
    mine = place(api, "key")
    other = place(logged_in(UserFactory.create()), "key", BODY.replace("2", "3"))
    assert other.status_code == 201
    assert other.json()["id"] != mine.json()["id"]


def test_quotes_around_a_key_do_not_matter(api: APIClient) -> None:
    assert place(api, '"a key"').content == place(api, "a key").content


@pytest.mark.parametrize("key", ["a", "~" * 255, f'"{"x" * 255}"', 'in "the" middle', "!~ #"])
def test_a_key_of_printable_ascii_is_accepted(api: APIClient, key: str) -> None:
    assert place(api, key).status_code == 201


@pytest.mark.parametrize("key", ["", " ", '""', "x" * 256, f'"{"x" * 256}"', "caf\xe9", "a\tb", "a\0b", "a\x7fb"])
def test_any_other_key_is_refused(api: APIClient, key: str) -> None:
    response = place(api, key)
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert not Order.objects.exists()


def test_an_attempt_that_failed_leaves_the_key_free(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(api, "key", '{"items":[]}').status_code == 400
    assert place(api, "key", "{").status_code == 400
    with monkeypatch.context() as broken:
        broken.setattr("orders.views._publish_on_commit", None)
        assert place(api, "key").status_code == 500
    assert not IdempotencyKey.objects.exists()
    assert not Order.objects.exists()
    assert place(api, "key").status_code == 201


def test_a_key_is_new_after_a_day_pruned_or_not(api: APIClient) -> None:
    first = place(api, "key")
    age(KEY_LIFETIME * 0.99)
    assert place(api, "key").content == first.content
    age(KEY_LIFETIME * 0.02)
    second = place(api, "key", BODY.replace("2", "3"))
    assert (second.status_code, Order.objects.count()) == (201, 2)
    assert "Idempotent-Replayed" not in second
    assert place(api, "key", BODY.replace("2", "3")).content == second.content


def test_pruning_removes_only_expired_keys(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.idempotency.PRUNE_BATCH_ROWS", 2)
    for number in range(3):
        place(api, f"old {number}")
    age(KEY_LIFETIME)
    place(api, "new")
    output = StringIO()
    call_command("prune_idempotency_keys", stdout=output)
    assert output.getvalue() == "pruned 3\n"
    assert [row.key for row in IdempotencyKey.objects.all()] == ["new"]


def test_a_deeply_nested_body_is_a_bad_request(api: APIClient) -> None:
    nested = "[" * 800 + "]" * 800
    assert place(api, "key", f'{{"items":{nested}}}').status_code == 400


def test_an_order_without_key_takes_one_statement_after_its_id(api: APIClient) -> None:
    with CaptureQueriesContext(connection) as queries:
        place(api, None)
    assert [one["sql"].split()[0] for one in queries] == ["SELECT", "WITH"]


@pytest.mark.django_db(transaction=True)
def test_of_twenty_at_once_one_places_the_order(user: User, publisher: RecordingPublisher) -> None:
    answers = at_once(20, lambda: place(logged_in(user), "key"))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {201, 409}
    assert statuses[201] >= 1
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len([answer for answer in answers if "Idempotent-Replayed" not in answer and answer.status_code == 201]) == 1
    assert Order.objects.count() == OutboxEvent.objects.count() == IdempotencyKey.objects.count() == 1
    assert len(publisher.published) == 1


@pytest.mark.django_db(transaction=True)
def test_a_key_is_in_use_during_its_first_request(user: User) -> None:
    with transaction.atomic():
        first = place(logged_in(user), "key")
        (second,) = at_once(1, lambda: place(logged_in(user), "key"))
    assert (first.status_code, second.status_code) == (201, 409)
    assert second["Content-Type"] == "application/problem+json"
    assert place(logged_in(user), "key").content == first.content


@pytest.mark.django_db(transaction=True)
def test_replays_at_once_do_not_hinder_each_other(user: User) -> None:
    first = place(logged_in(user), "key")
    with transaction.atomic():
        place(logged_in(user), "key")
        (second,) = at_once(1, lambda: place(logged_in(user), "key"))
    assert second.content == first.content


def at_once(count: int, ask: Callable[[], Any]) -> list[Any]:
    """Call `ask` in `count` threads at the same moment, and return the results."""
    together = threading.Barrier(count)
    answers: list[Any] = []

    def run() -> None:
        together.wait()
        try:
            answers.append(ask())
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == count
    return answers
