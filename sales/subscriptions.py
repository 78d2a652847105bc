"""The subscription of the group `sales`, which adds each order event to the read models."""

from collections.abc import Sequence
from dataclasses import dataclass

from events.subscriptions import Subscription, register
from orders.events import ORDER_EVENTS
from sales.models import GROUP
from sales.sums.adding import add
from sales.sums.arrivals import Arrival, decode_arrival
from sales.sums.foreign import as_recorded, save_foreign


def add_up(arrivals: Sequence[Arrival]) -> None:
    """Add new events to the sums, each as the outbox or the history has recorded it.

    Events without such a record come from other programs. They are added as they arrived, and saved as copies. This
    takes one SELECT, one INSERT, and one more INSERT if there are copies to save.
    """
    recorded, foreign = as_recorded(arrivals)
    if foreign:
        save_foreign(foreign)
    add([*recorded, *foreign])


@dataclass(frozen=True, kw_only=True)
class SalesSubscription(Subscription[Arrival]):
    """A subscription that decodes each event together with its partition."""

    def decode_record(self, value: bytes | None, *, partition: int) -> Arrival:
        return decode_arrival(value, partition=partition)


SALES = SalesSubscription(group=GROUP, topic=ORDER_EVENTS, decode=decode_arrival, handle=add_up)
register(SALES)
