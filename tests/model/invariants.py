"""Invariants of orders, outbox, topics and notifications, which hold after every step."""

from collections import Counter, defaultdict
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine, invariant

from events.models import DeadLetter, OutboxEvent
from events.subscriptions import dead_letter_topic
from notifications.models import Notification
from orders.models import Order
from tests.model.pipeline import TOPIC, Pipeline, event_id, is_unhandled


class Invariants(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pipeline = Pipeline()
        self.history: dict[int, list[str]] = {}
        """The event types of each order's committed changes, by order id."""
        self._positions: dict[int, tuple[str, int, int]] = {}

    @invariant()
    def everything_holds(self) -> None:
        rows = list(OutboxEvent.objects.all())
        notified = Counter(Notification.objects.values_list("event_id", flat=True))
        letters = Counter(DeadLetter.objects.filter(state="open").values_list("partition", "offset"))
        self.every_change_has_its_row_and_every_row_its_change(rows)
        self.every_row_is_pending_or_on_its_topic(rows)
        self.the_numbers_of_every_order_arrive_in_order()
        self.every_consumed_event_has_one_notification_or_one_open_dead_letter(notified, letters)
        self.no_event_is_notified_twice_or_without_a_record(notified, letters)
        assert Counter(row.event_type for row in rows)["DEAD_LETTER"] == letters.total()

    def every_change_has_its_row_and_every_row_its_change(self, rows: list[OutboxEvent]) -> None:
        assert dict(Order.objects.values_list("pk", "last_sequence")) == {
            order_id: len(events) for order_id, events in self.history.items()
        }
        assert {(row.stream, row.sequence, row.event_type) for row in rows if row.stream} == {
            (f"order-{order_id}", number, event_type)
            for order_id, events in self.history.items()
            for number, event_type in enumerate(events, start=1)
        }

    def every_row_is_pending_or_on_its_topic(self, rows: list[OutboxEvent]) -> None:
        """Check that a published row's position never changes, and that the record there has the row's value."""
        arrived = {
            (topic, record.partition, record.offset): record.value
            for topic in (TOPIC, dead_letter_topic(TOPIC))
            for record in self.pipeline.broker.topics[topic]
        }
        for row in rows:
            assert row.parked_at is None
            if row.published_at:
                position = row.topic, row.published_partition, row.published_offset
                assert arrived[position] == (None if row.value is None else bytes(row.value))
                assert self._positions.setdefault(row.pk, position) == position

    def the_numbers_of_every_order_arrive_in_order(self) -> None:
        """Check that the first copies of each order's events are on the topic in sequence. Repeats do not count.

        `Pipeline` checks that number n+1 is sent only after number n is recorded as published.
        """
        arrived: dict[bytes, int] = defaultdict(int)
        for record in self.pipeline.broker.topics[TOPIC]:
            number = int(dict(record.headers).get("ce_sequence", 0))
            assert number <= arrived[record.key] + 1
            arrived[record.key] = max(number, arrived[record.key])

    def every_consumed_event_has_one_notification_or_one_open_dead_letter(
        self, notified: Counter[UUID], letters: Counter[tuple[int, int]]
    ) -> None:
        for record in self.pipeline.group.consumed():
            outcome = notified[event_id(record)], letters[record.partition, record.offset]
            assert outcome == ((0, 1) if is_unhandled(record) else (1, 0))

    def no_event_is_notified_twice_or_without_a_record(
        self, notified: Counter[UUID], letters: Counter[tuple[int, int]]
    ) -> None:
        records = self.pipeline.broker.topics[TOPIC]
        assert notified <= Counter({event_id(record) for record in records if not is_unhandled(record)})
        assert letters <= Counter((record.partition, record.offset) for record in records if is_unhandled(record))
