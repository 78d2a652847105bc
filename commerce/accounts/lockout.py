"""After too many wrong passwords for one name from one address, that pair is locked for a while. Counted by axes."""

import math
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Max
from rest_framework.exceptions import Throttled

from commerce.client_address import client_address
from events.timestamps import now

TOO_MANY = "There were too many wrong passwords for this name from this address."


class LockedOut(Throttled):
    default_detail = TOO_MANY


def refused_unheard(request: Any) -> bool:
    """Whether axes refused a login without a look at the password, or counted more failures than are allowed.

    The failure that reaches the limit is the last one that is answered as such; axes calls it locked out already.
    """
    return bool(request.axes_locked_out and request.axes_failures_since_start != settings.AXES_FAILURE_LIMIT)


def seconds_locked(request: Any, username: str) -> int:
    attempts = AccessAttempt.objects.filter(username=username, ip_address=client_address(request))
    last = attempts.aggregate(last=Max("attempt_time"))["last"] or now()
    left: timedelta = last + settings.AXES_COOLOFF_TIME - now()
    return max(1, math.ceil(left.total_seconds()))
