"""Place the first order of a run, and then repair lost events at regular intervals.

The notification of the first order proves that the system works.
"""

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, cast

from django.conf import settings
from django.db import connection

from commerce.devserver.run.messages import say
from commerce.devserver.run.preparing import repair_lost_events
from commerce.devserver.supervisor import Supervisor

FIRST_ORDER_TIMEOUT_S = 60
"""Seconds that the web server may take to answer, and that the first order may then take to become a notification."""
RECONCILE_INTERVAL_S = 60
"""Seconds between two searches for lost events. The embedded broker drops records that it cannot hold."""


def watch(supervisor: Supervisor, site: str, servers: Mapping[str, str]) -> None:
    """Place the first order, print READY, and repair lost events every `RECONCILE_INTERVAL_S`.

    If the first order fails, end the run instead.
    """
    try:
        from commerce.devserver.overview import overview

        _place_first_order(site)
        say(f"Running\n{overview(site=site, servers=servers, pids=supervisor.pids)}")
    except Exception as error:  # noqa: BLE001 - the thread would die without a message
        supervisor.fail(f"The first order did not become a notification: {error}")
        return
    finally:
        connection.close()
    print(f"READY {site}", flush=True)
    while True:
        time.sleep(RECONCILE_INTERVAL_S)
        try:
            repair_lost_events()
        except Exception as error:  # noqa: BLE001 - the next search may succeed
            say(f"Could not look for lost events: {str(error).strip()}")
        finally:
            connection.close()


def _place_first_order(site: str) -> None:
    """Wait for the web server, place an order through the API, and print the order and its notification.

    If DEBUG is off, place no order.

    Raises:
        OSError: the API rejects a request.
        TimeoutError: the web server does not answer, or the order has no notification in time.
    """
    _wait_until(lambda: _answers(f"{site}/health/ready"), "the web server does not answer")
    if not settings.DEBUG:
        return
    say("Placing an order")
    from rest_framework_simplejwt.tokens import AccessToken

    from commerce.accounts import demo_accounts
    from commerce.api.throttling import UserThrottle, reset_count

    # A token without a login: a changed password, a lockout or a throttle must not stop the run.
    customer = demo_accounts.customer()
    token = str(AccessToken.for_user(customer))

    def call(path: str, body: Any = None) -> str:
        reset_count(scope=UserThrottle.scope, client=customer.pk)
        return _call(f"{site}{path}", body, token)

    body = call("/api/orders", {"items": [{"productId": 1, "quantity": 2, "price": 100.00}]})
    print(body, flush=True)
    order_id = json.loads(body)["id"]

    def notification() -> str | None:
        newest = json.loads(call("/api/notifications?limit=200"))
        return next((json.dumps(one, ensure_ascii=False) for one in newest if one["orderId"] == order_id), None)

    print(_wait_until(notification, f"order {order_id} has no notification"), flush=True)


def _call(url: str, body: Any = None, token: str | None = None) -> str:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    # The site is on this machine, so a proxy from the environment is not used.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, data, headers), timeout=10) as response:
        return cast(str, response.read().decode())


def _answers(url: str) -> bool:
    try:
        _call(url)
    except OSError:
        return False
    return True


def _wait_until(condition: Callable[[], Any], otherwise: str) -> Any:
    deadline = time.monotonic() + FIRST_ORDER_TIMEOUT_S
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.1)
    raise TimeoutError(f"{otherwise} after {FIRST_ORDER_TIMEOUT_S} s")
