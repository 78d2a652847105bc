"""Shared modules do not use modules of tests. Folders have few modules, and names of tests are short.

Each test or file that a document names exists, and so does each test file that a module names.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.processes import CHECKOUT

APPS = ("commerce", "events", "fulfilment", "notifications", "orders", "payments", "sales", "shipping")
ROOMS = ("benchmarks", *APPS, "testkit", "tests")
SHARED = ("benchmarks", "testkit")
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
MODULES_IN_A_ROOM = 14
TEST_NAME_LENGTH = 60
TEST_FILE = re.compile(r"\b(?:[a-z_]+/)*tests/[\w/]+\.py\b")
MODULE_OF_TESTS = re.compile(r"\b(?:[a-z_]+\.)*tests\.[a-z_.]+")


def modules(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from (CHECKOUT / room).rglob("*.py")


def relative(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def test_functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {one.name for one in ast.walk(tree) if isinstance(one, functions) and one.name.startswith("test_")}


test_functions.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["from tests.faults import proxy", '"orders.tests.settings"', "import tests.model"])
def test_a_module_of_tests_is_recognised(text: str) -> None:
    assert MODULE_OF_TESTS.search(text)


@pytest.mark.parametrize("room", SHARED)
def test_shared_modules_use_no_module_of_tests(room: str) -> None:
    """Shared modules neither import a module of tests nor name one in a string, as DJANGO_SETTINGS_MODULE does."""
    used = {relative(path): MODULE_OF_TESTS.findall(path.read_text()) for path in modules(room)}
    assert len(used) > 10
    assert {path: names for path, names in used.items() if names} == {}


def test_no_room_is_crowded() -> None:
    """No folder has more than `MODULES_IN_A_ROOM` modules.

    The folders of the benchmarks may have more: a module for each measurement and for each program compared.
    """
    rooms = Counter(relative(path.parent) for path in modules(*APPS, "testkit", "tests") if path.name != "__init__.py")
    assert len(rooms) > 50
    assert {room: number for room, number in rooms.items() if number > MODULES_IN_A_ROOM} == {}


def test_names_of_tests_are_short() -> None:
    names = [name for path in modules(*APPS, "tests") for name in test_functions(path)]
    assert len(names) > 700
    assert sorted(name for name in names if len(name) > TEST_NAME_LENGTH) == []


@pytest.fixture(scope="module")
def names_of_tests() -> set[str]:
    """Return the names of all test functions and test modules, and of the test that docs/consumers.md shows."""
    names = {name for path in modules(*ROOMS) for name in {path.stem, *test_functions(path)}}
    return names | {"test_points", "test_paid_order_gives_points_once"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_test_that_a_document_names_exists(document: Path, names_of_tests: set[str]) -> None:
    text = document.read_text()
    assert sorted(set(re.findall(r"\btest_[a-z0-9_]+", text)) - names_of_tests) == []
    # docs/consumers.md and docs/leased-work.md let their reader make the apps `loyalty` and `warehouse`.
    files = re.findall(r"`((?!loyalty/|warehouse/)[a-z_]+/[a-z_/]+(?:\.py|/))`", text)
    assert sorted({file for file in files if not (CHECKOUT / file).exists()}) == []


def test_every_test_file_that_a_module_names_exists() -> None:
    """Docstrings name test files: each patch, for example, names the tests that guard it."""
    named = {(relative(path), name) for path in modules(*ROOMS) for name in TEST_FILE.findall(path.read_text())}
    assert named
    assert [one for one in sorted(named) if not (CHECKOUT / one[1]).exists()] == []
