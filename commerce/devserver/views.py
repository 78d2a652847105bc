"""Endpoints of the start page of `make run`, in addition to the REST API."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from rest_framework_simplejwt.tokens import AccessToken

from commerce.api.problems import problem_page
from commerce.devserver.access import from_this_machine
from commerce.devserver.control import ControlUnavailable, SwitchFailed, ask
from commerce.devserver.journeys import as_json, count, follow
from commerce.operations import figures
from notifications.subscriptions import NOTIFICATIONS

CUSTOMER = "demo"
MAX_ORDERS = 1_000
"""Largest number of orders whose progress a page may ask for. Reading their progress takes about 50 ms."""
DETAILED_ORDERS = 10
"""Number of newest orders whose events `state` returns one by one."""

OrderId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Followed(msgspec.Struct, forbid_unknown_fields=True):
    """A request's body: the ids of the orders that the start page has placed."""

    orders: Annotated[list[OrderId], msgspec.Meta(max_length=MAX_ORDERS)]


class Switching(msgspec.Struct, forbid_unknown_fields=True):
    target: Annotated[str, msgspec.Meta(pattern="^(consumer|broker)$")]
    on: bool


@from_this_machine
def token(request: HttpRequest) -> HttpResponse:
    """Return an access token for the demo account, whatever password the account has."""
    customer = User.objects.filter(username=CUSTOMER).first()
    if customer is None or not customer.is_active:
        missing = "does not exist" if customer is None else "is not active"
        return problem_page(409, f"The account {CUSTOMER} {missing}. Change that in admin, or run make run again.")
    return JsonResponse({"access": str(AccessToken.for_user(customer))})


@from_this_machine
def state(request: HttpRequest) -> HttpResponse:
    """Return the state of the consumer and the broker, and the progress of the orders that the page follows."""
    try:
        followed = msgspec.json.decode(request.body, type=Followed)
        switches = ask(settings.DEVSERVER_SOCKET, settings.DEVSERVER_KEY)
    except msgspec.DecodeError as error:
        return problem_page(400, f"The list of orders cannot be read: {error}.")
    except ControlUnavailable as error:
        return problem_page(503, str(error))
    return JsonResponse(switches | _progress(followed.orders, broker_is_on=switches["broker"] == "on"))


@from_this_machine
def switch(request: HttpRequest) -> HttpResponse:
    """Stop or start the consumer or the broker, and return the state of both."""
    try:
        wanted = msgspec.json.decode(request.body, type=Switching)
        return JsonResponse(ask(settings.DEVSERVER_SOCKET, settings.DEVSERVER_KEY, target=wanted.target, on=wanted.on))
    except msgspec.DecodeError as error:
        return problem_page(400, f"The request to switch cannot be read: {error}.")
    except (ControlUnavailable, SwitchFailed) as error:
        return problem_page(503, str(error))


def _progress(order_ids: Sequence[int], *, broker_is_on: bool) -> dict[str, object]:
    # Kafka is read before the database, so that records below a committed offset have been saved by then.
    groups = (figures.kafka.latest(fresh_s=figures.FRESH_S, max_wait_s=0) or []) if broker_is_on else []
    partitions = [one for group in groups if group.group == NOTIFICATIONS.group for one in group.partitions]
    committed = {one.partition: one.current_offset or 0 for one in partitions}
    # No account has the id 0.
    user_id = User.objects.filter(username=CUSTOMER).values_list("pk", flat=True).first() or 0
    journeys = follow(order_ids, user_id=user_id)
    detailed = set(sorted(order_ids)[-DETAILED_ORDERS:])
    return {
        # A partition without a commit has not been read by any consumer yet.
        "lag": sum(one.end_offset if one.lag is None else one.lag for one in partitions) if partitions else None,
        "counts": count(journeys, order_ids, committed, user_id=user_id),
        "events": [as_json(journey) for journey in journeys if journey.order_id in detailed],
    }
