"""The part of the AsyncAPI document about the commands to payments and shipping, and about the replies to them."""

from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from commerce.api.asyncapi_parts import channel, cloud_event, headers_of, keyed, operation
from events.kafka import MAX_MESSAGE_BYTES
from events.subscriptions import Topic, dead_letter_topic
from events.wire.commands import Reply, event_type_of
from payments import messages as payments
from shipping import messages as shipping

MEMBERS = {
    "eventId": "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
    "timestamp": "2025-01-30T10:15:30.123Z",
    "commandId": "0b0a3c1e-58ad-4b52-9d1c-9f6e2d7c8a11",
    "reference": 123,
}
MADE_BY = "7d1f0a52-0f3c-4c0b-8a52-3a1f5f6c9e10"
"""Id of the command that made a charge or a booking, in the example of the command that undoes it."""
KEY = "The `reference` in decimal digits."


class ChargePayment(payments.ChargePayment, frozen=True, kw_only=True, tag=payments.CHARGE_PAYMENT):
    """Charge an amount. The command's id is the charge's id."""

    # msgspec would describe a Decimal as a string, its default encoding.
    amount: Annotated[float, msgspec.Meta(ge=0, description="At most two decimals.")]  # type: ignore[assignment]


class Example(NamedTuple):
    """A command, and the members that its example has in addition to `MEMBERS`."""

    command: Any
    members: dict[str, Any]


class Vocabulary(NamedTuple):
    """The commands and replies of one participant."""

    name: str
    app: str
    """Name of the participant's app. The participant's consumer group has the same name."""
    commands: Topic
    replies: Topic
    reply: Any
    examples: tuple[Example, ...]


def _reply(name: str, event_types: tuple[str, ...]) -> Any:
    """Return a struct that describes a reply of one of these types."""
    fields: Any = [("event_type", Literal[event_types])]
    return msgspec.defstruct(name, fields, bases=(Reply,), frozen=True, kw_only=True, rename="camel")


VOCABULARIES = (
    Vocabulary(
        "payment",
        "payments",
        payments.PAYMENT_COMMANDS,
        payments.PAYMENT_REPLIES,
        _reply("PaymentReply", payments.REPLY_TYPES),
        (
            Example(ChargePayment, {"amount": Decimal("50000.00"), "paymentToken": "tok_ok"}),
            Example(payments.RefundPayment, {"chargeId": MADE_BY}),
        ),
    ),
    Vocabulary(
        "shipping",
        "shipping",
        shipping.SHIPPING_COMMANDS,
        shipping.SHIPPING_REPLIES,
        _reply("ShippingReply", shipping.REPLY_TYPES),
        (
            Example(shipping.BookShipment, {"items": [{"productId": 1, "quantity": 2}]}),
            Example(shipping.CancelShipment, {"bookingId": MADE_BY}),
        ),
    ),
)
STRUCTS = tuple(
    struct for one in VOCABULARIES for struct in (one.reply, *(example.command for example in one.examples))
)


def channels() -> dict[str, Any]:
    found: dict[str, Any] = {}
    replies: dict[str, list[str]] = {}
    for one in VOCABULARIES:
        names = [_name(example.command) for example in one.examples]
        found[f"{one.name}Commands"] = channel(one.commands.name, f"Commands to {one.name}.", names)
        found[f"{one.name}CommandsDeadLetters"] = channel(
            dead_letter_topic(one.commands.name),
            f"Messages of the topic of {one.name} commands that could not be handled.",
            ["deadLetter"],
            topicConfiguration={"max.message.bytes": MAX_MESSAGE_BYTES},
        )
        replies.setdefault(one.replies.name, []).append(f"{one.name}Reply")
    for topic, names in replies.items():
        found[_replies_channel(topic)] = channel(topic, "Replies to commands.", names)
        found[f"{_replies_channel(topic)}DeadLetters"] = channel(
            dead_letter_topic(topic),
            "Replies that could not be handled.",
            ["deadLetter"],
            topicConfiguration={"max.message.bytes": MAX_MESSAGE_BYTES},
        )
    return found


def operations() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in VOCABULARIES:
        for example in one.examples:
            name = _name(example.command)
            found[f"consume{name[0].upper()}{name[1:]}"] = operation(
                "receive", f"{one.name}Commands", name, groupId=one.app
            )
            found[f"publish{name[0].upper()}{name[1:]}"] = operation("send", f"{one.name}Commands", name)
        found[f"publish{one.reply.__name__}"] = operation(
            "send", _replies_channel(one.replies.name), f"{one.name}Reply"
        )
        found[f"consume{one.reply.__name__}"] = operation(
            "receive", _replies_channel(one.replies.name), f"{one.name}Reply", groupId="fulfilment"
        )
    return found


def messages() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in VOCABULARIES:
        for example in one.examples:
            event_type = event_type_of(example.command)
            payload = {"eventType": event_type, **MEMBERS, **example.members}
            found[_name(example.command)] = {
                "title": str(example.command.__doc__).partition(".")[0],
                "description": (
                    "A repeat has another `eventId` and the same `commandId`. It gets the reply again, or makes failed "
                    "work pending again. A sender without `ce_` headers is accepted too."
                ),
                "contentType": "application/json",
                "payload": {"$ref": f"#/components/schemas/{example.command.__name__}"},
                "bindings": keyed(KEY),
                "examples": [{"name": event_type.lower(), "payload": payload}],
            }
        reply_types = one.replies.event_types
        reply = {"eventType": next(iter(reply_types)), **MEMBERS, "reason": ""}
        source = f"/{one.app}"
        found[f"{one.name}Reply"] = {
            "title": f"What became of a {one.name} command",
            "contentType": "application/json",
            "headers": cloud_event(source, list(reply_types)),
            "payload": {"$ref": f"#/components/schemas/{one.reply.__name__}"},
            "bindings": keyed(KEY),
            "examples": [{"name": "done", "headers": headers_of(reply, source, "123"), "payload": reply}],
        }
    return found


def _name(command: Any) -> str:
    """Return the name of a command's message, such as `chargePayment`."""
    name = str(command.__name__)
    return name[0].lower() + name[1:]


def _replies_channel(topic: str) -> str:
    """Return the name of the channel for a topic of replies.

    Payments and shipping reply on one topic unless the settings name two.
    """
    first, *others = topic.split("-")
    return first + "".join(word.title() for word in others)
