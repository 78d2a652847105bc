"""Lockout of a username and an IP address after too many wrong passwords for the pair. django-axes counts them."""

import math
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Max
from rest_framework.exceptions import Throttled

from commerce.api.client_address import client_address
from events.wire.timestamps import now

LOCKED_DETAIL = "There were too many wrong passwords for this name from this address."


class LockedOut(Throttled):
    default_detail = LOCKED_DETAIL


def is_locked_out(request: Any) -> bool:
    """Return whether a failed login gets the response 429 instead of 401.

    The failure that reaches the limit still gets 401, although axes marks its request as locked out.
    """
    return bool(request.axes_locked_out and request.axes_failures_since_start != settings.AXES_FAILURE_LIMIT)


def seconds_locked(request: Any, username: str) -> int:
    """Return the seconds until the lockout of this name and address ends, at least 1."""
    attempts = AccessAttempt.objects.filter(username=username, ip_address=client_address(request))
    last = attempts.aggregate(last=Max("attempt_time"))["last"] or now()
    left: timedelta = last + settings.AXES_COOLOFF_TIME - now()
    return max(1, math.ceil(left.total_seconds()))
