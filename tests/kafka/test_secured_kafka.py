"""A Kafka with TLS and passwords: every process connects by its settings, or reports the refusal."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from events.subscriptions import topics
from testkit.customer import Customer
from testkit.processes import ProductProcess, WebServer
from testkit.servers import Broker
from testkit.waiting import wait_until
from tests.kafka.secured_kafka import SecuredKafka

CONSUME = ("django", "consume_order_events")
RELAY_ONCE = ("django", "relay_outbox", "--once")
Start = Callable[..., ProductProcess]


@pytest.fixture(scope="module")
def started_kafka(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    home = tmp_path_factory.mktemp("secured")
    kafka = SecuredKafka(home / "kafka")
    try:
        kafka.start()
        create = ProductProcess("django", "create_topics", log=home / "topics.log", env=kafka.env)
        assert create.process.wait(30) == 0, create.log.read_text()
        assert all(f"{topic.name}: created" in create.log.read_text() for topic in topics())
        yield kafka
    finally:
        kafka.stop()


@pytest.fixture
def kafka(broker: Broker, request: pytest.FixtureRequest) -> SecuredKafka:
    if not broker.creates_topics:
        pytest.skip("The embedded broker has neither TLS nor passwords: run `make test-kafka`")
    kafka: SecuredKafka = request.getfixturevalue("started_kafka")
    return kafka


@pytest.fixture
def start(kafka: SecuredKafka, tmp_path: Path) -> Iterator[Start]:
    started: list[ProductProcess] = []

    def start(*command: str, **env: str) -> ProductProcess:
        log = tmp_path / f"{len(started)}.log"
        started.append(ProductProcess(*command, log=log, env=kafka.env | env))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def start_web(kafka: SecuredKafka, tmp_path: Path) -> Iterator[Callable[..., WebServer]]:
    started: list[WebServer] = []

    def start_web(**env: str) -> WebServer:
        started.append(WebServer(log=tmp_path / "web.log", env=kafka.env | env))
        return started[-1]

    yield start_web
    for web in started:
        web.kill()


@pytest.fixture(params=["a wrong password", "an unknown authority"])
def refused(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, str], str]:
    """Return environment variables with which Kafka refuses a process, and a pattern of the reason in its output."""
    if request.param == "a wrong password":
        return {
            "KAFKA_SASL_PASSWORD": "no horse"
        }, "credentials for user order-service are invalid|Authentication failed"
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    return {"KAFKA_SSL_CAFILE": str(tmp_path / "other.pem")}, "CERTIFICATE_VERIFY_FAILED"


def assert_refused(process: ProductProcess, reason: str) -> None:
    """Check that the process has logged the reason in one line, after any warnings that Kafka is slow to answer."""
    words = re.sub(r"^WARNING \S+: Waiting for Kafka: .*\n", "", process.log.read_text(), flags=re.MULTILINE)
    assert re.fullmatch(rf"CommandError: Kafka at \S+ cannot be used, check KAFKA_.*({reason}).*\n", words), words


def test_every_process_gets_in(start: Start, start_web: Callable[..., WebServer]) -> None:
    web = start_web()
    customer = Customer(web.url)
    assert customer.http.get("/health/ready").json()["kafka"] == "up"
    consumer = start(*CONSUME)
    order = customer.place_order()
    wait_until(lambda: customer.notifications(order["id"]))
    assert customer.events(order["id"])[0]["state"] == "NOTIFIED"
    lag = start("django", "consumer_lag")
    assert lag.process.wait(30) == 0, lag.log.read_text()
    assert consumer.stop() == 0
    for process in (consumer, lag):
        assert not process.says("WARNING"), process.log.read_text()


def test_a_refused_command_ends_with_one_clear_line(start: Start, refused: tuple[dict[str, str], str]) -> None:
    env, reason = refused
    for command in (CONSUME, ("django", "create_topics"), ("django", "consumer_lag")):
        process = start(*command, **env)
        assert process.process.wait(30) == 1
        assert_refused(process, reason)


def test_orders_are_placed_while_kafka_refuses_and_sent_later(
    start: Start, start_web: Callable[..., WebServer], refused: tuple[dict[str, str], str]
) -> None:
    """A relay with the right settings then sends the events of these orders."""
    env, reason = refused
    web = start_web(**env)
    customer = Customer(web.url)
    order = customer.place_order()
    refusal = re.compile(rf"WARNING .* wait for the relay: Kafka at .* cannot be used, .*({reason})")
    wait_until(lambda: refusal.search(web.log.read_text()))
    relay = start("django", "relay_outbox", **env)
    assert relay.process.wait(30) == 1
    assert_refused(relay, reason)
    assert customer.events(order["id"])[0]["state"] == "PENDING"
    accepted = start(*RELAY_ONCE)
    assert accepted.process.wait(30) == 0, accepted.log.read_text()
    assert customer.events(order["id"])[0]["state"] == "PUBLISHED"
    consumer = start(*CONSUME, "--until-caught-up")
    assert consumer.process.wait(60) == 0, consumer.log.read_text()
    assert customer.events(order["id"])[0]["state"] == "NOTIFIED"
