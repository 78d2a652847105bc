"""`manage.py asyncapi`: the events on Kafka as an AsyncAPI document."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from commerce.asyncapi import as_yaml


class Command(BaseCommand):
    help = "Print the AsyncAPI 3 document of the topics and their messages."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--file", type=Path, help="write it there instead")

    def handle(self, *args: Any, file: Path | None, **options: Any) -> None:
        if file is None:
            self.stdout.write(as_yaml(), ending="")
        else:
            file.write_text(as_yaml())
