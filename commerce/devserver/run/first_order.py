"""READY: an order that becomes a notification shows that the whole way works; then lost events are looked for."""

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
"""Time within which the first order must have become a notification."""
RECONCILE_INTERVAL_S = 60
"""The embedded broker forgets what it cannot hold, so that a run looks for lost events."""


def watch(supervisor: Supervisor, site: str, servers: Mapping[str, str]) -> None:
    """Show that the whole way works, then look for lost events from time to time."""
    try:
        from commerce.devserver.overview import overview

        _place_first_order(site)
        say(f"Running\n{overview(site=site, servers=servers, pids=supervisor.pids)}")
    except Exception as error:  # noqa: BLE001 - a thread that dies would say nothing
        supervisor.fail(f"The first order did not become a notification: {error}")
        return
    finally:
        connection.close()
    print(f"READY {site}", flush=True)
    while True:
        time.sleep(RECONCILE_INTERVAL_S)
        try:
            repair_lost_events()
        except Exception as error:  # noqa: BLE001 - the next look may succeed
            say(f"Could not look for lost events: {str(error).strip()}")
        finally:
            connection.close()


def _place_first_order(site: str) -> None:
    """Raises OSError where the API refuses, TimeoutError where nothing comes of the order."""
    _wait_until(lambda: _answers(f"{site}/health/ready"), "the web server does not answer")
    if not settings.DEBUG:
        return
    say("Placing an order")
    from rest_framework_simplejwt.tokens import AccessToken

    from commerce.accounts import demo_accounts
    from commerce.api.throttling import UserThrottle, reset_count

    # Without a login: passwords, lockouts and limits are meant for strangers, and must not keep a run from starting.
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
    # Past any proxy of the environment: the site is on this machine.
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
