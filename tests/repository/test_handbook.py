"""The commands and files that README and docs/ name exist and work as described."""

import gettext
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands

from testkit.processes import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
LOCALE = Path("commerce/locale")
IMAGE_LIMIT_BYTES = 150 * 1024


def section(document: str, title: str) -> str:
    """Return the text of a section: after the heading of level 2 with this title, and before the next one."""
    return (CHECKOUT / document).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def korean(folder: Path) -> str:
    """Return "dead letters" in Korean by the compiled catalogue in this folder; without one, the English text."""
    return gettext.translation("django", folder, ["ko"], fallback=True).gettext("dead letters")


def test_the_way_without_docker_compiles_the_catalogue(tmp_path: Path) -> None:
    (command,) = re.findall(r"^\$ pybabel (compile .+)$", section("README.md", "In production"), re.MULTILINE)
    shutil.copytree(CHECKOUT / LOCALE, tmp_path / LOCALE, ignore=shutil.ignore_patterns("*.mo"))
    assert korean(tmp_path / LOCALE) == "dead letters"
    pybabel = Path(sys.executable).parent / "pybabel"
    subprocess.run([pybabel, *command.split()], cwd=tmp_path, capture_output=True, check=True)
    assert korean(tmp_path / LOCALE) == "데드 레터"


def test_the_way_without_docker_installs_what_it_calls() -> None:
    installed = re.findall(r"^\$ pip install --require-hashes -r (\S+)$", README, re.MULTILINE)
    assert installed == ["pins/requirements.txt", "pins/requirements-build.txt"]
    pins = "".join((CHECKOUT / file).read_text().lower() for file in installed)
    for package in ("babel", "django", "granian"):
        assert re.search(rf"^{package}==", pins, re.MULTILINE)


def test_make_alone_explains_every_target() -> None:
    (declared,) = re.findall(r"^\.PHONY: (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    # Without the variables of the `make` that may run this test.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    made = subprocess.run(["make"], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=True)
    told = dict(re.findall(r"^make (\S+) +(\S.+)$", made.stdout, re.MULTILINE))
    assert len(told) == len(made.stdout.splitlines())
    assert set(told) == set(declared.split())


def test_the_readme_names_every_target() -> None:
    (declared,) = re.findall(r"^\.PHONY: (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([a-z-]+)", README)) >= set(declared.split()) - {"help"}


def test_the_readme_names_every_file_of_requirements() -> None:
    there = {str(file.relative_to(CHECKOUT)) for file in CHECKOUT.glob("requirements*.txt")}
    there |= {str(file.relative_to(CHECKOUT)) for file in CHECKOUT.glob("deploy/requirements*.txt")}
    number, listed = README.split("Requirements stand in ")[1].split(" files: ")
    assert set(re.findall(r"`((?:deploy/)?requirements[a-z-]*\.txt)`", listed)) == there
    assert number == {3: "three", 4: "four", 5: "five", 6: "six"}[len(there)]


@pytest.mark.parametrize(
    ("document", "title"), [("docs/operations.md", "Tables grow"), ("docs/security.md", "In operation")]
)
def test_every_command_that_prunes_is_run_daily(document: str, title: str) -> None:
    commands = {name for name in get_commands() if name.startswith("prune_")}
    assert commands == {"prune_events", "prune_idempotency_keys", "prune_logins"}
    assert set(re.findall(r"manage\.py (prune_[a-z_]+)", section(document, title))) == commands
    assert "once a day" in section(document, title).lower()


def test_the_images_of_the_readme_are_there_and_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\((\S+)\)", README)
    assert sorted(shown) == sorted(str(file.relative_to(CHECKOUT)) for file in (CHECKOUT / "docs").rglob("*.png"))
    assert {name for name in shown if (CHECKOUT / name).stat().st_size > IMAGE_LIMIT_BYTES} == set()
