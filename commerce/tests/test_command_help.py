"""What `manage.py COMMAND --help` says about every command of this project."""

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands, load_command_class

from testkit.processes import CHECKOUT

OURS = {config.name for config in apps.get_app_configs() if Path(config.path).parent == CHECKOUT}
COMMANDS = sorted((app, name) for name, app in get_commands().items() if app in OURS)


def arguments_without_help(parser: ArgumentParser) -> Iterator[str]:
    """Yield the names of options and arguments whose help is missing or does not state the default."""
    for argument in parser._actions:
        name = "/".join(argument.option_strings) or argument.dest
        if not (argument.help or "").strip() or argument.help == SUPPRESS:
            yield name
        elif argument.default not in (None, False, SUPPRESS) and not argument.choices:
            described = argument.help.replace("%(default)s", str(argument.default))
            if str(argument.default) not in described:
                yield f"{name}, whose default is {argument.default}"


def test_every_app_with_commands_is_looked_at() -> None:
    assert {app for app, _ in COMMANDS} == {"commerce", "events", "fulfilment", "notifications", "orders", "sales"}
    files = {file.stem for app in OURS for file in CHECKOUT.glob(f"{app}/management/commands/*.py")}
    assert {name for _, name in COMMANDS} == files - {"__init__"}


@pytest.mark.parametrize(("app", "name"), COMMANDS, ids=[name for _, name in COMMANDS])
def test_every_command_and_option_has_help(app: str, name: str) -> None:
    command = load_command_class(app, name)
    assert command.help.endswith(".")
    assert list(arguments_without_help(command.create_parser("manage.py", name))) == []


def test_an_option_without_help_is_found() -> None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--silent")
    parser.add_argument("--empty", help=" ")
    parser.add_argument("--hidden", help=SUPPRESS)
    parser.add_argument("--size", default=7, help="how many")
    parser.add_argument("--told", default=7, help="how many (default: %(default)s)")
    parser.add_argument("position")
    assert list(arguments_without_help(parser)) == [
        "--silent",
        "--empty",
        "--hidden",
        "--size, whose default is 7",
        "position",
    ]
