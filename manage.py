#!/usr/bin/env python
"""Django's command line. While `make run` is up, it uses the database, the broker and the keys of that run."""

import os
import sys
from pathlib import Path

from events.process.shutdown import end_at_once_until_ready

RUN_ENV = Path(__file__).resolve().parent / "var" / "run.env"
RUN_UNTIL_SIGNAL = (
    *("consume", "consume_order_events", "relay_outbox"),
    *("run_fulfilment", "send_emails", "watch_sales", "work"),
)
"""Commands that run until a signal, and must handle one from the first moment on."""


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in RUN_UNTIL_SIGNAL:
        end_at_once_until_ready()
    # Imported after the signal handlers are set, because these imports take a second.
    import environ
    from django.core.management import execute_from_command_line

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
    if RUN_ENV.exists():
        environ.Env.read_env(RUN_ENV)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
