"""The API answers as its own OpenAPI document says, whatever it is asked. The requests are made from that document."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from testkit.customer import Customer
from testkit.processes import CHECKOUT, ProductProcess, WebServer
from testkit.waiting import wait_until

EXAMPLES_PER_OPERATION = 15
"""Random requests to an operation, beside those at the edges of what its parameters may be."""


class Caller(NamedTuple):
    """A customer at a running site, with an order and a notification of it."""

    customer: Customer
    session: requests.Session
    known: dict[str, int]
    """What stands behind `{id}` of a path, by its resource."""


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    logs = tmp_path_factory.mktemp("logs")
    migrate = ProductProcess("django", "migrate", log=logs / "migrate.log")
    assert migrate.process.wait(60) == 0, migrate.log.read_text()
    web = WebServer(log=logs / "web.log")
    try:
        customer = Customer(web.url)
        order = customer.place_order()
        wait_until(lambda: customer.events(order["id"])[0]["state"] != "PENDING")
        consume = ProductProcess("django", "consume_order_events", "--until-caught-up", log=logs / "consumer.log")
        assert consume.process.wait(60) == 0, consume.log.read_text()
        (notification,) = customer.notifications(order["id"])
        session = requests.Session()
        session.trust_env = False
        yield Caller(customer, session, {"orders": order["id"], "notifications": notification["id"]})
    finally:
        web.kill()
        print(web.log.read_text())


document = schemathesis.openapi.from_path(CHECKOUT / "docs" / "openapi.yaml")
document.config.generation.update(
    max_examples=EXAMPLES_PER_OPERATION,
    deterministic=True,
    database="none",
    # Unknown parameters are ignored, and the token is always sent.
    allow_extra_parameters=False,
    with_security_parameters=False,
)
# Metrics are Prometheus's text, behind a token of their own.
operations = document.exclude(path="/metrics")


@operations.parametrize()
def test_every_answer_is_documented(case: schemathesis.Case[Any], caller: Caller) -> None:
    case.path_parameters |= {"id": caller.known[case.path.split("/")[2]]} if _names_something(case) else {}
    authorization = caller.customer.http.headers["Authorization"]
    case.call_and_validate(
        base_url=str(caller.customer.http.base_url),
        session=caller.session,
        headers={"Authorization": authorization},
        excluded_checks=[positive_data_acceptance] if _may_be_refused(case) else [],
    )


def _may_be_refused(case: schemathesis.Case[Any]) -> bool:
    """For what no schema can say: a name is taken, a password weak, a cursor forged, a key that of another body."""
    return case.path == "/api/auth/register" or "cursor" in case.query or "Idempotency-Key" in case.headers


def _names_something(case: schemathesis.Case[Any]) -> bool:
    """Whether the request is for one order or notification, and not for one that cannot be."""
    identifier = case.path_parameters.get("id")
    return isinstance(identifier, int) and 1 <= identifier < 2**63
