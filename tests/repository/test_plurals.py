"""The texts that the product prints, logs and shows are right for one as well as for many."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.processes import CHECKOUT

APPS = ("commerce", "events", "fulfilment", "notifications", "orders", "payments", "sales", "shipping")
NOUNS = (
    "byte|character|consumer|error|event|group|header|letter|message|migration|minute|notification|order|part|partition|"
    "process|record|replay|row|second|time"
)
COUNTED = re.compile(rf"(?:\{{[^{{}}]*\}}+|%d|%s|%\(\w+\)[sd])\s(?:\w+\s)?(?:{NOUNS})(?:e?s)\b")
TRANSLATED_FORMS = {"ngettext", "ngettext_lazy", "npgettext", "npgettext_lazy"}
BLOCK_OF_FORMS = re.compile(r"{% blocktranslate count .*?{% endblocktranslate %}", re.DOTALL)

ALWAYS_MANY = {
    # The numbers are large limits, and sizes above such limits.
    "{} is shorter than {} characters",
    "may have {} characters each",
    "has more than {} characters",
    "more than {} bytes come out of it",
    "bytes are more than the CONSTANT",
    "bytes are larger than the CONSTANT",
    "{} bytes, more than CONSTANT",
    "{} headers, more than CONSTANT",
    "{} of {} characters",
    "cut, of {} bytes",
    "(the first %(shown)d of %(size)d bytes)",
    "(%(size)d bytes, too many to be shown)",
    "In %(minutes)d minutes: ",
    "can change at most %d rows",
    # The number is always five.
    "the {} bytes of a schema registry",
}
"""Texts with a number that is never 1, so that they need no singular."""


def texts(source: str) -> Iterator[str]:
    """Yield the strings in a module's source.

    In an f-string, the word `CONSTANT` replaces each value that uses a constant, and `{}` replaces each other value.
    Docstrings, and texts that have both a singular and a plural form, are left out.
    """
    tree = ast.parse(source)
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if node in skipped:
            skipped.update(ast.iter_child_nodes(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TRANSLATED_FORMS:
            skipped.update(node.args)
        elif isinstance(node, ast.JoinedStr):
            skipped.update(part for part in node.values if isinstance(part, ast.Constant))
            yield "".join(_shown(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _shown(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    names = {node.id if isinstance(node, ast.Name) else getattr(node, "attr", "") for node in ast.walk(part)}
    return "CONSTANT" if any(name.isupper() for name in names) else "{}"


def found(texts: Iterator[str]) -> list[str]:
    return [text for text in texts if COUNTED.search(text) and not any(known in text for known in ALWAYS_MANY)]


def files(*patterns: str) -> list[Path]:
    every = (file for app in APPS for pattern in patterns for file in (CHECKOUT / app).rglob(pattern))
    return sorted(file for file in every if not {"tests", "migrations"} & set(file.parts))


def test_no_text_of_a_module_has_the_plural_alone() -> None:
    modules = files("*.py")
    assert len(modules) > 100
    wrong = {file.relative_to(CHECKOUT): found(texts(file.read_text())) for file in modules}
    assert {file: of_file for file, of_file in wrong.items() if of_file} == {}


def test_no_text_of_a_page_has_the_plural_alone() -> None:
    pages = files("*.html", "*.js")
    assert len(pages) > 10
    wrong = {file.relative_to(CHECKOUT): found(iter([BLOCK_OF_FORMS.sub("", file.read_text())])) for file in pages}
    assert [file for file, of_file in wrong.items() if of_file] == []


@pytest.mark.parametrize(
    "source",
    [
        'f"{len(rows)} events could not be sent"',
        'logger.info("Sent %d events", sent)',
        'gettext("Replayed %(n)s dead letters.") % {"n": n}',
        'say("%s old processes" % n)',
    ],
)
def test_a_plural_alone_is_found(source: str) -> None:
    assert found(texts(f"x = {source}"))


@pytest.mark.parametrize(
    "source",
    [
        'f"{n} event{pluralize(n)} could not be sent"',
        'ngettext("%d event", "%d events", n) % n',
        'f"its {size} bytes are more than the {MAX_BYTES} that a message may have"',
        'f"{n} s after the signal"',
        'f"valid for {settings.LIFETIME.days} days, at most {MAX_BYTES // 2} bytes"',
        '"""{n} events"""',
    ],
)
def test_a_text_that_is_right_for_one_is_not_found(source: str) -> None:
    assert not found(texts(source))
