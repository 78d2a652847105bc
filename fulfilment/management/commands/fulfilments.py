"""`manage.py fulfilments`: list the fulfilments that are under way or stuck."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from events.wire.timestamps import rfc3339
from fulfilment.models import Fulfilment


class Command(BaseCommand):
    help = "List the fulfilments that are under way or stuck, the oldest first, with the step that each waits for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--stuck", action="store_true", help="only those that wait for an operator")

    def handle(self, *args: Any, stuck: bool, **options: Any) -> None:
        rows = Fulfilment.objects.stuck() if stuck else Fulfilment.objects.unfinished()
        number = 0
        for fulfilment in rows.order_by("created_at").prefetch_related("step_rows").iterator(chunk_size=1_000):
            step = fulfilment.awaited_step
            assert step is not None
            self.stdout.write(
                f"order {fulfilment.pk}  {fulfilment.shown_state} since {rfc3339(fulfilment.changed_at)}  "
                f"{step.step} {step.command_id} {step.state}, attempts {step.attempts}"
                + (f": {' '.join(step.reason.split())}" if step.reason else "")
            )
            number += 1
        self.stdout.write(f"{number} {'stuck' if stuck else 'unfinished'}")
