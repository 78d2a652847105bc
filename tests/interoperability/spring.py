"""A service on Spring Kafka, built by Maven. Its process executes one command per line of its input."""

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

from commerce.devserver import lifeline

PROJECT = Path(__file__).parent / "java"
BUILDS = Path(__file__).parent.parent.parent / "var" / "interoperability"
BUILD_TIMEOUT_S = 240
"""Seconds that a build may take. For the first build, Maven fetches Spring."""


class MissingProgram(Exception):
    """The machine lacks a program that the service needs."""


class BuildFailed(Exception):
    pass


class SpringService:
    def __init__(self, *, bootstrap_servers: str, log: Path) -> None:
        """Build and start the service. Raises MissingProgram, BuildFailed or subprocess.TimeoutExpired."""
        for program in ("java", "mvn"):
            if shutil.which(program) is None:
                raise MissingProgram(f"{program} is missing")
        build = _build()
        with log.open("wb") as errors:
            self._process = lifeline.start(
                ["java", "-cp", f"{build}/classes:{build}/dependency/*", "commerce.SpringService", bootstrap_servers],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log

    def do(self, *command: object) -> Any:
        """Execute a command and return its answer. Raises RuntimeError with the log's end if the service gives none."""
        self._process.stdin.write(" ".join(map(str, command)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The service on Spring Kafka has ended: {self._log.read_text()[-2000:]}")
        return json.loads(answer)

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _build() -> Path:
    """Build the sources with Maven, unless they were built before, and return the folder of the build."""
    sources = sorted(path for path in PROJECT.rglob("*") if path.is_file())
    digest = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    build = BUILDS / digest[:12]
    if not build.exists():
        part = build.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        maven = ["mvn", "-q", "-B", "-f", str(PROJECT / "pom.xml"), "compile", "dependency:copy-dependencies"]
        built = subprocess.run(
            [*maven, f"-Dtarget={part}", "-DincludeScope=runtime"],
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
        if built.returncode != 0:
            raise BuildFailed(built.stdout[-2000:] + built.stderr[-2000:])
        part.rename(build)
    return build
