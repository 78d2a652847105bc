#!/usr/bin/env python
"""Django's command line. While `make run` is up, it finds that run's database, broker and keys."""

import os
import sys
from pathlib import Path

import environ
from django.core.management import execute_from_command_line

RUN_ENV = Path(__file__).resolve().parent / "var" / "run.env"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
    if RUN_ENV.exists():
        environ.Env.read_env(RUN_ENV)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
