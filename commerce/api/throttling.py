"""At most so many requests in a window, counted in PostgreSQL: exact whatever the number of processes and machines.

A window begins with a client's first request and ends after the rate's time, so that counting is one atomic statement.
"""

from typing import Any

from django.conf import settings
from django.db import connection
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from commerce.client_address import client_address
from commerce.environment import Rate
from commerce.models import RequestCount

COUNT = """
    INSERT INTO commerce_request_count AS counted (client, requests, ends_at)
    VALUES (%(client)s, 1, clock_timestamp() + %(window)s * interval '1 second')
    ON CONFLICT (client) DO UPDATE SET
        requests = CASE WHEN counted.ends_at <= clock_timestamp() THEN 1 ELSE counted.requests + 1 END,
        ends_at = CASE WHEN counted.ends_at <= clock_timestamp() THEN excluded.ends_at ELSE counted.ends_at END
    RETURNING requests, extract(epoch FROM ends_at - clock_timestamp())
"""
FORGET = """
    DELETE FROM commerce_request_count WHERE client IN (
        SELECT client FROM commerce_request_count WHERE ends_at <= clock_timestamp() LIMIT 10 FOR UPDATE SKIP LOCKED
    )
"""


class Throttle(BaseThrottle):
    scope: str
    """Key of the rate in `settings.THROTTLE_RATES`; without a rate nothing is counted."""

    def client(self, request: Request) -> Any:
        """Whose requests are counted together; None to let the request pass."""
        raise NotImplementedError

    def allow_request(self, request: Request, view: Any) -> bool:
        rate: Rate | None = settings.THROTTLE_RATES[self.scope]
        if rate is None or (client := self.client(request)) is None:
            return True
        requests, self._seconds_left = _count(f"{self.scope} {client}", rate)
        return requests <= rate.requests

    def wait(self) -> float:
        return self._seconds_left


class AddressThrottle(Throttle):
    def client(self, request: Request) -> Any:
        return client_address(request) or "local"


class RegisterThrottle(AddressThrottle):
    scope = "register"


class TokenThrottle(AddressThrottle):
    scope = "token"


class RefreshThrottle(AddressThrottle):
    scope = "refresh"


class UserThrottle(Throttle):
    scope = "user"

    def client(self, request: Request) -> Any:
        return request.user.pk


def forget_requests(*, scope: str, client: Any) -> None:
    """Let a client's window begin anew."""
    RequestCount.objects.filter(client=f"{scope} {client}").delete()


def _count(client: str, rate: Rate) -> tuple[int, float]:
    """How many requests the window has seen with this one, and how many seconds it has left."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT, {"client": client, "window": rate.seconds})
        requests, seconds_left = cursor.fetchone()
        if requests == 1:
            # Whoever makes a row clears some that are over, so that they never pile up.
            cursor.execute(FORGET)
    return requests, float(seconds_left)
