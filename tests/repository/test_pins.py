"""All packages, images and GitHub actions are pinned, so that every installation gets the same files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
REQUIREMENTS = (
    "requirements.txt",
    "requirements-run.txt",
    "requirements-dev.txt",
    "deploy/requirements-image.txt",
    "deploy/requirements-build.txt",
)


def named(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the version of each `name==version` in a requirements file and in the files it includes.

    The names are normalized as on PyPI.
    """
    text = path.read_text()
    for included in re.findall(r"^-r (\S+)", text, re.MULTILINE):
        yield from named(path.parent / included)
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE):
        yield re.sub(r"[-_.]+", "-", name).lower(), version


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_pins_agree_with_requirements_and_constraints(file: str) -> None:
    """A file of pins (versions with hashes) contains all requirements, and contradicts no line of constraints.txt."""
    pins = dict(named(CHECKOUT / "pins" / Path(file).name))
    assert set(named(CHECKOUT / file)) <= set(pins.items()), "renew them: make pins"
    # constraints.txt lacks packages that only other platforms install.
    constraints = dict(named(CHECKOUT / "constraints.txt"))
    assert {name: version for name, version in pins.items() if constraints.get(name, version) != version} == {}


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_every_pin_has_a_hash(file: str) -> None:
    for pin in re.split(r"\n(?! )", (CHECKOUT / "pins" / Path(file).name).read_text().strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", pin), pin


def test_images_are_named_by_digest() -> None:
    compose = re.findall(r"^    image: (\S+)", (CHECKOUT / "docker-compose.yml").read_text(), re.MULTILINE)
    bases = re.findall(r"^FROM (\S+)", (CHECKOUT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    foreign = [name for name in compose if name != "commerce"] + bases
    assert len(foreign) >= 7
    assert [name for name in foreign if not re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", name)] == []
    assert len(set(bases)) == 1, "Both stages must have the same Python"


def test_actions_are_named_by_commit() -> None:
    used = re.findall(r"uses: \S+@(\S+)", (CHECKOUT / ".github/workflows/ci.yml").read_text())
    assert len(used) >= 3
    assert [name for name in used if not re.fullmatch("[0-9a-f]{40}", name)] == []


def test_ci_has_the_previous_release_and_two_pythons() -> None:
    """CI clones the whole history, and runs on the oldest supported Python beside the newest one."""
    ci = (CHECKOUT / ".github/workflows/ci.yml").read_text()
    assert re.search(r"actions/checkout@.*\n +with:\n(?: +#.*\n)* +fetch-depth: 0\n", ci)
    assert re.search(r'python: \["3\.11", "3\.\d+"\]', ci)
