"""Reads and validates environment variables, and reports all invalid ones at once.

`commerce.settings` reads each variable through a method of one `Environment`. For an invalid value the method records
the problem and returns the value or a placeholder. At the end of the settings, `refuse_problems` names every problem.
An empty variable counts as not set, unless a method says otherwise.
"""

import re
import ssl
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from email.utils import parseaddr
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.mail.message import sanitize_address
from django.core.validators import validate_email

TRUE, FALSE = {"true", "on", "ok", "yes", "y", "1"}, {"false", "off", "no", "n", "0"}
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
"""Length in seconds of each unit of a rate or a duration."""
POSTGRESQL = "django.db.backends.postgresql"
KAFKA_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
EMAIL_PORTS = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465, "filemail": None}
"""Default port for each scheme of EMAIL_URL."""
EML_FILES = "notifications.mail.eml_files.EmailBackend"
EMAIL_DEFAULTS: dict[str, Any] = {
    "EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend",
    "EMAIL_HOST": "",
    "EMAIL_PORT": None,
    "EMAIL_HOST_USER": "",
    "EMAIL_HOST_PASSWORD": "",
    "EMAIL_USE_TLS": False,
    "EMAIL_USE_SSL": False,
    "EMAIL_FILE_PATH": None,
}
PATHS_IN_USE = ("api/", "devserver/", "email/", "health/", "metrics/", "static/")
"""First path segments that are in use, so that admin's path cannot begin with them."""


class Rate(NamedTuple):
    requests: int
    seconds: int
    """Seconds in which a client may send `requests` requests."""


def parse_rate(text: str) -> Rate | None:
    """Return the rate in a text such as `60/min`; None (no limit) for an empty text. Else raise ValueError."""
    if not text.strip():
        return None
    parts = re.fullmatch(r"([1-9][0-9]{0,8})/(s|min|h|d)", text.strip())
    if parts is None:
        raise ValueError(f"{text!r} is not a rate: give requests per s, min, h or d, such as 60/min")
    return Rate(int(parts[1]), SECONDS[parts[2]])


def _is_mail_server(email: Mapping[str, Any]) -> bool:
    """Return whether these EMAIL_ settings can work: a host, and either both user and password or neither.

    User and password must be ASCII, because smtplib encodes them as ASCII.
    """
    login = (email["EMAIL_HOST_USER"], email["EMAIL_HOST_PASSWORD"])
    return bool(email["EMAIL_HOST"]) and all(login) == any(login) and "".join(login).isascii()


class Environment:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._problems: list[str] = []
        self.is_development = self.flag("DJANGO_DEBUG")

    def refuse_problems(self) -> None:
        """Raise ImproperlyConfigured if any variable read so far is invalid. The message names each problem."""
        if self._problems:
            raise ImproperlyConfigured(
                f"Cannot start: {'; '.join(self._problems)}. "
                "Set them in the environment (see .env.example), or DJANGO_DEBUG=true for development."
            )

    # --- Values of any kind --------------------------------------------------------------------

    def text(self, name: str, *, default: str = "") -> str:
        # django-environ would treat a value that begins with $ as the name of another variable.
        return self._variables.get(name, "") or default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return whether the variable's value means true, such as `true` or `1`."""
        word = self.text(name, default=str(default)).strip().lower()
        if word not in TRUE | FALSE:
            self._problems.append(f"{name} is {word!r}: give true or false")
        return word in TRUE

    def count(self, name: str, *, default: int, least: int = 1) -> int:
        """Return the variable's value, an integer that is at least `least` and has at most nine digits."""
        text = self.text(name, default=str(default))
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
            self._problems.append(f"{name} is {text!r}: give a whole number from {least} to 999999999")
            return default
        return int(text)

    def number(self, name: str, *, default: float) -> float:
        """Return the variable's value, a number of at least 0, with at most nine digits on each side of the point."""
        text = self.text(name, default=str(default))
        if not re.fullmatch(r"[0-9]{1,9}([.][0-9]{1,9})?", text):
            self._problems.append(f"{name} is {text!r}: give a number")
            return default
        return float(text)

    def duration(self, name: str, *, default: str) -> timedelta:
        """Return the variable's value, a duration such as `24h`."""
        text = self.text(name, default=default)
        parts = re.fullmatch(r"([1-9][0-9]{0,4})(s|min|h|d)", text)
        if parts is None:
            self._problems.append(f"{name} is {text!r}: give a number of s, min, h or d, such as 24h")
            return timedelta(days=1)
        return timedelta(seconds=int(parts[1]) * SECONDS[parts[2]])

    def choice(self, name: str, among: Collection[str], *, default: str) -> str:
        value = self.text(name, default=default)
        if value not in among:
            self._problems.append(f"{name} is {value!r}: give one of {', '.join(among)}")
            return default
        return value

    def names(self, name: str, *, default: str = "") -> list[str]:
        """Return the parts of the variable's value, a comma-separated list. Empty parts are left out."""
        return [part.strip() for part in self.text(name, default=default).split(",") if part.strip()]

    def rate(self, name: str, *, default: str) -> Rate | None:
        """Return the variable's value, a rate such as `60/min`, or `default` if the variable is not set.

        None means no limit: the variable is set and empty, or it is not set and `default` is empty.
        """
        try:
            return parse_rate(self._variables.get(name, default))
        except ValueError as error:
            self._problems.append(f"{name}: {error}")
            return None

    # --- Required outside development ----------------------------------------------------------

    def required(self, name: str, *, in_development: str) -> str:
        value = self.text(name, default=in_development if self.is_development else "")
        if not value:
            self._problems.append(f"{name} is not set")
        return value

    def key(self, name: str, *, in_development: str, min_length: int) -> str:
        """Return the variable's value, a secret of at least `min_length` characters.

        In development, `in_development` is the default. Outside development, it is an invalid value.
        """
        value = self.required(name, in_development=in_development)
        if value and len(value) < min_length:
            self._problems.append(f"{name} is shorter than {min_length} characters")
        if value == in_development and not self.is_development:
            self._problems.append(f"{name} is the well-known value of development")
        return value

    def postgresql(self, name: str, *, in_development: str) -> dict[str, Any]:
        """Return Django's DATABASES entry for the database URL in the variable `name`.

        In development, `in_development` is the URL if the variable is not set. A missing or invalid URL raises no error
        here: `refuse_problems` reports it.
        """
        url = self.required(name, in_development=in_development)
        # An unescaped # or / in a password truncates the URL. The library raises only if the rest has a bad port.
        if environ.Env.DB_SCHEMES.get(url.partition("://")[0]) == POSTGRESQL and "#" not in url:
            with suppress(ValueError):
                return environ.Env.db_url_config(url)
        if url:
            # The message leaves out the value, which contains a password.
            self._problems.append(
                f"{name} must be postgresql://user:password@host:5432/name, where user and password are percent-encoded"
            )
        return {"ENGINE": POSTGRESQL, "PASSWORD": ""}

    def servers(self, name: str, *, in_development: str) -> list[str]:
        """Return the addresses in the variable's value, a comma-separated list of `host:port`."""
        servers = [server.strip() for server in self.required(name, in_development=in_development).split(",")]
        if servers != [""] and "" in servers:
            self._problems.append(f"{name} has an empty part between commas")
        return servers

    # --- E-mail ----------------------------------------------------------------------------------

    def email(self, name: str) -> dict[str, Any]:
        """Return Django's EMAIL_ settings for the URL in the variable. Without a URL they send no mail."""
        url = self.text(name)
        scheme = url.partition("://")[0]
        if not url:
            return EMAIL_DEFAULTS
        # An unescaped #, ? or / in a password truncates the URL.
        if scheme in EMAIL_PORTS and not {"#", "?"} & set(url):
            with suppress(ValueError):
                email = EMAIL_DEFAULTS | {"EMAIL_PORT": EMAIL_PORTS[scheme]}
                email |= {key: value for key, value in environ.Env.email_url_config(url).items() if value}
                if scheme == "filemail" and email["EMAIL_FILE_PATH"]:
                    path = "/" + email["EMAIL_FILE_PATH"].lstrip("/")
                    return email | {"EMAIL_BACKEND": EML_FILES, "EMAIL_FILE_PATH": path}
                if _is_mail_server(email):
                    return email
        # The message leaves out the value, which contains a password.
        self._problems.append(
            f"{name} must be smtp://, smtp+tls:// or smtp+ssl://user:password@host:587, where user and password are "
            "ASCII and percent-encoded, or filemail:///folder"
        )
        return EMAIL_DEFAULTS

    def mailbox(self, name: str, *, is_needed: bool, in_development: str) -> str:
        """Return the variable's value, a mailbox such as `Shop <shop@example.com>`.

        Without `is_needed`, any value is valid, and the default is `in_development`. With it, the value must be a
        mailbox, and only development has that default.
        """
        if not is_needed:
            return self.text(name, default=in_development)
        mailbox = self.required(name, in_development=in_development)
        if not mailbox:
            return mailbox
        try:
            validate_email(parseaddr(mailbox)[1])
            # Django's e-mail backends call it, too, and would refuse each mail.
            sanitize_address(mailbox, "utf-8")
        except (ValidationError, ValueError):
            self._problems.append(
                f"{name} is {mailbox!r}: give a mailbox, such as Shop <shop@example.com>, with quotes around a name "
                "that has a comma"
            )
        return mailbox

    def site(self, name: str, *, is_needed: bool, in_development: str) -> str:
        """Return the variable's value, a site's URL, without slashes at its end.

        Without `is_needed`, any value is valid, and the default is `in_development`. With it, the value must be a URL,
        and only development has that default.
        """
        if not is_needed:
            return self.text(name, default=in_development).rstrip("/")
        site = self.required(name, in_development=in_development).rstrip("/")
        # It becomes part of headers, where other characters would be encoded or end a link.
        if site and not re.fullmatch(
            r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[\w.~%-]+)*", site, re.ASCII | re.IGNORECASE
        ):
            self._problems.append(
                f"{name} is {site!r}: give the address of this site in ASCII, such as https://shop.example"
            )
        return site

    # --- Providers -----------------------------------------------------------------------------

    def service(self, name: str) -> str:
        """Return the variable's value, the URL of an HTTP service, without slashes at its end.

        The URL may contain a username and a password. The result is empty if the variable is not set.
        """
        url = self.text(name).rstrip("/")
        if url and not re.fullmatch(
            r"https?://([^\s/?#@:]+:[^\s/?#@:]+@)?([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[\w.~%-]+)*",
            url,
            re.ASCII | re.IGNORECASE,
        ):
            # The message leaves out the value, which may contain a password.
            self._problems.append(
                f"{name} must be https://provider.example or https://user:password@provider.example, where user and "
                "password are percent-encoded"
            )
            return ""
        return url

    @staticmethod
    def passwords(*urls: str) -> set[str]:
        """Return the passwords in `urls`, both as the URLs spell them and percent-decoded."""
        encoded = {password for url in urls if (password := urlsplit(url).password)}
        return encoded | {unquote(password) for password in encoded}

    # --- Single variables ----------------------------------------------------------------------

    def allowed_hosts(self, name: str) -> list[str]:
        hosts = self.names(name, default="localhost,127.0.0.1,[::1]" if self.is_development else "")
        if "*" in hosts and not self.is_development:
            self._problems.append(f"{name} is *: name the hosts of this site")
        return hosts

    def origins(self, name: str) -> list[str]:
        """Return the origins in the variable's value, in the form of an `Origin` header: `https://shop.example`."""
        origins = self.names(name)
        self._problems += [
            f"{name} names {origin!r}: give origins in lower case and without a path, such as https://shop.example"
            for origin in origins
            if not re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", origin)
        ]
        return origins

    def admin_path(self, name: str) -> str:
        """Return the variable's value with a slash at its end; `admin/` if the variable is not set.

        The value is one path segment with which no other URL begins. An empty value is invalid.
        """
        path = self._variables.get(name, "admin").strip("/") + "/"
        if not re.fullmatch(r"[A-Za-z0-9_-]+/", path) or path in PATHS_IN_USE:
            self._problems.append(f"{name} is {path!r}: give one path segment of letters, digits, - and _")
        return path

    def broker_version(self, name: str) -> tuple[int, ...] | None:
        """Return the broker's version, such as (2, 3); None to let the client ask the broker."""
        text = self.text(name)
        if not re.fullmatch(r"([0-9]{1,3}([.][0-9]{1,3}){1,3})?", text):
            self._problems.append(f"{name} is {text!r}: give the broker's version, such as 2.3")
            return None
        return tuple(int(part) for part in text.split(".")) if text else None

    def sasl(self, *, protocol: str) -> tuple[str | None, str | None, str | None]:
        """Return mechanism, username and password of the Kafka login, each None if its variable is not set.

        If `protocol` uses SASL, add missing values and an unknown mechanism to the problems that `refuse_problems`
        names. The Kafka client would treat them as an outage.
        """
        mechanism, username, password = (
            self.text(f"KAFKA_SASL_{part}") or None for part in ("MECHANISM", "USERNAME", "PASSWORD")
        )
        if protocol.startswith("SASL_"):
            if mechanism not in SASL_MECHANISMS:
                self._problems.append(
                    f"KAFKA_SASL_MECHANISM is {mechanism or ''!r}: give one of {', '.join(SASL_MECHANISMS)}"
                )
            if not username:
                self._problems.append(f"KAFKA_SASL_USERNAME is not set, but {protocol} needs it")
            if not password:
                self._problems.append(f"KAFKA_SASL_PASSWORD is not set, but {protocol} needs it")
        return mechanism, username, password

    def certificates(self, name: str) -> str | None:
        """Return the variable's value, the path of a file with CA certificates; None to use those of the system."""
        path = self.text(name)
        if path:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except OSError as error:
                self._problems.append(f"{name} is {path!r}, which has no readable certificate: {error}")
        return path or None
