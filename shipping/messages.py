"""The vocabulary of shipping: its commands and replies. Apps that send commands to shipping import only this module."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Final
from uuid import UUID, uuid4

import msgspec
from django.conf import settings

from events.subscriptions import Topic, register_topic
from events.wire import commands
from events.wire.commands import Command
from events.wire.messages import Message
from events.wire.timestamps import now

SHIPMENT_BOOKED: Final = "SHIPMENT_BOOKED"
SHIPMENT_REFUSED: Final = "SHIPMENT_REFUSED"
SHIPMENT_FAILED: Final = "SHIPMENT_FAILED"
"""Shipping gave up. The booking may have been made, so cancel it."""
SHIPMENT_CANCELLED: Final = "SHIPMENT_CANCELLED"
"""The booking was cancelled, or was never made and never will be."""
SHIPMENT_CANCELLATION_FAILED: Final = "SHIPMENT_CANCELLATION_FAILED"
REPLY_TYPES = (
    SHIPMENT_BOOKED,
    SHIPMENT_REFUSED,
    SHIPMENT_FAILED,
    SHIPMENT_CANCELLED,
    SHIPMENT_CANCELLATION_FAILED,
)

MAX_ITEMS: Final = 1_000


class Item(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    product_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class BookShipment(Command, frozen=True, kw_only=True, tag="BOOK_SHIPMENT"):
    """Book a shipment of these items. The command's id is the booking's id."""

    items: Annotated[tuple[Item, ...], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]


class CancelShipment(Command, frozen=True, kw_only=True, tag="CANCEL_SHIPMENT"):
    """Cancel a booking, or make sure that it is never made."""

    booking_id: UUID
    """The id of the booking's command."""

    @property
    def undone_id(self) -> UUID:
        return self.booking_id


BOOK_SHIPMENT: Final = commands.event_type_of(BookShipment)
CANCEL_SHIPMENT: Final = commands.event_type_of(CancelShipment)

SHIPPING_COMMANDS = register_topic(Topic.of_process("SHIPPING_COMMANDS_TOPIC", BOOK_SHIPMENT, CANCEL_SHIPMENT))
SHIPPING_REPLIES = register_topic(Topic.of_process("SHIPPING_REPLIES_TOPIC", *REPLY_TYPES))

encode = commands.encode
decode: Callable[[bytes | None], BookShipment | CancelShipment] = commands.decoder_of(BookShipment | CancelShipment)
"""Return the command in a record's value. It raises Poison for any other value."""
decode_reply = partial(commands.decode_reply, event_types=REPLY_TYPES)
"""Return the reply in a record's value. It raises Poison for any other value."""


def book_shipment(*, command_id: UUID, reference: int, items: Sequence[Item], source: str, sequence: int) -> Message:
    """Return the outbox message that commands a booking. `source` is the sending app, such as `/shop`.

    The messages of one `reference`, to all participants together, are sent in the order of `sequence`: 1, 2, 3 ...
    The outbox refuses the second message with the same reference and sequence.
    """
    command = BookShipment(
        event_id=uuid4(), timestamp=now(), command_id=command_id, reference=reference, items=tuple(items)
    )
    return commands.message(command, topic=settings.SHIPPING_COMMANDS_TOPIC, source=source, sequence=sequence)


def cancel_shipment(*, command_id: UUID, reference: int, booking_id: UUID, source: str, sequence: int) -> Message:
    """Return the outbox message that commands the cancellation of the booking `booking_id`. See `book_shipment`."""
    command = CancelShipment(
        event_id=uuid4(), timestamp=now(), command_id=command_id, reference=reference, booking_id=booking_id
    )
    return commands.message(command, topic=settings.SHIPPING_COMMANDS_TOPIC, source=source, sequence=sequence)
