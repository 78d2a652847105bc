"""The leased work (`events.work`) of fulfilments: the deadlines of their commands."""

from contextlib import nullcontext

from django.db import transaction
from prometheus_client import Counter

from events.outbox.publisher import publish
from events.work.kinds import Kind, Results, register
from events.work.outcomes import Done, Outcome
from fulfilment.advancing import News, advance
from fulfilment.models import FulfilmentDeadline
from fulfilment.transitions import DEADLINE


def pass_deadline(deadline: FulfilmentDeadline) -> Outcome:
    """Return Done, and change nothing. `take_deadlines` handles the deadlines of the batch and locks their orders."""
    return Done()


def take_deadlines(results: Results[FulfilmentDeadline]) -> None:
    """Tell the fulfilments that their deadlines have passed, and delete the rows of these deadlines."""
    passed = [deadline for deadline, outcome in results if isinstance(outcome, Done)]
    messages = advance([News(one.fulfilment_id, DEADLINE, deadline_at=one.at) for one in passed])
    FulfilmentDeadline.objects.filter(pk__in=[one.pk for one in passed]).delete()
    transaction.on_commit(lambda: publish(messages), robust=True)


DEADLINES = register(
    Kind(
        name="fulfilment_deadlines",
        model=FulfilmentDeadline,
        session=lambda: nullcontext(pass_deadline),
        record=take_deadlines,
        outcomes_total=Counter("fulfilment_deadlines_total", "Deadlines of commands that have passed.", ["outcome"]),
        lease_s=60,
        action_s=1,
        first_pause_s=1,
        last_pause_s=30,
    )
)
