"""Valid and invalid values of environment variables. One message names all invalid ones."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from commerce.environment import Environment, Rate, parse_rate


def problems(environment: Environment) -> str:
    """Return the message of the error about the environment's invalid variables; an empty text if all are valid."""
    try:
        environment.refuse_problems()
    except ImproperlyConfigured as error:
        return str(error)
    return ""


def database(url: str) -> tuple[Environment, dict[str, object]]:
    environment = Environment({"DATABASE_URL": url})
    return environment, environment.postgresql("DATABASE_URL", in_development="")


def test_one_message_names_every_problem() -> None:
    environment = Environment({"DJANGO_DEBUG": "perhaps", "KEY": "short", "PARTITIONS": "three", "GRACE": "-1"})
    environment.key("KEY", in_development="known", min_length=50)
    environment.key("OTHER_KEY", in_development="known", min_length=50)
    assert environment.count("PARTITIONS", default=3) == 3
    assert environment.number("GRACE", default=2) == 2
    assert environment.choice("FORM", ("json", "text"), default="json") == "json"
    words = problems(environment)
    for problem in (
        "DJANGO_DEBUG is 'perhaps': give true or false",
        "KEY is shorter than 50 characters",
        "OTHER_KEY is not set",
        "PARTITIONS is 'three': give a whole number from 1 to 999999999",
        "GRACE is '-1': give a number",
    ):
        assert problem in words
    assert "FORM" not in words


def test_a_good_environment_is_not_refused() -> None:
    environment = Environment({"KEY": "k" * 50, "HOSTS": "shop.example, www.shop.example"})
    assert environment.key("KEY", in_development="known", min_length=50) == "k" * 50
    assert environment.allowed_hosts("HOSTS") == ["shop.example", "www.shop.example"]
    assert not problems(environment)


def test_an_empty_variable_has_its_default() -> None:
    environment = Environment({"COUNT": "", "FLAG": "", "FORM": "", "LIMIT": ""})
    assert environment.count("COUNT", default=3) == 3
    assert not environment.flag("FLAG")
    assert environment.choice("FORM", ("json", "text"), default="text") == "text"
    assert environment.rate("LIMIT", default="60/min") is None
    assert not problems(environment)


@pytest.mark.parametrize("value", ["$ecret", "$DATABASE_URL", "a$b", "${x}", "\\$", "pa,ss word", "#"])
def test_a_value_is_not_interpreted(value: str) -> None:
    environment = Environment({"PASSWORD": value, "DATABASE_URL": "other"})
    assert environment.text("PASSWORD") == value


@pytest.mark.parametrize(
    ("word", "meaning"), [("true", True), ("True", True), ("1", True), ("yes", True), ("false", False), ("0", False)]
)
def test_a_flag_has_the_usual_words(word: str, *, meaning: bool) -> None:
    environment = Environment({"DJANGO_DEBUG": word})
    assert environment.is_development is meaning
    assert not problems(environment)


@pytest.mark.parametrize(
    ("url", "host", "password"),
    [
        ("postgresql://u:secret@db:5432/shop", "db", "secret"),
        ("postgres://u:s%40%2F%23@db/shop", "db", "s@/#"),
        ("postgresql://u:$ecret@db/shop", "db", "$ecret"),
    ],
)
def test_a_url_of_postgresql_is_read(url: str, host: str, password: str) -> None:
    environment, described = database(url)
    assert (described["HOST"], described["PASSWORD"]) == (host, password)
    assert not problems(environment)


@pytest.mark.parametrize(
    "url", ["mysql://u:hidden@db/shop", "hidden", "postgresql://u:hidden/x@db/shop", "postgresql://u:hidden#x@db/shop"]
)
def test_a_bad_database_url_is_refused_and_not_shown(url: str) -> None:
    words = problems(database(url)[0])
    assert "DATABASE_URL must be postgresql://" in words
    assert "hidden" not in words


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60/min", Rate(60, 60)),
        ("1/s", Rate(1, 1)),
        ("600/h", Rate(600, 3600)),
        (" 5/d ", Rate(5, 86400)),
        ("", None),
    ],
)
def test_a_rate_is_read(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["60", "0/min", "-1/min", "1.5/min", "60/fortnight", "many/min", "60/", "/min"])
def test_a_malformed_rate_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)
