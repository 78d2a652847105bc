"""docker compose passes every variable of `.env.example` to the product's processes, with its documented default."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from commerce.devserver.provider.server import Options
from testkit.processes import CHECKOUT
from tests.repository.ways_to_run import COMPOSE, OF_COMPOSE

PROVIDER = COMPOSE["services"]["provider"]
EXAMPLE = (CHECKOUT / ".env.example").read_text()
DOCUMENTED = dict(re.findall("^(?:# )?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
SECRETS = {
    "DJANGO_SECRET_KEY": "s" * 50,
    "JWT_SIGNING_KEY": "j" * 32,
    "POSTGRES_PASSWORD": "pass-word_1",
}
"""Values for the variables that `.env.example` leaves empty and the operator must set."""
NOT_PASSED = {
    "DJANGO_DEBUG": "The image is for production, and lacks what development needs.",
    "PORT": "The proxy publishes it; the web server behind it has another port.",
    "POSTGRES_PASSWORD": "DATABASE_URL contains it.",
    "PROMETHEUS_MULTIPROC_DIR": "Containers share no folder; the web server makes one for its workers.",
    **dict.fromkeys(PROVIDER["environment"], "The development provider alone reads it."),
}
CHOSEN_BY_COMPOSE = {
    "DATABASE_URL": "postgresql://commerce:pass-word_1@postgres:5432/commerce",
    "DJANGO_ALLOWED_HOSTS": "localhost,127.0.0.1,web",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "TRUSTED_PROXIES": "1",
}
"""Variables that are empty in `.env.example`, with the values that compose gives them."""
PLACEHOLDER = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Z_]+)(?:(?P<rule>:-|:\?)(?P<text>[^${}]*))?\})")


class Missing(Exception):
    """A variable that the compose file requires is not set, so compose would refuse to start."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` as compose expands it: `$$`, `${X}`, `${X:-default}` and `${X:?message}` are replaced.

    Raises Missing if the variable of a `${X:?message}` is empty or not set.
    Source: https://docs.docker.com/reference/compose-file/interpolation/
    """

    def value(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        given = variables.get(found["name"], "")
        if given or found["rule"] is None:
            return given
        if found["rule"] == ":?":
            raise Missing(f"{found['name']}: {found['text']}")
        return found["text"]

    assert "$" not in PLACEHOLDER.sub("", text), f"{text!r} has a placeholder that this function does not support"
    return PLACEHOLDER.sub(value, text)


def environment(service: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that compose gives to a service, if compose runs with `variables`.

    A variable that has no value in the compose file gets its value from `variables`. If `variables` does not have it
    either, it is left out. Raises Missing if a variable that the service requires is empty or not set.
    """
    declared = COMPOSE["services"][service]["environment"]
    given = {
        name: variables.get(name) if text is None else interpolated(str(text), variables)
        for name, text in declared.items()
    }
    return {name: text for name, text in given.items() if text is not None}


def settings_with(variables: Mapping[str, str]) -> Any:
    """Return the `repr` of each setting but UNFOLD, by name, in a process with only these environment variables.

    Raises CalledProcessError if the settings refuse the variables.
    """
    code = (
        "import json, commerce.settings as s;"
        "print(json.dumps({name: repr(getattr(s, name)) for name in dir(s) if name.isupper() and name != 'UNFOLD'}))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(asked.stdout)


def strings(part: Any) -> list[str]:
    """Return all strings in a part of the compose file, except the keys of its mappings."""
    if isinstance(part, dict | list):
        return [text for one in (part.values() if isinstance(part, dict) else part) for text in strings(one)]
    return [part] if isinstance(part, str) else []


def test_the_products_services_are_known() -> None:
    ours = {"migrate", "web", "consumer", "sales", "relay", "mailer", "watcher", "fulfilment", "worker"}
    assert OF_COMPOSE.keys() == ours


def test_the_development_provider_gets_its_documented_variables() -> None:
    assert {name for name in DOCUMENTED if name.startswith("PROVIDER_")} == COMPOSE["services"]["provider"][
        "environment"
    ].keys()
    assert Options.from_environment(DOCUMENTED) == Options()


@pytest.mark.parametrize("service", OF_COMPOSE)
def test_every_documented_variable_reaches_every_process(service: str) -> None:
    assert DOCUMENTED.keys() - OF_COMPOSE[service]["environment"].keys() == NOT_PASSED.keys()


def test_every_variable_that_is_read_is_documented() -> None:
    source = "".join((CHECKOUT / "commerce" / name).read_text() for name in ("settings.py", "environment.py"))
    read = set(re.findall(r'\b(?:environment|self)\.[a-z_]+\(\s*"([A-Z_]+)"', source))
    assert {"KAFKA_SECURITY_PROTOCOL", "OUTBOX_QUEUE_SIZE", "THROTTLE_USER", "DJANGO_SECRET_KEY"} <= read
    # `make run` sets these two for its own processes.
    assert read - DOCUMENTED.keys() == {"DEVSERVER_SOCKET", "DEVSERVER_KEY"}


def test_compose_reads_no_variable_that_is_not_documented() -> None:
    asked = {found["name"] for text in strings(COMPOSE) for found in PLACEHOLDER.finditer(text) if found["name"]}
    assert {"POSTGRES_PASSWORD", "PORT"} <= asked <= DOCUMENTED.keys()


@pytest.mark.parametrize("service", OF_COMPOSE)
def test_the_example_becomes_what_it_documents(service: str) -> None:
    given = environment(service, DOCUMENTED | SECRETS)
    passed = {name: text for name, text in DOCUMENTED.items() if name not in NOT_PASSED}
    secrets = {name: text for name, text in SECRETS.items() if name not in NOT_PASSED}
    assert given == passed | CHOSEN_BY_COMPOSE | secrets
    assert not any(DOCUMENTED[name] for name in CHOSEN_BY_COMPOSE)


def test_the_proxys_port_is_the_documented_one() -> None:
    (port,) = COMPOSE["services"]["proxy"]["ports"]
    assert interpolated(port, DOCUMENTED) == "8080:8080"
    assert interpolated(port, {"PORT": "9000"}) == "9000:8080"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("service", OF_COMPOSE)
def test_a_secret_that_is_not_filled_in_is_named(service: str, name: str) -> None:
    with pytest.raises(Missing, match=f"^{name}: set it in .env, see .env.example"):
        environment(service, DOCUMENTED | SECRETS | {name: ""})


def test_the_example_has_the_settings_own_defaults() -> None:
    needed = SECRETS | CHOSEN_BY_COMPOSE
    assert settings_with(environment("web", DOCUMENTED | SECRETS)) == settings_with(needed)


@pytest.mark.parametrize("service", OF_COMPOSE)
def test_a_secured_kafka_reaches_the_settings(service: str) -> None:
    secured = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka-1.internal:9093,kafka-2.internal:9093",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": "order-service",
        "KAFKA_SASL_PASSWORD": "p$a{s}s",
        "KAFKA_API_VERSION": "2.3",
        "KAFKA_TOPIC_REPLICATION": "3",
        "OUTBOX_QUEUE_SIZE": "7",
        "CONSUMER_DEATHS": "4",
    }
    actual = settings_with(environment(service, DOCUMENTED | SECRETS | secured))
    expected = {name: repr(secured[name]) for name in secured if name.startswith(("KAFKA_SEC", "KAFKA_SASL"))} | {
        "KAFKA_BOOTSTRAP_SERVERS": repr(["kafka-1.internal:9093", "kafka-2.internal:9093"]),
        "KAFKA_API_VERSION": "(2, 3)",
        "KAFKA_TOPIC_REPLICATION": "3",
        "OUTBOX_QUEUE_SIZE": "7",
        "CONSUMER_DEATHS": "4",
    }
    assert {name: actual[name] for name in expected} == expected
