"""Invalid settings are rejected at the start, all in one message."""

import os
from pathlib import Path

from testkit.processes import refusal_to_start


def test_production_names_all_missing_variables_at_once() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "KAFKA_"))}
    environment |= {"JWT_SIGNING_KEY": "short", "DJANGO_ALLOWED_HOSTS": "*", "THROTTLE_TOKEN": "often"}
    environment |= {"TRUSTED_PROXIES": "-1", "ADMIN_PATH": "api/"}
    del environment["DATABASE_URL"]
    words = refusal_to_start(environment)
    for problem in (
        "DJANGO_SECRET_KEY is not set",
        "JWT_SIGNING_KEY is shorter than 32",
        "DATABASE_URL is not set",
        "KAFKA_BOOTSTRAP_SERVERS is not set",
        "DJANGO_ALLOWED_HOSTS is *",
        "THROTTLE_TOKEN: 'often' is not a rate",
        "TRUSTED_PROXIES is '-1'",
        "ADMIN_PATH is 'api/'",
    ):
        assert problem in words


def test_all_malformed_numbers_are_named_at_once() -> None:
    wrong = {
        "KAFKA_TOPIC_PARTITIONS": "three",
        "KAFKA_API_VERSION": "new",
        "OUTBOX_RELAY_GRACE_SECONDS": "-1",
        "CONSUMER_DEATHS": "0",
    }
    words = refusal_to_start(os.environ | wrong)
    for name, value in wrong.items():
        assert f"{name} is {value!r}: give " in words


def test_production_refuses_keys_that_are_known() -> None:
    known = "development-only-secret-key-never-used-outside-debug-mode"
    words = refusal_to_start(os.environ | {"DJANGO_DEBUG": "false", "DJANGO_SECRET_KEY": known})
    assert "DJANGO_SECRET_KEY is the well-known value of development" in words


def test_a_database_other_than_postgresql_is_refused() -> None:
    for url in ("mysql://localhost/shop", "nonsense"):
        assert "DATABASE_URL must be postgresql://" in refusal_to_start(os.environ | {"DATABASE_URL": url})


def test_impossible_kafka_settings_are_named_at_the_start(tmp_path: Path) -> None:
    words = refusal_to_start(os.environ | {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SSL_CAFILE": "/nowhere.pem"})
    for problem in (
        "KAFKA_SASL_MECHANISM is '': give one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME is not set, but SASL_SSL needs it",
        "KAFKA_SASL_PASSWORD is not set, but SASL_SSL needs it",
        "KAFKA_SSL_CAFILE is '/nowhere.pem', which has no readable certificate: [Errno 2] No such file or directory",
    ):
        assert problem in words
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    words = refusal_to_start(os.environ | {"KAFKA_SECURITY_PROTOCOL": "TLS", "KAFKA_SSL_CAFILE": str(junk)})
    assert "KAFKA_SECURITY_PROTOCOL is 'TLS': give one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL" in words
    assert f"KAFKA_SSL_CAFILE is '{junk}', which has no readable certificate" in words
