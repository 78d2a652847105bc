#!/usr/bin/env python
"""Django's command line. While `make run` is up, it finds that run's database, broker and keys."""

import os
import sys
from pathlib import Path

from events.process.shutdown import end_at_once_until_ready

RUN_ENV = Path(__file__).resolve().parent / "var" / "run.env"
ENDED_BY_SIGNAL = ("consume_order_events", "relay_outbox")
"""Commands for which a signal is the ordinary end, from the first moment on."""


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in ENDED_BY_SIGNAL:
        end_at_once_until_ready()
    # After that, because it takes a second.
    import environ
    from django.core.management import execute_from_command_line

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
    if RUN_ENV.exists():
        environ.Env.read_env(RUN_ENV)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
