import gc
import json
import os
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from django.db import OperationalError, connection
from django.test import Client, RequestFactory
from pytest_django import Settings
from rest_framework_simplejwt.tokens import AccessToken

from events.consuming.dead_letters import record_dead_letter
from events.headers import pack
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from notifications.models import Notification
from orders.services import Line, place_order
from testkit.factories import NotificationFactory, OutboxEventFactory, kafka_record
from testkit.servers import Broker

pytestmark = pytest.mark.django_db


def test_live_and_ready_answer(client: Client) -> None:
    assert client.get("/health/live").status_code == 200
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["database"]) == (200, "up")


def test_ready_names_kafka_without_failing_on_it(client: Client, settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["kafka"]) == (200, "down")


def test_ready_tells_a_kafka_that_answers_from_one_that_is_frozen(
    client: Client, settings: Settings, broker: Broker
) -> None:
    assert client.get("/health/ready").json()["kafka"] == "up"
    cache.clear()
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        settings.KAFKA_BOOTSTRAP_SERVERS = [f"127.0.0.1:{frozen.getsockname()[1]}"]
        assert client.get("/health/ready").json()["kafka"] == "down"


def test_ready_fails_on_the_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(connection, "cursor", refuse)
    monkeypatch.setattr(connection, "close", lambda: None)
    assert client.get("/health/ready").status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/orders", {"items": [{"productId": 1, "quantity": 2, "price": 100}]}),
        ("POST", "/api/orders", {}),
        ("POST", "/api/orders/{order}/pay", None),
        ("GET", "/api/orders/{order}/events", None),
        ("GET", "/api/orders/0", None),
        ("POST", "/api/notifications/0/read", None),
    ],
)
def test_an_answered_request_leaves_nothing_to_the_garbage_collector(
    method: str, path: str, body: Any, user: User
) -> None:
    server, requests = WSGIHandler(), RequestFactory(SERVER_NAME="127.0.0.1")
    token = str(AccessToken.for_user(user))

    def ask() -> None:
        order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
        server.get_response(
            requests.generic(
                method,
                path.format(order=order.pk),
                json.dumps(body),
                "application/json",
                headers={"authorization": f"Bearer {token}"},
            )
        )

    ask()
    gc.collect()
    gc.disable()
    try:
        ask()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_an_unknown_path_is_a_problem(client: Client) -> None:
    for path in ("/api/nothing", "/nothing"):
        response = client.get(path)
        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("post", "/api/nothing", 404),
        ("post", "/api/orders/", 404),
        ("delete", "/api/auth/token/", 404),
        ("post", "/nothing", 404),
        ("post", "/health/live", 405),
        ("delete", "/health/ready", 405),
    ],
)
def test_a_client_without_a_csrf_token_gets_problems_and_no_page(method: str, path: str, status: int) -> None:
    response = getattr(Client(enforce_csrf_checks=True), method)(path)
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"


def test_json_is_answered_whatever_is_accepted(client: Client) -> None:
    response = client.get("/api/orders", headers={"accept": "application/problem+json"})
    assert (response.status_code, response["Content-Type"]) == (401, "application/problem+json")


def test_admin_shows_every_list_and_changes_nothing(admin_client: Client, admin_user: User) -> None:
    order = place_order(user_id=admin_user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    NotificationFactory.create()
    OutboxEventFactory.create(headers=pack([("ce_id", b"\xff")]))
    record_dead_letter(record=kafka_record(b"\xffgarbage\0"), error=Poison("bad\0"), group="g")
    for model in ("orders/order", "notifications/notification", "events/outboxevent", "events/deadletter"):
        listed = admin_client.get(f"/admin/{model}/")
        assert listed.status_code == 200
        assert admin_client.get(f"/admin/{model}/add/").status_code == 403
    for model, row in (
        ("orders/order", order),
        ("notifications/notification", Notification.objects.first()),
        ("events/outboxevent", OutboxEvent.objects.first()),
        ("events/deadletter", DeadLetter.objects.first()),
    ):
        assert row is not None
        assert admin_client.get(f"/admin/{model}/{row.pk}/change/").status_code == 200
        assert admin_client.post(f"/admin/{model}/{row.pk}/change/", {}).status_code == 403
        assert admin_client.post(f"/admin/{model}/{row.pk}/delete/", {}).status_code == 403


def refusal_to_start(environment: dict[str, str]) -> str:
    """What the settings say of an environment with which they start nothing."""
    started = subprocess.run(
        [sys.executable, "-c", "import commerce.settings"], env=environment, capture_output=True, text=True, check=False
    )
    assert started.returncode != 0
    return started.stderr


def test_production_names_everything_that_is_missing_at_once() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "KAFKA_"))}
    environment |= {"JWT_SIGNING_KEY": "short", "DJANGO_ALLOWED_HOSTS": "*", "THROTTLE_TOKEN": "often"}
    environment |= {"TRUSTED_PROXIES": "-1", "ADMIN_PATH": "api/"}
    del environment["DATABASE_URL"]
    words = refusal_to_start(environment)
    for problem in (
        "DJANGO_SECRET_KEY is not set",
        "JWT_SIGNING_KEY is shorter than 32",
        "DATABASE_URL is not set",
        "KAFKA_BOOTSTRAP_SERVERS is not set",
        "DJANGO_ALLOWED_HOSTS is *",
        "THROTTLE_TOKEN: 'often' is no rate",
        "TRUSTED_PROXIES is '-1'",
        "ADMIN_PATH is 'api/'",
    ):
        assert problem in words


def test_numbers_that_are_none_are_named_at_once() -> None:
    wrong = {
        "KAFKA_TOPIC_PARTITIONS": "three",
        "KAFKA_API_VERSION": "new",
        "OUTBOX_RELAY_GRACE_SECONDS": "-1",
        "CONSUMER_DEATHS": "0",
    }
    words = refusal_to_start(os.environ | wrong)
    for name, value in wrong.items():
        assert f"{name} is {value!r}: give " in words


def test_production_refuses_keys_that_are_known() -> None:
    known = "development-only-secret-key-never-used-outside-debug-mode"
    words = refusal_to_start(os.environ | {"DJANGO_DEBUG": "false", "DJANGO_SECRET_KEY": known})
    assert "DJANGO_SECRET_KEY is that of development" in words


def test_a_database_that_is_no_postgresql_is_refused() -> None:
    for url in ("mysql://localhost/shop", "nonsense"):
        assert "DATABASE_URL must be postgresql://" in refusal_to_start(os.environ | {"DATABASE_URL": url})


def test_a_way_to_kafka_that_cannot_work_is_named_before_it_looks_like_an_outage(tmp_path: Path) -> None:
    words = refusal_to_start(os.environ | {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SSL_CAFILE": "/nowhere.pem"})
    for problem in (
        "KAFKA_SASL_MECHANISM is '': give one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME is not set, which SASL_SSL needs",
        "KAFKA_SASL_PASSWORD is not set, which SASL_SSL needs",
        "KAFKA_SSL_CAFILE is '/nowhere.pem', which holds no certificate to read: [Errno 2] No such file or directory",
    ):
        assert problem in words
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    words = refusal_to_start(os.environ | {"KAFKA_SECURITY_PROTOCOL": "TLS", "KAFKA_SSL_CAFILE": str(junk)})
    assert "KAFKA_SECURITY_PROTOCOL is 'TLS': give one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL" in words
    assert f"KAFKA_SSL_CAFILE is '{junk}', which holds no certificate to read" in words
