import re
from pathlib import Path

import httpx
import pytest
from django.test import Client
from pytest_django import Settings

from testkit.customer import Customer
from testkit.processes import WebServer
from testkit.waiting import wait_until

TOKEN = "the-token-of-prometheus"


@pytest.fixture
def _token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


@pytest.mark.django_db
def test_without_a_configured_token_there_are_no_metrics(client: Client, settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    for headers in ({}, {"authorization": "Bearer "}):
        response = client.get("/metrics", headers=headers)
        assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.django_db
@pytest.mark.usefixtures("_token")
@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", "Bearer \xe9"]
)
def test_a_wrong_token_or_none_is_refused(client: Client, given: str | None) -> None:
    response = client.get("/metrics", headers={} if given is None else {"authorization": given})
    assert (response.status_code, response["Content-Type"]) == (401, "application/problem+json")
    assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.django_db
@pytest.mark.usefixtures("_token")
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens_the_metrics(client: Client, scheme: str) -> None:
    response = client.get("/metrics", headers={"authorization": f"{scheme} {TOKEN}"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    text = response.content.decode()
    assert "# TYPE event_end_to_end_seconds histogram" in text
    assert re.search(r"^outbox_pending \d", text, re.MULTILINE)


@pytest.mark.usefixtures("_token")
def test_metrics_are_read_only(client: Client) -> None:
    response = Client(enforce_csrf_checks=True).post("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, response["Content-Type"]) == (405, "application/problem+json")


def test_each_worker_shows_the_metrics_of_all_workers(site_database: None, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    server = WebServer(log=tmp_path / "web.log", env={"METRICS_TOKEN": TOKEN, "TMPDIR": str(tmp_path / "tmp")})
    published = 'events_published_total{path="fast",topic="order-events"} 1.0'
    try:
        assert len(server.workers()) == 2
        (folder,) = (tmp_path / "tmp").glob("commerce-metrics-*")
        Customer(server.url).place_order()
        wait_until(lambda: published in _counted(server))
        texts = [_counted(server) for _ in range(6)]
        assert list(folder.iterdir())
        assert published in texts[0]
        assert len(set(texts)) == 1
    finally:
        server.stop()
    assert not folder.exists()


def _counted(server: WebServer) -> str:
    response = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False)
    return "".join(line for line in response.text.splitlines() if line.startswith(("events_", "consumer_")))
