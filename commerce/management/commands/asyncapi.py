"""`manage.py asyncapi`: print the AsyncAPI document of the events on Kafka."""

from pathlib import Path
from typing import Any

import yaml
from django.core.management.base import BaseCommand, CommandError, CommandParser

from commerce.api.asyncapi import as_yaml


class Command(BaseCommand):
    help = "Print the AsyncAPI 3 document of the topics and their messages."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--file", type=Path, help="write the document to this file instead")
        parser.add_argument("--validate", action="store_true", help="fail if the document is not valid AsyncAPI 3")

    def handle(self, *args: Any, file: Path | None, validate: bool, **options: Any) -> None:
        document = as_yaml()
        if validate:
            _validate(document)
        if file is None:
            self.stdout.write(document, ending="")
        else:
            file.write_text(document)


def _validate(document: str) -> None:
    # This package of requirements-dev.txt takes long to import: it has a model for every part of the specification.
    from asyncapi3.models.asyncapi import AsyncAPI3

    try:
        AsyncAPI3.model_validate(yaml.safe_load(document))
    except ValueError as error:
        raise CommandError(f"The document is not valid AsyncAPI 3: {error}") from error
