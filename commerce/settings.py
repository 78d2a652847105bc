"""All settings, read from the environment. `.env.example` documents each variable."""

import re
import ssl
from datetime import timedelta
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from commerce.rates import Rate, parse_rate

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = env.bool("DJANGO_DEBUG", default=False)

# --- What must be given ------------------------------------------------------------------------

_problems: list[str] = []


def _required(name: str, *, in_development: str) -> str:
    """The variable's value. Outside development, a missing one is noted as a problem."""
    value = env.str(name, default=in_development if DEBUG else "")
    if not value:
        _problems.append(f"{name} is not set")
    return value


def _key(name: str, *, in_development: str, min_length: int) -> str:
    """A secret of so many characters at least. Outside development, that of development is noted as a problem, too."""
    value = _required(name, in_development=in_development)
    if value and len(value) < min_length:
        _problems.append(f"{name} is shorter than {min_length} characters")
    if value == in_development and not DEBUG:
        _problems.append(f"{name} is that of development, which everybody knows")
    return value


SECRET_KEY = _key(
    "DJANGO_SECRET_KEY",
    in_development="development-only-secret-key-never-used-outside-debug-mode",
    min_length=50,
)
JWT_SIGNING_KEY = _key("JWT_SIGNING_KEY", in_development="development-only-signing-key-of-tokens", min_length=32)
# Not a setting, because of its password.
_database_url = _required("DATABASE_URL", in_development="postgresql://postgres@127.0.0.1:5432/commerce")
KAFKA_BOOTSTRAP_SERVERS = [
    server.strip() for server in _required("KAFKA_BOOTSTRAP_SERVERS", in_development="127.0.0.1:9092").split(",")
]
if KAFKA_BOOTSTRAP_SERVERS != [""] and "" in KAFKA_BOOTSTRAP_SERVERS:
    _problems.append("KAFKA_BOOTSTRAP_SERVERS has a comma too many")
ALLOWED_HOSTS = [
    host.strip()
    for host in env.list("DJANGO_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if DEBUG else [])
]
if "*" in ALLOWED_HOSTS and not DEBUG:
    _problems.append("DJANGO_ALLOWED_HOSTS is *: name the hosts this site answers for")


def _number(name: str, *, default: float) -> float:
    """The variable's value, not negative. What is no number is noted as a problem."""
    text = env.str(name, default="") or str(default)
    if not re.fullmatch(r"[0-9]{1,9}([.][0-9]{1,9})?", text):
        _problems.append(f"{name} is {text!r}: give a number")
        return default
    return float(text)


def _count(name: str, *, default: int, least: int = 1) -> int:
    """The variable's value, a whole number. What is none, or less than `least`, is noted as a problem."""
    text = env.str(name, default="") or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        _problems.append(f"{name} is {text!r}: give a whole number from {least} on")
        return default
    return int(text)


def _refuse_problems() -> None:
    if _problems:
        raise ImproperlyConfigured(
            f"Cannot start: {'; '.join(_problems)}. "
            "Set them in the environment (see .env.example), or DJANGO_DEBUG=true for development."
        )


def _rate(name: str, *, default: str) -> Rate | None:
    """The variable's rate; None where it is empty. What is no rate is noted as a problem."""
    try:
        return parse_rate(env.str(name, default=default))
    except ValueError as error:
        _problems.append(f"{name}: {error}")
        return None


THROTTLE_RATES = {
    "register": _rate("THROTTLE_REGISTER", default="60/min"),
    "token": _rate("THROTTLE_TOKEN", default="60/min"),
    "refresh": _rate("THROTTLE_REFRESH", default="60/min"),
    "user": _rate("THROTTLE_USER", default=""),
}
# Web server processes, and the requests that each of them answers at a time.
WEB_CONCURRENCY = _count("WEB_CONCURRENCY", default=2)
WEB_THREADS = _count("WEB_THREADS", default=32)
# Proxies in front of this site, each of which appends to X-Forwarded-For.
TRUSTED_PROXIES = _count("TRUSTED_PROXIES", default=0, least=0)
# Opens GET /metrics, which does not exist without it.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")
ADMIN_PATH = env.str("ADMIN_PATH", default="admin/").strip("/") + "/"
if not re.fullmatch(r"[A-Za-z0-9_-]+/", ADMIN_PATH) or ADMIN_PATH in (
    "api/",
    "devserver/",
    "health/",
    "metrics/",
    "static/",
):
    _problems.append(f"ADMIN_PATH is {ADMIN_PATH!r}: give one path segment of letters, digits, - and _")
KAFKA_SECURITY_PROTOCOL = env.str("KAFKA_SECURITY_PROTOCOL", default="PLAINTEXT")
KAFKA_SASL_MECHANISM = env.str("KAFKA_SASL_MECHANISM", default="") or None
KAFKA_SASL_USERNAME = env.str("KAFKA_SASL_USERNAME", default="") or None
KAFKA_SASL_PASSWORD = env.str("KAFKA_SASL_PASSWORD", default="") or None
KAFKA_SSL_CAFILE = env.str("KAFKA_SSL_CAFILE", default="") or None


def _note_problems_of_kafka() -> None:
    """Those that the client would take for an outage."""
    protocols = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    mechanisms = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    if KAFKA_SECURITY_PROTOCOL not in protocols:
        _problems.append(f"KAFKA_SECURITY_PROTOCOL is {KAFKA_SECURITY_PROTOCOL!r}: give one of {', '.join(protocols)}")
    if KAFKA_SECURITY_PROTOCOL.startswith("SASL_"):
        if KAFKA_SASL_MECHANISM not in mechanisms:
            _problems.append(
                f"KAFKA_SASL_MECHANISM is {KAFKA_SASL_MECHANISM or ''!r}: give one of {', '.join(mechanisms)}"
            )
        if not KAFKA_SASL_USERNAME:
            _problems.append(f"KAFKA_SASL_USERNAME is not set, which {KAFKA_SECURITY_PROTOCOL} needs")
        if not KAFKA_SASL_PASSWORD:
            _problems.append(f"KAFKA_SASL_PASSWORD is not set, which {KAFKA_SECURITY_PROTOCOL} needs")
    if KAFKA_SSL_CAFILE:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(KAFKA_SSL_CAFILE)
        except OSError as error:
            _problems.append(f"KAFKA_SSL_CAFILE is {KAFKA_SSL_CAFILE!r}, which holds no certificate to read: {error}")


_note_problems_of_kafka()
# One line an event either way: for people, or for machines.
LOG_FORMATTERS = {
    "text": "commerce.observing.log_lines.LineFormatter",
    "json": "commerce.observing.log_lines.JSONFormatter",
}
LOG_FORMAT = env.str("LOG_FORMAT", default="") or ("text" if DEBUG else "json")
if LOG_FORMAT not in LOG_FORMATTERS:
    _problems.append(f"LOG_FORMAT is {LOG_FORMAT!r}: give json or text")
# Web pages of these origins may read the API's answers in a browser.
CORS_ALLOWED_ORIGINS = [origin.strip() for origin in env.list("CORS_ALLOWED_ORIGINS", default=[]) if origin.strip()]
_problems += [
    f"CORS_ALLOWED_ORIGINS names {origin!r}: give origins in small letters and without a path, https://shop.example"
    for origin in CORS_ALLOWED_ORIGINS
    if not re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", origin)
]
_refuse_problems()

# --- Django ------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "axes",
    "corsheaders",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "events",
    "orders",
    "notifications",
    "commerce",
]
# The channel on which `make run` takes orders from its start page; set by the run itself, never by hand.
DEVSERVER_SOCKET = env.str("DEVSERVER_SOCKET", default="") if DEBUG else ""
DEVSERVER_KEY = env.str("DEVSERVER_KEY", default="") if DEBUG else ""
if DEVSERVER_SOCKET:
    INSTALLED_APPS.append("commerce.devserver")
MIDDLEWARE = [
    "commerce.observing.tracing.RequestIdMiddleware",
    "commerce.security_headers.SecurityHeadersMiddleware",
    # Answers preflights itself, so that it is there only where origins are allowed.
    *(["corsheaders.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "commerce.api.problems.ProblemsMiddleware",
    "commerce.api.problems.BodyLimitMiddleware",
    "commerce.observing.tracing.TraceContextMiddleware",
    "commerce.admin_site.middleware.SessionMiddleware",
    "commerce.admin_site.middleware.LocaleMiddleware",
    "commerce.admin_site.middleware.TimeZoneMiddleware",
    "commerce.admin_site.middleware.OddAddressMiddleware",
    "commerce.observing.health.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "commerce.admin_site.middleware.AuthenticationMiddleware",
    "commerce.admin_site.middleware.MessageMiddleware",
    "commerce.accounts.admin_login.PasswordThrottleMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "commerce.urls"
WSGI_APPLICATION = "commerce.wsgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
UNFOLD = {
    "SITE_TITLE": "Commerce",
    "SITE_HEADER": "Commerce",
    "SITE_SYMBOL": "local_shipping",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("commerce/icon.svg")}],
    "LOGIN": {"form": "commerce.accounts.admin_login.LoginForm"},
    "SHOW_LANGUAGES": True,
    "STYLES": [lambda _: static("commerce/admin.css")],
    "SCRIPTS": [lambda _: static("commerce/timezone.js")],
    "SIDEBAR": {"navigation": "commerce.admin_site.navigation.sidebar"},
}
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ko", "한국어")]
FORMAT_MODULE_PATH = "commerce.formats"
LOCALE_PATHS = [BASE_DIR / "commerce" / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "commerce.accounts.backends.NormalizingBackend"]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=5)
# The time runs from the last failure that counted: asking on does not prolong it.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "commerce.client_address.client_address"
AXES_LOCKOUT_CALLABLE = "commerce.accounts.admin_login.locked_out"
AXES_DISABLE_ACCESS_LOG = True
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_AUTOREFRESH = DEBUG
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
# Sent over HTTPS only.
SECURE_HSTS_SECONDS = _count("HSTS_SECONDS", default=31_536_000, least=0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("HSTS_INCLUDE_SUBDOMAINS", default=False)
SECURE_HSTS_PRELOAD = env.bool("HSTS_PRELOAD", default=False)
SILENCED_SYSTEM_CHECKS = [
    # The proxy that ends TLS redirects as well. A redirect from here would come after the client has sent its token.
    "security.W008",
    # Whether HTTPS binds the domain's other hosts, and browsers' lists, is for the domain's owner to say.
    "security.W005",
    "security.W021",
]
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

# --- PostgreSQL --------------------------------------------------------------------------------

DATABASES = {"default": env.db_url_config(_database_url)}
if DATABASES["default"].get("ENGINE") != "django.db.backends.postgresql":
    raise ImproperlyConfigured(f"DATABASE_URL must be postgresql://..., not {_database_url.partition(':')[0]}://...")
DATABASES["default"]["ENGINE"] = "commerce.postgresql"
DATABASES["default"]["CONN_MAX_AGE"] = 600
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# A server that is gone, or a query that never ends, must become an error somebody can retry.
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A process that is frozen inside a transaction must not hold up others with its locks.
    "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10s",
} | DATABASES["default"].get("OPTIONS", {})

# --- REST API ----------------------------------------------------------------------------------

CORS_URLS_REGEX = "^/api/"
CORS_ALLOW_METHODS = ["GET", "HEAD", "POST", "PATCH"]
CORS_ALLOW_HEADERS = ["authorization", "content-type", "idempotency-key"]
CORS_EXPOSE_HEADERS = ["Link", "Location", "Idempotent-Replayed", "Retry-After"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["commerce.accounts.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["commerce.api.throttling.UserThrottle"],
    "DEFAULT_PARSER_CLASSES": ["commerce.api.json.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["commerce.api.json.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "commerce.api.json.AlwaysJSON",
    "DEFAULT_PAGINATION_CLASS": "commerce.api.pagination.LinkHeaderPagination",
    "DEFAULT_FILTER_BACKENDS": ["commerce.api.filters.SerializerFilter"],
    "DEFAULT_SCHEMA_CLASS": "commerce.api.schema.AutoSchema",
    "EXCEPTION_HANDLER": "commerce.api.problems.problem_response",
    "COERCE_DECIMAL_TO_STRING": False,
    "URL_FORMAT_OVERRIDE": None,
    # OPTIONS is a method that no path has.
    "DEFAULT_METADATA_CLASS": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Commerce",
    "VERSION": "1.0.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "OrderStatus": "orders.models.Order.Status",
        "OrderEventType": "orders.events.ORDER_EVENT_TYPES",
        "OrderEventProgress": "commerce.operations.schema.STATES",
        "Liveness": ["live"],
        "Readiness": "commerce.observing.schema.READINESS",
        "Reachability": "commerce.observing.schema.REACHABILITY",
    },
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "commerce.start.add_start",
        "commerce.observing.schema.add_metrics",
        # After those that add paths.
        "commerce.api.schema.complete",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # Nothing about the page or its reader leaves for the validator of swagger.io.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": True, "validatorUrl": None},
}
SIMPLE_JWT = {
    "SIGNING_KEY": JWT_SIGNING_KEY,
    "ALGORITHM": "HS256",
    "ISSUER": "commerce",
    "AUDIENCE": "commerce",
    "AUTH_TOKEN_CLASSES": ("commerce.accounts.tokens.AccessToken",),
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    # A new password ends the tokens that the old one gave.
    "CHECK_REVOKE_TOKEN": True,
}

# --- Kafka -------------------------------------------------------------------------------------

# Broker version such as "2.3", or nothing to ask the broker.
_api_version = env.str("KAFKA_API_VERSION", default="")
if not re.fullmatch(r"([0-9]{1,3}([.][0-9]{1,3}){1,3})?", _api_version):
    _problems.append(f"KAFKA_API_VERSION is {_api_version!r}: give the broker's version, such as 2.3")
    _api_version = ""
KAFKA_API_VERSION = tuple(int(part) for part in _api_version.split(".")) if _api_version else None
KAFKA_TOPIC_PARTITIONS = _count("KAFKA_TOPIC_PARTITIONS", default=3)
KAFKA_TOPIC_REPLICATION = _count("KAFKA_TOPIC_REPLICATION", default=1)
KAFKA_SESSION_TIMEOUT_MS = _count("KAFKA_SESSION_TIMEOUT_MS", default=45_000)
KAFKA_MAX_POLL_INTERVAL_MS = _count("KAFKA_MAX_POLL_INTERVAL_MS", default=300_000)
KAFKA_METADATA_MAX_AGE_MS = _count("KAFKA_METADATA_MAX_AGE_MS", default=60_000)
KAFKA_FETCH_MAX_WAIT_MS = _count("KAFKA_FETCH_MAX_WAIT_MS", default=500, least=0)
KAFKA_ASSIGNMENT_DELAY_MS = _count("KAFKA_ASSIGNMENT_DELAY_MS", default=0, least=0)

ORDER_EVENTS_TOPIC = "order-events"
NOTIFICATION_EVENTS_TOPIC = "notification-events"
NOTIFICATION_CONSUMER_GROUP = "notification-consumer-group"

# --- Outbox ------------------------------------------------------------------------------------

# Dotted path of the publisher that on_commit hooks hand committed events to.
EVENT_PUBLISHER = "events.outbox.publisher.BackgroundPublisher"
OUTBOX_QUEUE_SIZE = _count("OUTBOX_QUEUE_SIZE", default=10_000)
# Rows, and bytes of their values, that are sent together and recorded as published in one UPDATE.
OUTBOX_BATCH_SIZE = 1_000
OUTBOX_BATCH_BYTES = 8 * 1024 * 1024
OUTBOX_RELAY_GRACE = timedelta(seconds=_number("OUTBOX_RELAY_GRACE_SECONDS", default=2))
OUTBOX_RELAY_INTERVAL = timedelta(seconds=_number("OUTBOX_RELAY_INTERVAL_SECONDS", default=1))

# --- Consumer (seconds where nothing else is said) ----------------------------------------------

CONSUMER_RETRY_FIRST = _number("CONSUMER_RETRY_FIRST_SECONDS", default=0.5)
CONSUMER_RETRY_LAST = _number("CONSUMER_RETRY_LAST_SECONDS", default=10)
CONSUMER_SUSPECT_ATTEMPTS = _count("CONSUMER_SUSPECT_ATTEMPTS", default=3)
CONSUMER_DEATHS = _count("CONSUMER_DEATHS", default=3)
CONSUMER_TRIAL_TIMEOUT = _number("CONSUMER_TRIAL_TIMEOUT_SECONDS", default=60)
CONSUMER_POLL_WATCHDOG = _number("CONSUMER_POLL_WATCHDOG_SECONDS", default=60)
# A letter that failed this often after it was replayed is not replayed again.
DEAD_LETTER_REPLAY_LIMIT = 5

_refuse_problems()

# --- Tracing -----------------------------------------------------------------------------------

# Collector of OpenTelemetry spans, such as http://localhost:4318; without it none are made.
OTEL_EXPORTER_OTLP_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="")
OTEL_SERVICE_NAME = env.str("OTEL_SERVICE_NAME", default="commerce")

# --- What is shown nowhere ---------------------------------------------------------------------

SECRETS = [SECRET_KEY, JWT_SIGNING_KEY, DATABASES["default"]["PASSWORD"], KAFKA_SASL_PASSWORD, METRICS_TOKEN]
DEFAULT_EXCEPTION_REPORTER = "commerce.admin_site.debug_pages.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "commerce.admin_site.debug_pages.Filter"

# --- Logging -----------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": LOG_FORMATTERS[LOG_FORMAT],
            "fmt": "{levelname} {name}: {message}",
            "style": "{",
            "secrets": SECRETS,
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        # Django's own handler of development would write everything a second time, over many lines.
        "django": {"handlers": []},
        # The client logs every refused connection several times a second. Whatever it raises, and
        # every outage, is logged once by our own code.
        "kafka": {"level": "CRITICAL"},
        "django.request": {"level": "ERROR"},
        "axes": {"level": "WARNING"},
        # A collector that is away is told of once a batch, when its spans are lost, and not at every attempt.
        "opentelemetry.exporter": {"level": "ERROR"},
    },
}
