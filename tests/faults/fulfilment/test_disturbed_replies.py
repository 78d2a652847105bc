"""Replies that come late, twice, out of order or from a forger: money and orders agree nevertheless."""

import random
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

import msgspec

from events.wire.commands import Reply, encode
from fulfilment.transitions import REPLIES
from testkit.database import rows, value
from testkit.kafka_client import Message, Outgoing, produce_all, read_topic
from testkit.participants.provider import ProviderProcess
from testkit.waiting import wait_until
from tests.faults.checkouts import CONSUME_FULFILMENT, WORK_FULFILMENT, Checkouts
from tests.faults.conftest import Site, Start, StartWeb
from tests.faults.oracle import Oracle

TOPIC = "fulfilment-replies"
LATE = 24
"""Number of checkouts whose replies are held back until the deadlines of their payments have passed."""
IN_TIME = 60
SAFE_TO_FORGE = ("PAYMENT_DECLINED", "PAYMENT_FAILED", "SHIPMENT_REFUSED", "SHIPMENT_FAILED", "REFUND_FAILED")
"""Types of replies that this test forges even with the right command id.

Such a reply may cancel the order, but no money is lost.
"""


def replies_after(offsets: dict[int, int]) -> list[Message]:
    """Return the topic's replies from `offsets` on.

    `offsets` has the first offset of each partition; a partition that it lacks begins at 0.
    """
    return [one for one in read_topic(TOPIC) if one.offset >= offsets.get(one.partition, 0)]


def ends() -> dict[int, int]:
    return {one.partition: one.offset + 1 for one in read_topic(TOPIC)}


def doubled(messages: Sequence[Message]) -> Iterator[Outgoing]:
    """Yield each reply twice: as the same message, and with the same content under a new event id."""
    for one in messages:
        yield Outgoing(one.value, one.key, one.headers)
        reply = msgspec.json.decode(one.value or b"", type=Reply)
        yield Outgoing(encode(msgspec.structs.replace(reply, event_id=uuid4())), one.key)


def forged(steps: Sequence[tuple[int, str, UUID]]) -> Iterator[Outgoing]:
    """Yield forged replies of every type to the order of each step. Each names a command that it does not answer.

    Each of `steps` is (order id, step, command id). For each type, one reply names an unknown command, and a second one
    names the command of the next element of `steps`. The second one is left out if it would be the right reply to that
    command.
    """
    for (order_id, _, _), (other_id, other_step, command_id) in zip(steps, [*steps[1:], steps[0]], strict=True):
        for event_type, (answered, _) in REPLIES.items():
            yield _reply(order_id, event_type, uuid4())
            if (other_id, other_step) != (order_id, answered):
                yield _reply(order_id, event_type, command_id)


def contradicting(steps: Sequence[tuple[int, str, UUID]]) -> Iterator[Outgoing]:
    """Yield forged failures and refusals with the right command id, as replies to every tenth of `steps`.

    Each of `steps` is (order id, step, command id). A chosen step gets one reply of each type in `SAFE_TO_FORGE` that
    answers this step.
    """
    for order_id, step, command_id in steps[::10]:
        for event_type in SAFE_TO_FORGE:
            if REPLIES[event_type][0] == step:
                yield _reply(order_id, event_type, command_id)


def _reply(order_id: int, event_type: str, command_id: UUID) -> Outgoing:
    reply = {
        "eventId": str(uuid4()),
        "eventType": event_type,
        "timestamp": "2025-01-30T10:15:30.123Z",
        "commandId": str(command_id),
        "reference": order_id,
    }
    return Outgoing(msgspec.json.encode(reply), str(order_id).encode())


def steps_after(order_id: int) -> list[tuple[int, str, UUID]]:
    sql = "SELECT fulfilment_id, step, command_id::text FROM fulfilment_fulfilmentstep WHERE fulfilment_id > %(after)s"
    return [(one, step, UUID(command_id)) for one, step, command_id in rows(sql, after=order_id)]


def disturb(oracle: Oracle, since: dict[int, int]) -> None:
    """Send two copies of each reply from the offsets `since` on, mixed with forged replies, in a random order.

    One of the two copies has a new event id. `since` has the first offset of each partition. A partition that it lacks
    begins at 0.
    """
    steps = steps_after(oracle.started_after)
    messages = [*doubled(replies_after(since)), *forged(steps), *contradicting(steps)]
    random.shuffle(messages)
    produce_all(TOPIC, messages)


def test_disturbed_replies_keep_money_and_orders_agreed(
    site: Site,
    oracle: Oracle,
    checkouts: Checkouts,
    provider: ProviderProcess,
    env: dict[str, str],
    start: Start,
    start_web: StartWeb,
) -> None:
    since = ends()
    impatient = start_web(FULFILMENT_PAYMENT_TIMEOUT="1s")
    start("django", "consume", "payments", "shipping", **env)
    start(*WORK_FULFILMENT, **env)
    shoppers = [oracle.shopper(impatient.url) for _ in range(2)]
    for number in range(LATE):
        checkouts.buy(shoppers[number % 2], other=shoppers[number % 2 - 1])
    # No group takes the replies yet, so that the deadline of each payment passes.
    in_time = "SELECT count(*) FROM fulfilment_fulfilment WHERE order_id > %(after)s AND state = 'PAYING'"
    wait_until(lambda: value(in_time, after=oracle.started_after) == 0)
    late = set(checkouts.acknowledged)
    disturb(oracle, since)
    start(*(word for word in CONSUME_FULFILMENT if word not in ("payments", "shipping")), **env)
    with checkouts.shopping(site.web.url, customers=4, pause_s=0.05):
        for _ in range(3):
            checkouts.wait_for_more(IN_TIME // 3)
            disturb(oracle, since)
    states = checkouts.settle_and_compare(provider)
    assert min(states[state] for state in ("COMPLETED", "CANCELLED")) > 0, states
    ended = "SELECT order_id FROM fulfilment_fulfilment WHERE state = 'COMPLETED'"
    assert not late & {order_id for (order_id,) in rows(ended)}
    assert oracle.settle_and_compare().dead_letters == 0
    forgeries = "SELECT count(*) FROM events_deadletter WHERE topic = %(topic)s"
    assert value(forgeries, topic=TOPIC) == 0
