"""In the product, only modules and packages named `patches` use or override private parts of libraries.

Tests, `testkit` and `benchmarks` are not checked. Private parts are names with one leading underscore, modules that
kafka-python does not document, and attributes of a library's module or class that an assignment replaces.
"""

import ast
import importlib
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testkit.processes import CHECKOUT

PRODUCT = ("events", "orders", "notifications", "sales", "payments", "shipping", "fulfilment", "commerce")
DOCUMENTED = frozenset(
    (
        *("_asdict", "_fields", "_make", "_replace"),  # Of named tuples.
        "_exit",  # Of os.
        *("_base_manager", "_default_manager", "_meta", "_state"),  # Of Django's models.
    )
)
KAFKA_DOCUMENTS = ("kafka", "kafka.errors", "kafka.structs")
BY_NAME = ("getattr", "setattr", "hasattr", "delattr")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Use(NamedTuple):
    line: int
    what: str


class OwnClass(NamedTuple):
    """The names of the base classes of a class of the product, and the private names that the class defines itself."""

    bases: list[str]
    names: set[str]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


def is_ours(module: str) -> bool:
    return module.split(".")[0] in (*PRODUCT, "testkit", "tests", "conftest", "benchmarks")


def classes_of(tree: ast.AST) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def defined_names(definition: ast.ClassDef) -> set[str]:
    """Return the private names that a class binds in its body, or in its methods on `self` and `cls`."""
    names: set[str] = set()
    for node in body_of(definition):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return set(filter(is_private, names))


def body_of(definition: ast.ClassDef) -> Iterator[ast.AST]:
    """Yield all syntax nodes in the body of a class, except its nested classes with their contents."""
    waiting: list[ast.AST] = list(definition.body)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.ClassDef):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def own_classes(trees: Iterable[ast.AST]) -> dict[str, OwnClass]:
    """Return the classes that `trees` define, by name. Classes with the same name are merged."""
    found: dict[str, OwnClass] = {}
    for definition in (one for tree in trees for one in classes_of(tree)):
        one = found.setdefault(definition.name, OwnClass([], set()))
        one.bases.extend(ast.unparse(base).split("[")[0].split(".")[-1] for base in definition.bases)
        one.names.update(defined_names(definition))
    return found


def names_with_inherited(name: str, classes: dict[str, OwnClass]) -> set[str]:
    """Return the private names that the class `name` defines, or inherits from other classes of the product."""
    names: set[str] = set()
    waiting, seen = [name], set()
    while waiting:
        one = waiting.pop()
        if one in classes and one not in seen:
            seen.add(one)
            names |= classes[one].names
            waiting.extend(classes[one].bases)
    return names


def private_uses(tree: ast.AST, classes: dict[str, OwnClass]) -> Iterator[Use]:
    """Yield the uses of libraries' private parts in a module's source. The module is parsed, and not imported."""
    yield from _uses_in_classes(tree, classes)
    yield from _uses_by_name(tree)
    foreign: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names, is_private_import = _foreign_import(node)
            foreign |= names
            if is_private_import:
                yield Use(node.lineno, ast.unparse(node))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, ctx=ast.Store() | ast.Del()) if _root(value) in foreign:
                yield Use(node.lineno, f"{ast.unparse(node)} = ...")


def _foreign_import(node: ast.Import | ast.ImportFrom) -> tuple[set[str], bool]:
    """Return the names that an import statement binds to parts of libraries, and whether any of the parts is private.

    Modules that kafka-python does not document are private, too.
    """
    match node:
        case ast.ImportFrom(module=str(module), level=0, names=names) if not is_ours(module):
            parts = [*module.split("."), *(one.name for one in names)]
            bound = {one.asname or one.name for one in names}
            return bound, any(map(is_private, parts)) or not _is_documented_by_kafka(module)
        case ast.Import(names=names):
            modules = [one for one in names if not is_ours(one.name)]
            is_hidden = any(
                any(map(is_private, one.name.split("."))) or not _is_documented_by_kafka(one.name) for one in modules
            )
            return {one.asname or one.name.split(".")[0] for one in modules}, is_hidden
    return set(), False


def _uses_by_name(tree: ast.AST) -> Iterator[Use]:
    """Yield the uses of private attributes, also of those that `getattr` and the like name in a string.

    Attributes written as `self._x`, `cls._x` or `super()._x` are left out, because `_uses_in_classes` judges them.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=function), args=[_, ast.Constant(value=str(name)), *_]):
                if function in BY_NAME and is_private(name):
                    yield Use(node.lineno, ast.unparse(node))
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                continue
            case ast.Attribute(attr=name) if is_private(name):
                yield Use(node.lineno, ast.unparse(node))


def _uses_in_classes(tree: ast.AST, classes: dict[str, OwnClass]) -> Iterator[Use]:
    judged: set[ast.AST] = set()
    for definition in classes_of(tree):
        inherited = {
            name
            for base in definition.bases
            for name in names_with_inherited(ast.unparse(base).split("[")[0].split(".")[-1], classes)
        }
        ours = inherited | defined_names(definition)
        for node in body_of(definition):
            judged.add(node)
            match node:
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Load() | ast.Del()):
                    is_foreign = is_private(name) and name not in ours
                case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                    is_foreign = is_private(name) and name not in inherited
                case _:
                    continue
            if is_foreign:
                yield Use(node.lineno, f"{ast.unparse(node)} in {definition.name}")
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if node not in judged and is_private(name):
                yield Use(node.lineno, ast.unparse(node))


def _is_documented_by_kafka(module: str) -> bool:
    return module.split(".")[0] != "kafka" or module in KAFKA_DOCUMENTS


def _root(value: ast.expr) -> str | None:
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else None


def overrides(module: Any, tree: ast.AST) -> Iterator[Use]:
    """Yield the private names of the module's classes that override the same name of a library's base class.

    Classes within functions are left out, because they do not exist before the function runs.
    """
    definitions = {definition.name: definition for definition in classes_of(tree)}
    for one in _nested_classes(module, module.__name__):
        if (definition := definitions.get(one.__name__)) is None:
            continue
        for base in one.__mro__[1:]:
            if not is_ours(base.__module__) and (both := defined_names(definition) & _names_of_foreign(base)):
                yield Use(definition.lineno, f"{one.__qualname__} overrides {', '.join(both)} of {base.__qualname__}")


def _nested_classes(holder: Any, module: str) -> Iterator[type]:
    for one in vars(holder).values():
        if inspect.isclass(one) and one.__module__ == module:
            yield one
            yield from _nested_classes(one, module)


@cache
def _names_of_foreign(base: type) -> set[str]:
    names = set(vars(base))
    try:
        source = ast.parse(inspect.cleandoc(inspect.getsource(base)))
    except (OSError, TypeError, SyntaxError):
        # The class is written in C, or made at run time.
        return set(filter(is_private, names))
    names |= {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute) and _root(node.value) == "self"}
    return set(filter(is_private, names))


def product_modules() -> dict[str, Path]:
    """Return the product's modules by name, without tests, migrations and patches."""
    files = (file.relative_to(CHECKOUT) for root in PRODUCT for file in (CHECKOUT / root).rglob("*.py"))
    return {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__"): CHECKOUT / file
        for file in files
        if not {"tests", "migrations", "patches", "patches.py"} & set(file.parts)
    }


@cache
def parsed() -> dict[str, ast.AST]:
    return {name: ast.parse(file.read_text()) for name, file in product_modules().items()}


def test_only_patches_touch_private_parts_of_libraries() -> None:
    classes = own_classes(parsed().values())
    found = {name: sorted(private_uses(tree, classes)) for name, tree in parsed().items()}
    assert {name: uses for name, uses in found.items() if uses} == {}


def test_only_patches_override_private_parts_of_libraries() -> None:
    found = {name: list(overrides(importlib.import_module(name), tree)) for name, tree in parsed().items()}
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    "code",
    [
        "client._manager.refusal",
        "from kafka.vendor import _hidden",
        "from library._internal import name",
        "import library._internal",
        "from kafka.consumer.fetcher import Fetcher",
        "getattr(client, '_manager')",
        "setattr(client, '_manager', None)",
        "import library\nlibrary.reader = None",
        "from library import records\nrecords.Batch = None",
        "class Ours(Theirs):\n    def poll(self):\n        return self._fetcher",
        "class Ours(Theirs):\n    def poll(self):\n        return super()._poll()",
        "class Ours(Theirs):\n    def _poll(self):\n        return super()._poll()",
        "class Ours(Theirs):\n    @classmethod\n    def poll(cls):\n        return cls._fetcher",
        "class Ours(Theirs):\n    def poll(self):\n        self._fetcher.room = 0",
        "def poll(self):\n    return self._fetcher",
    ],
)
def test_a_private_use_is_found(code: str) -> None:
    tree = ast.parse(code)
    assert list(private_uses(tree, own_classes([tree]))) != []


@pytest.mark.parametrize(
    "code",
    [
        "row._replace(offset=1), Model._meta.db_table, os._exit(0), self.__class__",
        "from django.utils.translation import gettext as _",
        "from events.kafka.tests import _anything",
        "import kafka.errors\nfrom kafka import KafkaConsumer",
        "class Ours(Theirs):\n    _room = 0\n    def poll(self):\n        self._at = self._room\n        self._at += 1",
        "class Base:\n    _room = 0\nclass Ours(Base):\n    def poll(self):\n        return super()._room + self._room",
        "import library\nlibrary.Client().name",
    ],
)
def test_a_public_use_is_none(code: str) -> None:
    tree = ast.parse(code)
    assert list(private_uses(tree, own_classes([tree]))) == []


def test_an_override_is_found() -> None:
    """The modules named `patches` override private parts on purpose, so the search must find uses there."""
    for name, overridden in (
        ("events.kafka.patches.network", "_connect"),
        ("events.kafka.patches.group", "_append"),
        ("events.kafka.patches.batches", "_buffer"),
    ):
        module = importlib.import_module(name)
        found = list(overrides(module, ast.parse(Path(str(module.__file__)).read_text())))
        assert any(overridden in use.what for use in found), found
