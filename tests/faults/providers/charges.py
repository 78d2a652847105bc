"""Record charges by SQL in the running site's database, and compare them with the provider's book."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID, uuid4

from payments.messages import charge_payment, refund_payment
from testkit.database import rows
from testkit.participants.provider import ProviderProcess

WORK = ("django", "work", "payments")
PAYMENTS = "payments_paymentcommand"


def env_of(provider: ProviderProcess) -> dict[str, str]:
    """Return the environment variables of a worker that waits at most a second for an answer."""
    return {**provider.env, "PAYMENT_PROVIDER_TIMEOUT_SECONDS": "1"}


def _record(command_id: UUID, command_type: str, reference: int, value: bytes | None) -> None:
    rows(
        f"INSERT INTO {PAYMENTS} (command_id, command_type, reference, value, deadline_at)"
        " VALUES (%(id)s, %(type)s, %(reference)s, %(value)s, now() + interval '5 minutes')",
        id=str(command_id),
        type=command_type,
        reference=reference,
        value=value,
    )


def record_charges(count: int, *, token: str = "tok_ok") -> list[UUID]:
    """Insert `count` commands to charge a payment as pending work of payments. Return the ids of the commands."""
    charges = [uuid4() for _ in range(count)]
    for number, charge_id in enumerate(charges):
        command = charge_payment(
            command_id=charge_id,
            reference=number,
            amount=Decimal("10.50"),
            payment_token=token,
            source="/shop",
            sequence=1,
        )
        _record(charge_id, command.event_type, number, command.value)
    return charges


def record_refund(charge_id: UUID) -> UUID:
    """Record the command of a refund, and return its id."""
    refund_id = uuid4()
    command = refund_payment(command_id=refund_id, reference=0, charge_id=charge_id, source="/shop", sequence=2)
    _record(refund_id, command.event_type, 0, command.value)
    return refund_id


def states(commands: Sequence[UUID]) -> Counter[str]:
    """Return how many of the commands have each state."""
    sql = f"SELECT state FROM {PAYMENTS} WHERE command_id = ANY(%(ids)s::uuid[])"
    return Counter(state for (state,) in rows(sql, ids=[str(one) for one in commands]))


def all_done(commands: Sequence[UUID]) -> bool:
    return states(commands) == {"done": len(commands)}


def replies(commands: Sequence[UUID]) -> Counter[tuple[UUID, str]]:
    """Return how often each command has each reply in the outbox."""
    sql = """
        SELECT convert_from(value, 'UTF8')::json ->> 'commandId', event_type FROM events_outboxevent
        WHERE topic = 'fulfilment-replies' AND event_type = ANY('{PAYMENT_CHARGED,PAYMENT_DECLINED,PAYMENT_FAILED,
            PAYMENT_REFUNDED,REFUND_FAILED}')
        """
    found = [(UUID(command_id), event_type) for command_id, event_type in rows(sql)]
    return Counter(reply for reply in found if reply[0] in commands)


def assert_charged_once(provider: ProviderProcess, charges: Sequence[UUID]) -> None:
    """Assert that the provider has charged each of `charges` once and nothing else, and that each has one reply."""
    book = provider.book("payments")
    assert {UUID(key) for key in book} == set(charges)
    assert all(entry["history"] == ["charged"] for entry in book.values())
    assert replies(charges) == {(charge_id, "PAYMENT_CHARGED"): 1 for charge_id in charges}


def has_polled(name: str) -> bool:
    """Return whether the last query of a session with this PGAPPNAME asked the database for due commands."""
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s AND query LIKE '%%WITH due AS%%'"
    return bool(rows(sql, name=name))
