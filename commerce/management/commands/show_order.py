"""`manage.py show_order`: an order as the API shows it, now or at an earlier time, computed from its events."""

from datetime import datetime
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from rest_framework.exceptions import ValidationError

from commerce.api.json import JSONRenderer
from events.database import require_database
from events.wire.timestamps import TimestampField, rfc3339
from orders.history import BrokenHistory, order_as_of
from orders.models import Order
from orders.serializers import OrderSerializer


class Command(BaseCommand):
    help = "Print an order as JSON, computed from its events: as they leave it now, or as it was at an earlier time."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("order_id", type=int, metavar="ID", help="the id of the order")
        parser.add_argument(
            "--as-of", metavar="TIMESTAMP", help="RFC 3339 with an offset, such as 2025-01-30T10:15:30Z (default: now)"
        )

    def handle(self, *args: Any, order_id: int, as_of: str | None, **options: Any) -> None:
        moment = None if as_of is None else _moment(as_of)
        shown = f"Order {order_id}" + (f" as of {rfc3339(moment)}" if moment else "")
        require_database()
        try:
            order = Order.objects.get(pk=order_id)
            then = order_as_of(order, moment)
        except Order.DoesNotExist as error:
            raise CommandError(f"There is no order {order_id}.") from error
        except BrokenHistory as error:
            raise CommandError(f"{shown} is not known: {error}.") from error
        except Error as error:
            raise CommandError(f"The database failed: {str(error).strip()}") from error
        if then is None:
            raise CommandError(f"{shown} had no event yet: it was placed at {rfc3339(order.created_at)}.")
        self.stdout.write(msgspec.json.format(JSONRenderer().render(OrderSerializer(then).data), indent=2).decode())


def _moment(text: str) -> datetime:
    """Return the time that `text` names. Raise CommandError if it is malformed."""
    try:
        return TimestampField().run_validation(text)
    except ValidationError as error:
        raise CommandError(f"--as-of is {text!r}. {' '.join(map(str, error.detail))}") from error
