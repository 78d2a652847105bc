"""Take messages about fulfilments. State, steps, the order's change, and the next command commit together.

Every change first locks the rows of its orders, in the order of their ids. After that it waits for no other lock.
"""

from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils.functional import Promise
from prometheus_client import Counter

from events.bulk import insert_rows, update_rows
from events.outbox import recording as outbox
from events.prepared import PreparedStatement
from events.wire.messages import Message
from fulfilment.commands import charge, command_of
from fulfilment.models import Fulfilment, FulfilmentDeadline
from fulfilment.transitions import (
    CANCEL,
    DEADLINE,
    REPLIES,
    RESOLVE,
    RETRY,
    SHOWN,
    TABLE,
    UNDO,
    OrderChange,
    State,
    Then,
)
from orders.services import (
    LOCK_IF_PENDING,
    Change,
    find_order,
    lock_orders,
    mark_as_cancelled,
    mark_as_paid,
    save_changes,
)

APPLIED, IGNORED = "applied", "ignored"
messages_total = Counter(
    "fulfilment_messages_total", "Messages about fulfilments, by whether they changed one.", ["message", "outcome"]
)
entered_total = Counter("fulfilment_states_total", "How often a fulfilment came into a state.", ["state"])
for _message in (*REPLIES, DEADLINE, CANCEL, UNDO, RETRY, RESOLVE):
    for _outcome in (APPLIED, IGNORED):
        messages_total.labels(_message, _outcome)
for _state in set(SHOWN.values()):
    entered_total.labels(_state)


_BEGIN = PreparedStatement(
    f"""
    WITH pending AS ({LOCK_IF_PENDING}), begun AS (
        INSERT INTO fulfilment_fulfilment (order_id, state, reason, created_at, changed_at, deadline_at, last_sequence)
        SELECT id, %s, '', %s, %s, %s, %s FROM pending
        ON CONFLICT DO NOTHING
        RETURNING order_id
    ), step AS (
        INSERT INTO fulfilment_fulfilmentstep
            (fulfilment_id, command_id, step, state, attempts, number, at, by_hand, reason)
        SELECT order_id, %s, %s, %s, %s, %s, %s, false, '' FROM begun
    ), deadline AS (
        INSERT INTO fulfilment_fulfilmentdeadline (fulfilment_id, at, due_at) SELECT order_id, %s, %s FROM begun
    )
    {outbox.insert_from("begun")}
    """  # noqa: S608 - contains no input
)
"""Statement that inserts a new fulfilment, its first step, its deadline and its first command. It inserts nothing if
the order is not PENDING or has a fulfilment already.

It is a transaction by itself. Every checkout waits for it, and four INSERTs would take six round trips.
"""


class News(NamedTuple):
    """A message to apply to one fulfilment: a reply, a passed deadline, or a request such as `CANCEL`.

    `reason` is the text for people that a reply brings.
    """

    order_id: int
    message: str
    reason: str = ""
    deadline_at: datetime | None = None
    """The deadline that has passed. Only the message `DEADLINE` has one. The message is ignored unless the fulfilment
    still has this deadline."""


class NotPossible(Exception):
    """The state of the order or of its fulfilment does not allow what a person asks for."""

    def __init__(self, text: str | Promise) -> None:
        super().__init__(str(text))


class Advanced(NamedTuple):
    """A changed fulfilment, and the recorded messages. Publish them after the commit."""

    fulfilment: Fulfilment
    messages: list[Message]


def check_out(*, order_id: int, user_id: int, payment_token: str) -> Advanced:
    """Begin the fulfilment of an order.

    Return the fulfilment and its first command, which the caller publishes after the commit.

    Raises:
        ObjectDoesNotExist: there is no such order, or it does not belong to `user_id`.
        NotPossible: the order is not PENDING, or has a fulfilment already.
    """
    order = find_order(order_id=order_id, user_id=user_id)
    fulfilment = Fulfilment(order_id=order_id)
    fulfilment.begin(at=order.read_at)
    command = charge(fulfilment, amount=order.total_amount, payment_token=payment_token)
    if not _insert(fulfilment, command):
        if Fulfilment.objects.filter(pk=order_id).exists():
            raise NotPossible(f"{order} was checked out before.")
        order.refresh_from_db(fields=["status"])
        raise NotPossible(f"{order} is {order.status} and cannot be checked out.")
    _count(Tally(), Tally([fulfilment.shown_state]))
    return Advanced(fulfilment, [command])


def _insert(fulfilment: Fulfilment, command: Message) -> bool:
    """Insert a fulfilment that has just begun, with its step, its deadline and its first command.

    Return False, and insert nothing, if the order is not PENDING or has a fulfilment already.
    """
    (step,) = fulfilment.begun_steps
    with connection.cursor() as cursor:
        _BEGIN.execute(
            cursor,
            [
                *(fulfilment.pk, fulfilment.state, fulfilment.created_at, fulfilment.changed_at),
                *(fulfilment.deadline_at, fulfilment.last_sequence),
                *(step.command_id, step.step, step.state, step.attempts, step.number, step.at),
                *(fulfilment.deadline_at, fulfilment.deadline_at),
                *command,
            ],
        )
        return cursor.rowcount == 1


def ask(message: str, *, order_id: int) -> Advanced:
    """Apply an operator's message, `UNDO`, `RETRY` or `RESOLVE`, to the fulfilment of one order.

    Return the changed fulfilment and the recorded messages, which the caller publishes after the commit. Raises
    NotPossible if the fulfilment's state does not allow the message.
    """
    with transaction.atomic():
        (fulfilment,), messages, applied = _advance([News(order_id, message)])
    if not applied:
        raise NotPossible(fulfilment.get_state_display())
    return Advanced(fulfilment, messages)


def cancel(order: Any) -> list[Message]:
    """Begin to undo the fulfilment of an order, and return the recorded messages, which the caller publishes.

    The order is cancelled when the undoing ends. A fulfilment stays as it is if it is stuck, has been cancelled, or is
    already being undone.
    """
    return advance([News(order.pk, CANCEL)])


@transaction.atomic
def advance(news: Sequence[News]) -> list[Message]:
    """Apply messages in the given sequence. Record the outbox messages that follow from them, and return these.

    The caller publishes them after the commit. If `TABLE` has no entry for the fulfilment's state and a message, this
    message changes at most the step that it answers.
    """
    return _advance(news)[1]


def _advance(news: Sequence[News]) -> tuple[list[Fulfilment], list[Message], int]:
    """Apply messages as `advance` does.

    Return the fulfilments of the messages' orders, the outbox messages that were recorded, and the number of messages
    that were applied and not ignored. The `UNDO` messages that `_with_undoing` adds count, too.
    """
    orders = lock_orders({one.order_id for one in news})
    fulfilments = Fulfilment.objects.prefetch_related("step_rows").in_bulk(list(orders))
    changes: list[Change] = []
    commands: list[Message] = []
    deadlines: list[FulfilmentDeadline] = []
    outcomes: Tally[tuple[str, str]] = Tally()
    entered: Tally[str] = Tally()
    for one in _with_undoing(news, orders=orders, fulfilments=fulfilments):
        fulfilment, order = fulfilments[one.order_id], orders[one.order_id]
        shown_before = fulfilment.shown_state
        is_current = one.deadline_at in (None, fulfilment.deadline_at)
        then = fulfilment.take(one.message, at=order.read_at, reason=one.reason) if is_current else None
        outcomes[one.message, APPLIED if then else IGNORED] += 1
        if then is None:
            continue
        if fulfilment.shown_state != shown_before:
            entered[fulfilment.shown_state] += 1
        changes += _change_order(order, then)
        if then.command:
            commands.append(command_of(then.command, fulfilment, lines=order.lines))
        if fulfilment.deadline_at:
            deadlines.append(_deadline(fulfilment))
    save_changes(*changes)
    _save(list(fulfilments.values()), deadlines=deadlines)
    outbox.record_all(commands)
    _count(outcomes, entered)
    recorded = [*(change.event for change in changes), *commands]
    return list(fulfilments.values()), recorded, sum(n for (_, outcome), n in outcomes.items() if outcome == APPLIED)


def _with_undoing(
    news: Sequence[News], *, orders: Mapping[int, Any], fulfilments: Mapping[int, Fulfilment]
) -> Iterator[News]:
    """Yield the messages. Yield `UNDO` before a message if its order is cancelled and `TABLE` can undo the fulfilment.

    A process of an older release, which has no fulfilments, can cancel an order and leave its fulfilment unchanged. An
    operator's message gets no `UNDO` before it, because the operator decides what becomes of the order.
    """
    for one in news:
        may_undo = (State(fulfilments[one.order_id].state), UNDO) in TABLE
        if may_undo and one.message not in (UNDO, RETRY, RESOLVE) and orders[one.order_id].status == "CANCELLED":
            yield News(one.order_id, UNDO)
        yield one


def _change_order(order: Any, then: Then) -> list[Change]:
    if then.order is OrderChange.PAY:
        return [mark_as_paid(order)]
    # A fulfilment that ends a second time, after a contradicting reply, finds the order cancelled.
    if then.order is OrderChange.CANCEL and order.status != "CANCELLED":
        return [mark_as_cancelled(order)]
    return []


def _deadline(fulfilment: Fulfilment) -> FulfilmentDeadline:
    assert fulfilment.deadline_at is not None
    return FulfilmentDeadline(fulfilment=fulfilment, at=fulfilment.deadline_at, due_at=fulfilment.deadline_at)


def _save(fulfilments: Sequence[Fulfilment], *, deadlines: Sequence[FulfilmentDeadline]) -> None:
    """Update the rows of fulfilments, insert or update those of steps, and insert those of deadlines.

    This takes one statement a table.
    """
    update_rows(fulfilments, ["state", "reason", "changed_at", "deadline_at", "last_sequence"])
    steps = [step for fulfilment in fulfilments for step in fulfilment.steps.values()]
    insert_rows(steps, update=["state", "by_hand", "reason", "attempts", "at"])
    insert_rows(deadlines)


def _count(outcomes: Tally[tuple[str, str]], entered: Tally[str]) -> None:
    def count() -> None:
        for (message, outcome), number in outcomes.items():
            messages_total.labels(message, outcome).inc(number)
        for state, number in entered.items():
            entered_total.labels(state).inc(number)

    transaction.on_commit(count, robust=True)
