"""Every regular expression that is applied to foreign text takes time proportional to the length of the text."""

import ast
import importlib
import logging
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.validators import EmailValidator
from django.http.request import host_validation_re
from django.urls import URLResolver, get_resolver
from opentelemetry.trace import span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from commerce.observing import log_lines
from events.correlation import trace_context

PACKAGES = ("events", "orders", "notifications", "sales", "payments", "shipping", "fulfilment", "commerce")
CHECKOUT = Path(__file__).parent.parent.parent
PIECES = (
    *("a", "0", " ", "\t", "-", ".", ",", ":", "/", "@", "=", '"', "'", "\\", "\n", "[", "é"),
    *("://", "eyJ", "eyJ-", "token", "token=", 'token="', "Bearer ", "access", "/email/opt-out/"),
)
TEXT_LENGTH = 8_000
"""Length of a tested text in characters. A quadratic pattern takes at least 30 ms for it, a linear one below 1 ms."""
NOTICEABLE_S = 0.005


def modules() -> Iterator[Any]:
    for package in PACKAGES:
        for found in pkgutil.walk_packages([str(CHECKOUT / package)], f"{package}."):
            if not re.search(r"\.(tests|migrations|wsgi)\b", found.name):
                yield importlib.import_module(found.name)


def compiled(value: Any) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from compiled(part)


def spelled_in(source: str) -> Iterator[tuple[str, str]]:
    """Yield (pattern, function) for each pattern that the source passes to a function of `re` or as `pattern=`.

    For `pattern=`, the function is `search`. Patterns of `re.compile` are left out.
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "re" else ""
        given = [*(node.args[:1] if called else ()), *(word.value for word in node.keywords if word.arg == "pattern")]
        for pattern in given:
            if called != "compile" and isinstance(pattern, ast.Constant) and isinstance(pattern.value, str):
                yield pattern.value, called or "search"


def of_paths(resolver: Any) -> Iterator[re.Pattern[str]]:
    for pattern in resolver.url_patterns:
        yield pattern.pattern.regex
        if isinstance(pattern, URLResolver):
            yield from of_paths(pattern)


def ours() -> dict[str, tuple[re.Pattern[Any], str]]:
    found: dict[str, tuple[re.Pattern[Any], str]] = {}
    for module in modules():
        source = Path(module.__file__).read_text()
        used = "search" if re.search(r"\.(search|sub|split|findall|finditer)\(", source) else "fullmatch"
        for value in vars(module).values():
            found |= {str(pattern.pattern): (pattern, used) for pattern in compiled(value)}
        found |= {pattern: (re.compile(pattern), how) for pattern, how in spelled_in(source)}
    return found


def of_libraries() -> dict[str, tuple[re.Pattern[Any], str]]:
    """Return the patterns that libraries apply to foreign text of any length, and how: by "search" or "fullmatch".

    The text is a host, a username, an e-mail address, a path or a trace header.
    """
    validator = User.username_validator
    searching = (
        re.compile(validator.regex.pattern, validator.flags),
        EmailValidator.user_regex,
        EmailValidator.domain_regex,
        TraceContextTextMapPropagator._TRACEPARENT_HEADER_FORMAT_RE,
        *of_paths(get_resolver()),
    )
    matching = (host_validation_re, span._member_pattern)
    return {str(one.pattern): (one, "search") for one in searching} | {
        str(one.pattern): (one, "fullmatch") for one in matching
    }


PATTERNS = ours() | of_libraries()


def seconds(do: Callable[[Any], object], text: Any) -> float:
    begun = time.thread_time()
    do(text)
    return time.thread_time() - begun


def slow_texts(do: Callable[[Any], object], *, as_bytes: bool = False) -> Iterator[str]:
    """Yield each piece of text whose repetition makes `do` take more than linear time."""

    def text(first: str, second: str, length: int) -> Any:
        made = ((first + second) * length)[:length] + "\0"
        return made.encode() if as_bytes else made

    for first, second in product(PIECES, repeat=2):
        if seconds(do, text(first, second, TEXT_LENGTH)) < NOTICEABLE_S:
            continue
        # Quadratic work grows sixteenfold at four times the length. Measure again and in turns, because the machine may
        # be busy.
        lengths = (TEXT_LENGTH // 4, TEXT_LENGTH)
        turns = [[seconds(do, text(first, second, length)) for length in lengths] for _ in range(10)]
        quarter, whole = map(min, zip(*turns, strict=True))
        if whole > NOTICEABLE_S and whole > 8 * quarter:
            yield first + second


@pytest.mark.parametrize("name", PATTERNS, ids=lambda name: name[:60])
def test_pattern_takes_time_in_proportion_to_its_text(name: str) -> None:
    pattern, used = PATTERNS[name]
    as_bytes = isinstance(pattern.pattern, bytes)
    nothing: Any = b"" if as_bytes else ""
    # `sub` searches the whole text, `fullmatch` starts at the beginning only.
    use = pattern.fullmatch if used == "fullmatch" else lambda text: pattern.sub(nothing, text)
    assert next(slow_texts(use, as_bytes=as_bytes), None) is None


def test_all_known_patterns_are_measured() -> None:
    assert {pattern.pattern for pattern, _ in log_lines._SECRETS} <= set(PATTERNS)
    assert {r"\A[!-~]{1,255}\Z", "[ -~]{1,255}", r"^orders/(?P<pk>[0-9]+)\Z"} <= set(PATTERNS)
    assert len(PATTERNS) > 30


@pytest.mark.parametrize("pattern", [r"\beyJ[\w-]*\.[\w-]+\.[\w-]*", r"[ \t]*,[ \t]*"])
def test_a_quadratic_pattern_is_found(pattern: str) -> None:
    assert next(slow_texts(lambda text: re.sub(pattern, "", text)), None) is not None


@pytest.fixture
def no_log_lines() -> Iterator[None]:
    """Switch logging off. Pytest's own handlers need milliseconds for a log line of thousands of lines."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_log_lines")
@pytest.mark.parametrize("header", ["traceparent", "tracestate"])
def test_headers_of_a_trace_are_read_in_linear_time(header: str) -> None:
    headers = {"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    slow = slow_texts(lambda text: trace_context((headers | {header: text}).items()), as_bytes=True)
    assert next(slow, None) is None
