"""The API's answers match its OpenAPI document. The requests are generated from that document."""

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
"""Number of random requests to each operation, beside those at the limits of its parameters."""


class Caller(NamedTuple):
    """A customer at a running site, with an order and its notification."""

    customer: Customer
    session: requests.Session
    known: dict[str, int]
    """Ids of the caller's rows, for `{id}` in a path, by resource, such as `orders`."""


@pytest.fixture(scope="module")
def caller(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    logs = tmp_path_factory.mktemp("logs")
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
    # The API ignores unknown parameters, and the test always sends the token.
    allow_extra_parameters=False,
    with_security_parameters=False,
)
# /metrics answers in Prometheus's text format, and has a separate token.
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
    """Return whether the API may refuse the request of `case`, although it fits the schema.

    A schema cannot state that a name is taken, a password weak, a cursor forged, or a key used with another body.
    """
    return case.path == "/api/auth/register" or "cursor" in case.query or "Idempotency-Key" in case.headers


def _names_something(case: schemathesis.Case[Any]) -> bool:
    """Return whether the `{id}` in the path of `case` can be the id of an order or notification."""
    identifier = case.path_parameters.get("id")
    return isinstance(identifier, int) and 1 <= identifier < 2**63
