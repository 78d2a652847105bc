"""Throttles that count requests in PostgreSQL, exactly, across all processes and machines.

A window is the time in which a client's requests are counted. It begins with the first request and lasts as long as the
rate says. Counting is one atomic statement.
"""

from typing import Any

from django.conf import settings
from django.db import connection
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from commerce.api.client_address import client_address
from commerce.environment import Rate
from commerce.models import RequestCount

COUNT_SQL = """
    INSERT INTO commerce_request_count AS counted (client, requests, ends_at)
    VALUES (%(client)s, 1, clock_timestamp() + %(window)s * interval '1 second')
    ON CONFLICT (client) DO UPDATE SET
        requests = CASE WHEN counted.ends_at <= clock_timestamp() THEN 1 ELSE counted.requests + 1 END,
        ends_at = CASE WHEN counted.ends_at <= clock_timestamp() THEN excluded.ends_at ELSE counted.ends_at END
    RETURNING requests, extract(epoch FROM ends_at - clock_timestamp())
"""
DELETE_EXPIRED_SQL = """
    DELETE FROM commerce_request_count WHERE client IN (
        SELECT client FROM commerce_request_count WHERE ends_at <= clock_timestamp() LIMIT 10 FOR UPDATE SKIP LOCKED
    )
"""


class Throttle(BaseThrottle):
    scope: str
    """Key of the rate in `settings.THROTTLE_RATES`. If the rate is None, the throttle counts nothing."""

    def client(self, request: Request) -> Any:
        """Return the client (a user id or an address) for which the request counts.

        Return None if the request has no limit.
        """
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


def reset_count(*, scope: str, client: Any) -> None:
    """Delete a client's count, so that its next request begins a new window."""
    RequestCount.objects.filter(client=f"{scope} {client}").delete()


def _count(client: str, rate: Rate) -> tuple[int, float]:
    """Count a request. Return the number of requests in the client's window, and the seconds until the window ends."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_SQL, {"client": client, "window": rate.seconds})
        requests, seconds_left = cursor.fetchone()
        if requests == 1:
            # Each new row also removes some expired ones, so that the table stays small.
            cursor.execute(DELETE_EXPIRED_SQL)
    return requests, float(seconds_left)
