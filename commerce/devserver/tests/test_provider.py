"""The development provider obeys docs/providers.md. Its book, a file of payments and shipments, survives a kill."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from commerce.devserver.provider.server import MAX_BODY_BYTES, Options
from testkit.participants.provider import ProviderProcess, ProviderUnderTest, provider_in_thread

PAYMENT = {"amount": 10.5, "token": "tok_ok", "reference": 7}
SHIPMENT = {"items": [{"productId": 1, "quantity": 2}], "reference": 7}
SERVICES = [
    ("payments", PAYMENT, PAYMENT | {"token": "tok_declined"}, ("charged", "declined", "refunded"), "refund"),
    (
        "shipments",
        SHIPMENT,
        SHIPMENT | {"items": [{"productId": 9_000_000, "quantity": 1}]},
        ("booked", "refused", "cancelled"),
        "cancellation",
    ),
]
each_service = pytest.mark.parametrize(("service", "body", "refused", "names", "undo"), SERVICES)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[ProviderUnderTest]:
    with provider_in_thread(tmp_path / "book.sqlite3") as provider:
        yield provider


@pytest.fixture
def client(provider: ProviderUnderTest) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=provider.url, trust_env=False, timeout=10) as client:
        yield client


def post(client: httpx.Client, path: str, key: str, body: Any = None) -> tuple[int, Any]:
    answer = client.post(path, headers={"idempotency-key": key}, json=body)
    return answer.status_code, answer.json().get("state")


@each_service
def test_a_key_is_used_once(
    client: httpx.Client, service: str, body: Any, refused: Any, names: tuple[str, ...], undo: str
) -> None:
    key, (made, _, undone) = str(uuid4()), names
    assert client.get(f"/{service}/{key}").status_code == 404
    assert post(client, f"/{service}", key, body) == (201, made)
    assert post(client, f"/{service}", key, body) == (200, made)
    assert post(client, f"/{service}", key, body | {"reference": 8}) == (422, None)
    assert client.get(f"/{service}/{key}").json() == {"id": key, "state": made}
    for _ in range(2):
        assert post(client, f"/{service}/{key}/{undo}", key) == (200, undone)
    assert post(client, f"/{service}", key, body) == (200, undone)
    (entry,) = client.get("/book").json()[service]
    assert entry["history"] == [made, undone]


@each_service
def test_an_undone_or_refused_key_makes_nothing(
    client: httpx.Client, service: str, body: Any, refused: Any, names: tuple[str, ...], undo: str
) -> None:
    unknown, declined = str(uuid4()), str(uuid4())
    assert post(client, f"/{service}", declined, refused) == (402, names[1])
    assert post(client, f"/{service}", declined, refused) == (402, names[1])
    for key, wanted in ((unknown, body), (declined, refused)):
        assert post(client, f"/{service}/{key}/{undo}", key) == (200, "voided")
        assert post(client, f"/{service}", key, wanted) == (409, "voided")
        assert client.get(f"/{service}/{key}").json()["state"] == "voided"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/payments", PAYMENT | {"amount": -1}),
        ("/payments", PAYMENT | {"amount": 0.001}),
        ("/payments", PAYMENT | {"token": None}),
        ("/payments", PAYMENT | {"reference": "7"}),
        ("/payments", []),
        ("/payments", None),
        ("/shipments", SHIPMENT | {"items": [{"productId": 1}]}),
        ("/shipments", SHIPMENT | {"items": "all"}),
        ("/faults", {"fault": "fire"}),
        ("/faults", 1),
        ("/faults", {"fault": "error", "of": 5}),
        ("/faults", {"fault": "error", "times": "x"}),
    ],
)
def test_an_invalid_body_is_refused(client: httpx.Client, path: str, body: Any) -> None:
    assert post(client, path, str(uuid4()), body)[0] == 400
    assert client.get("/book").json() == {"payments": [], "shipments": []}


def test_a_request_that_is_not_understood_is_refused(client: httpx.Client) -> None:
    assert client.post("/payments", json=PAYMENT).status_code == 400
    assert client.post("/payments", content=b"{", headers={"idempotency-key": "k"}).status_code == 400
    assert client.post("/payments", content=b"[" * 100_000, headers={"idempotency-key": "k"}).status_code == 400
    assert client.post("/orders", json={}, headers={"idempotency-key": "k"}).status_code == 404
    assert client.get("/orders/1").status_code == 404
    large = client.post("/payments", content=b" " * (MAX_BODY_BYTES + 1), headers={"idempotency-key": "k"})
    assert large.status_code == 413


@pytest.mark.parametrize(
    ("fault", "status", "made"),
    [("error", 500, 0), ("error-after", 500, 1), ("unavailable", 503, 0), ("forget", 404, 0)],
)
def test_an_arranged_fault_hits_its_requests(
    provider: ProviderUnderTest, client: httpx.Client, fault: str, status: int, made: int
) -> None:
    provider.fail(fault, of="POST /payments", times=1)
    assert post(client, "/shipments", "k", SHIPMENT)[0] == 201
    assert post(client, "/payments", "k", PAYMENT)[0] == status
    assert len(provider.book("payments")) == made
    assert post(client, "/payments", "k", PAYMENT)[0] in (200, 201)


def test_random_faults_hit_their_share(tmp_path: Path) -> None:
    with provider_in_thread(tmp_path / "book.sqlite3", fault_rate=0.5, slow_s=0, silence_s=0) as provider:
        outcomes = []
        with httpx.Client(base_url=provider.url, trust_env=False, timeout=10) as client:
            for number in range(100):
                try:
                    outcomes.append(post(client, "/payments", f"k{number}", PAYMENT)[0])
                except (httpx.TransportError, ValueError):
                    outcomes.append(0)
        assert 20 < outcomes.count(201) < 80
        assert {0, 500, 503} <= set(outcomes)


def test_the_book_survives_a_kill(tmp_path: Path) -> None:
    provider = ProviderProcess(tmp_path / "book.sqlite3")
    try:
        with httpx.Client(base_url=provider.url, trust_env=False, timeout=10) as client:
            for number in range(20):
                assert post(client, "/payments", f"k{number}", PAYMENT) == (201, "charged")
        provider.kill()
        provider.start()
        assert len(provider.book("payments")) == 20
        with httpx.Client(base_url=provider.url, trust_env=False, timeout=10) as client:
            assert post(client, "/payments", "k1", PAYMENT) == (200, "charged")
    finally:
        provider.kill()


def test_the_options_are_those_of_the_variables() -> None:
    given = {"PROVIDER_PORT": "1", "PROVIDER_LATENCY_MS": "200", "PROVIDER_FAULT_RATE": "0.25", "PROVIDER_HOST": ""}
    assert Options.from_environment(given) == Options(port=1, latency_s=0.2, fault_rate=0.25)
    with pytest.raises(ValueError, match="often"):
        Options.from_environment({"PROVIDER_FAULT_RATE": "often"})


def test_a_client_that_leaves_stops_nothing(provider: ProviderUnderTest, client: httpx.Client) -> None:
    for request in (b"", b"POST /payments HTTP/1.1\r\nContent-Length: 5\r\n\r\n{", b"nonsense\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as left:
            left.sendall(request)
    assert client.get("/book").status_code == 200
