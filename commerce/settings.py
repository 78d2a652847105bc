"""All settings. `.env.example` documents the environment variables; `commerce.environment` validates them."""

import os
from datetime import timedelta
from pathlib import Path

from django.conf import global_settings
from django.templatetags.static import static

from commerce.environment import KAFKA_PROTOCOLS, Environment
from commerce.observing.log_lines import FORMATTERS, logging_configuration
from commerce.postgresql import CONNECTION_OPTIONS

environment = Environment(os.environ)
BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = environment.is_development

# --- Keys and limits ---------------------------------------------------------------------------

SECRET_KEY = environment.key(
    "DJANGO_SECRET_KEY",
    in_development="development-only-secret-key-never-used-outside-debug-mode",
    min_length=50,
)
JWT_SIGNING_KEY = environment.key(
    "JWT_SIGNING_KEY", in_development="development-only-signing-key-of-tokens", min_length=32
)
# Bearer token for GET /metrics. Without it that path is a 404.
METRICS_TOKEN = environment.text("METRICS_TOKEN")
THROTTLE_RATES = {
    "register": environment.rate("THROTTLE_REGISTER", default="60/min"),
    "token": environment.rate("THROTTLE_TOKEN", default="60/min"),
    "refresh": environment.rate("THROTTLE_REFRESH", default="60/min"),
    "user": environment.rate("THROTTLE_USER", default=""),
}

# --- Web server --------------------------------------------------------------------------------

# Number of web server processes, and of requests that each of them handles at a time.
WEB_CONCURRENCY = environment.count("WEB_CONCURRENCY", default=2)
WEB_THREADS = environment.count("WEB_THREADS", default=32)
# Number of proxies in front of this site. Each appends to X-Forwarded-For.
TRUSTED_PROXIES = environment.count("TRUSTED_PROXIES", default=0, least=0)
ALLOWED_HOSTS = environment.allowed_hosts("DJANGO_ALLOWED_HOSTS")
ADMIN_PATH = environment.admin_path("ADMIN_PATH")
# Pages of these origins may use the API from a browser.
CORS_ALLOWED_ORIGINS = environment.origins("CORS_ALLOWED_ORIGINS")
CORS_URLS_REGEX = "^/api/"
CORS_ALLOW_METHODS = ["GET", "HEAD", "POST", "PATCH"]
CORS_ALLOW_HEADERS = ["authorization", "content-type", "idempotency-key"]
CORS_EXPOSE_HEADERS = ["Link", "Location", "Idempotent-Replayed", "Retry-After"]

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
    "payments",
    "shipping",
    "orders",
    "notifications",
    "sales",
    "fulfilment",
    "commerce",
]
# The control channel between `make run` and its start page. The run sets these variables.
DEVSERVER_SOCKET = environment.text("DEVSERVER_SOCKET") if DEBUG else ""
DEVSERVER_KEY = environment.text("DEVSERVER_KEY") if DEBUG else ""
if DEVSERVER_SOCKET:
    INSTALLED_APPS.append("commerce.devserver")
MIDDLEWARE = [
    "commerce.observing.tracing.RequestIdMiddleware",
    "commerce.security_headers.SecurityHeadersMiddleware",
    # It answers preflights itself, so it is installed only if an origin is allowed.
    *(["corsheaders.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "commerce.api.problems.ProblemsMiddleware",
    "commerce.api.problems.RequestLimitMiddleware",
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
        # Before the apps, so that a template may replace one of Unfold's.
        "DIRS": [BASE_DIR / "commerce" / "templates"],
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
    "DASHBOARD_CALLBACK": "commerce.admin_site.index.add_overview",
    "STYLES": [lambda _: static("commerce/admin.css")],
    "SCRIPTS": [lambda _: static("commerce/timezone.js"), lambda _: static("commerce/keyboard.js")],
    "SIDEBAR": {"navigation": "commerce.admin_site.navigation.sidebar"},
}
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ko", "한국어")]
FORMAT_MODULE_PATH = "commerce.formats"
LOCALE_PATHS = [BASE_DIR / "commerce" / "locale", BASE_DIR / "commerce" / "package_locale"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Django redirects here after a login through a form that was opened without `next`.
LOGIN_REDIRECT_URL = "admin:index"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "commerce.accounts.backends.NormalizingBackend"]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=5)
# The lockout ends this long after the last counted failure. Attempts while it lasts do not prolong it.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "commerce.api.client_address.client_address"
AXES_LOCKOUT_CALLABLE = "commerce.accounts.admin_login.locked_out"
AXES_DISABLE_ACCESS_LOG = True
# NormalizingHasher also checks hashes of Django's PBKDF2PasswordHasher, which has the same algorithm name.
PASSWORD_HASHERS = ["commerce.accounts.hashers.NormalizingHasher", *global_settings.PASSWORD_HASHERS[1:]]
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
CSRF_FAILURE_VIEW = "commerce.error_pages.csrf_failure"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
# Django sends the header over HTTPS only.
SECURE_HSTS_SECONDS = environment.count("HSTS_SECONDS", default=31_536_000, least=0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = environment.flag("HSTS_INCLUDE_SUBDOMAINS")
SECURE_HSTS_PRELOAD = environment.flag("HSTS_PRELOAD")
SILENCED_SYSTEM_CHECKS = [
    # The proxy that ends TLS also redirects. A redirect by Django would come after the client has sent its token.
    "security.W008",
    # The owner of the domain decides about subdomains and the preload list.
    "security.W005",
    "security.W021",
]
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

# --- PostgreSQL --------------------------------------------------------------------------------

_database = environment.postgresql("DATABASE_URL", in_development="postgresql://postgres@127.0.0.1:5432/commerce")
DATABASES = {
    "default": _database
    | {
        "ENGINE": "commerce.postgresql",
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        # events.prepared reads it.
        "PREPARE": environment.flag("DATABASE_PREPARE", default=True),
        "OPTIONS": CONNECTION_OPTIONS | _database.get("OPTIONS", {}),
    }
}

# --- REST API ----------------------------------------------------------------------------------

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
    # No path supports OPTIONS.
    "DEFAULT_METADATA_CLASS": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Commerce",
    "VERSION": "1.0.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "OrderStatus": "orders.models.Order.Status",
        "OrderEventType": "orders.events.ORDER_EVENT_TYPES",
        "FulfilmentState": "fulfilment.serializers.SHOWN_STATES",
        "StepState": "fulfilment.transitions.Result",
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
        # After the hooks that add paths.
        "commerce.api.schema.complete",
        "commerce.accounts.schema.add_first_steps",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # null: Swagger UI would otherwise send data to the validator of swagger.io.
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
    # A new password revokes the tokens that were issued under the old one.
    "CHECK_REVOKE_TOKEN": True,
}

# --- Kafka -------------------------------------------------------------------------------------

KAFKA_BOOTSTRAP_SERVERS = environment.servers("KAFKA_BOOTSTRAP_SERVERS", in_development="127.0.0.1:9092")
# A version such as (2, 3), or None to ask the broker.
KAFKA_API_VERSION = environment.broker_version("KAFKA_API_VERSION")
KAFKA_SECURITY_PROTOCOL = environment.choice("KAFKA_SECURITY_PROTOCOL", KAFKA_PROTOCOLS, default="PLAINTEXT")
KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD = environment.sasl(protocol=KAFKA_SECURITY_PROTOCOL)
KAFKA_SSL_CAFILE = environment.certificates("KAFKA_SSL_CAFILE")
KAFKA_TOPIC_PARTITIONS = environment.count("KAFKA_TOPIC_PARTITIONS", default=3)
KAFKA_TOPIC_REPLICATION = environment.count("KAFKA_TOPIC_REPLICATION", default=1)
KAFKA_SESSION_TIMEOUT_MS = environment.count("KAFKA_SESSION_TIMEOUT_MS", default=45_000)
KAFKA_MAX_POLL_INTERVAL_MS = environment.count("KAFKA_MAX_POLL_INTERVAL_MS", default=300_000)
KAFKA_METADATA_MAX_AGE_MS = environment.count("KAFKA_METADATA_MAX_AGE_MS", default=60_000)
KAFKA_FETCH_MAX_WAIT_MS = environment.count("KAFKA_FETCH_MAX_WAIT_MS", default=500, least=0)
KAFKA_ASSIGNMENT_DELAY_MS = environment.count("KAFKA_ASSIGNMENT_DELAY_MS", default=0, least=0)
ORDER_EVENTS_TOPIC = "order-events"
NOTIFICATION_EVENTS_TOPIC = "notification-events"
SALES_EVENTS_TOPIC = "sales-events"
NOTIFICATION_CONSUMER_GROUP = "notification-consumer-group"
PAYMENT_COMMANDS_TOPIC = "payment-commands"
SHIPPING_COMMANDS_TOPIC = "shipping-commands"
# The participants of a fulfilment answer in one topic, so that its group reads both.
PAYMENT_REPLIES_TOPIC = SHIPPING_REPLIES_TOPIC = FULFILMENT_REPLIES_TOPIC = "fulfilment-replies"

# --- Outbox ------------------------------------------------------------------------------------

# Dotted path of the publisher that receives committed events from on_commit hooks.
EVENT_PUBLISHER = "events.outbox.publisher.BackgroundPublisher"
OUTBOX_QUEUE_SIZE = environment.count("OUTBOX_QUEUE_SIZE", default=10_000)
# Largest number of rows, and of bytes of their values, in one batch. One UPDATE marks a batch as published.
OUTBOX_BATCH_SIZE = 1_000
OUTBOX_BATCH_BYTES = 8 * 1024 * 1024
OUTBOX_RELAY_GRACE = timedelta(seconds=environment.number("OUTBOX_RELAY_GRACE_SECONDS", default=2))
OUTBOX_RELAY_INTERVAL = timedelta(seconds=environment.number("OUTBOX_RELAY_INTERVAL_SECONDS", default=1))

# --- Consumer (times in seconds) ---------------------------------------------------------------

CONSUMER_RETRY_FIRST = environment.number("CONSUMER_RETRY_FIRST_SECONDS", default=0.5)
CONSUMER_RETRY_LAST = environment.number("CONSUMER_RETRY_LAST_SECONDS", default=10)
CONSUMER_SUSPECT_ATTEMPTS = environment.count("CONSUMER_SUSPECT_ATTEMPTS", default=3)
CONSUMER_DEATHS = environment.count("CONSUMER_DEATHS", default=3)
CONSUMER_TRIAL_TIMEOUT = environment.number("CONSUMER_TRIAL_TIMEOUT_SECONDS", default=60)
CONSUMER_POLL_WATCHDOG = environment.number("CONSUMER_POLL_WATCHDOG_SECONDS", default=60)
# Largest number of replays of one dead letter.
DEAD_LETTER_REPLAY_LIMIT = 5

# --- E-mail ------------------------------------------------------------------------------------

# Without EMAIL_URL, no notification is mailed. The URL itself is no setting, because it contains a password.
EMAIL_ENABLED = bool(environment.text("EMAIL_URL"))
_email = environment.email("EMAIL_URL")
EMAIL_BACKEND = _email["EMAIL_BACKEND"]
EMAIL_HOST, EMAIL_PORT = _email["EMAIL_HOST"], _email["EMAIL_PORT"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _email["EMAIL_HOST_USER"], _email["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS, EMAIL_USE_SSL = _email["EMAIL_USE_TLS"], _email["EMAIL_USE_SSL"]
EMAIL_FILE_PATH = _email["EMAIL_FILE_PATH"]
# Seconds that a mail server may take for one answer. Some servers scan the message for viruses before they answer.
EMAIL_TIMEOUT = 30
DEFAULT_FROM_EMAIL = environment.mailbox(
    "EMAIL_FROM", is_needed=EMAIL_ENABLED, in_development="Commerce <commerce@localhost>"
)
# An event that is older than this is never mailed, and no mail is tried for longer than this.
EMAIL_MAX_AGE = environment.duration("EMAIL_MAX_AGE", default="24h")
# The address of this site, for links in mails.
SITE_URL = environment.site(
    "SITE_URL",
    is_needed=EMAIL_ENABLED,
    in_development=f"http://127.0.0.1:{environment.text('PORT', default='8080')}",
)

# --- Anomalies of sales ------------------------------------------------------------------------

# The reasons for the defaults, with figures, are in docs/decisions/0022-anomalies-of-sales.md.
# An interval is judged this long after its end. Events of the API are counted within seconds.
SALES_ANOMALY_GRACE = timedelta(seconds=environment.number("SALES_ANOMALY_GRACE_SECONDS", default=120))
# An anomaly is this many spreads above the usual. At 6, chance alone raised 2 false alarms in 128 simulated months.
SALES_ANOMALY_SPREADS = environment.number("SALES_ANOMALY_SPREADS", default=6)
# A surge sells more than this many times the usual amount: a good day sells up to twice as much.
SALES_SURGE_FACTOR = environment.number("SALES_SURGE_FACTOR", default=3)
# A surge has at least this many orders. With fewer, one large order decides about their amount.
SALES_SURGE_ORDERS = environment.count("SALES_SURGE_ORDERS", default=30)
# A wave of cancellations has at least this ratio of cancelled to created orders. Shops usually see 0.05 to 0.2.
SALES_CANCEL_RATIO = environment.number("SALES_CANCEL_RATIO", default=0.4)
# A wave has at least this many cancelled orders, so that one customer who cancels a few orders is no wave.
SALES_CANCEL_ORDERS = environment.count("SALES_CANCEL_ORDERS", default=10)
# A silence is reported only where at least this many orders are usual. By chance, none comes instead of 20 once in 500
# million times.
SALES_SILENCE_ORDERS = environment.count("SALES_SILENCE_ORDERS", default=20)

# --- Fulfilment --------------------------------------------------------------------------------

# Time for the reply to a command. It should be longer than PAYMENT_GIVES_UP_AFTER and SHIPPING_GIVES_UP_AFTER.
FULFILMENT_PAYMENT_TIMEOUT = environment.duration("FULFILMENT_PAYMENT_TIMEOUT", default="3min")
FULFILMENT_SHIPMENT_TIMEOUT = environment.duration("FULFILMENT_SHIPMENT_TIMEOUT", default="3min")
# Time for the reply to the first attempt at a refund or a cancellation of a shipment. It doubles with each attempt.
FULFILMENT_UNDO_TIMEOUT = environment.duration("FULFILMENT_UNDO_TIMEOUT", default="3min")
# Pause after the first such attempt that fails. It doubles with each attempt.
FULFILMENT_UNDO_PAUSE = environment.duration("FULFILMENT_UNDO_PAUSE", default="5s")
# Number of attempts at a refund or a cancellation of a shipment, after which the fulfilment is stuck.
FULFILMENT_UNDO_ATTEMPTS = environment.count("FULFILMENT_UNDO_ATTEMPTS", default=3)

# --- Payments and shipping ---------------------------------------------------------------------

# Dotted paths of the classes that call the providers.
PAYMENT_PROVIDER = environment.text("PAYMENT_PROVIDER", default="payments.providers.HTTPPayments")
SHIPPING_PROVIDER = environment.text("SHIPPING_PROVIDER", default="shipping.providers.HTTPShipments")
PAYMENT_PROVIDER_URL = environment.service("PAYMENT_PROVIDER_URL")
SHIPPING_PROVIDER_URL = environment.service("SHIPPING_PROVIDER_URL")
# Seconds that a provider may take for one answer. An attempt with two calls must end within the 8 s of a shutdown.
PAYMENT_PROVIDER_TIMEOUT = environment.number("PAYMENT_PROVIDER_TIMEOUT_SECONDS", default=3)
SHIPPING_PROVIDER_TIMEOUT = environment.number("SHIPPING_PROVIDER_TIMEOUT_SECONDS", default=3)
# Time after which a command that could not be done is answered with its failure.
PAYMENT_GIVES_UP_AFTER = environment.duration("PAYMENT_GIVES_UP_AFTER", default="2min")
SHIPPING_GIVES_UP_AFTER = environment.duration("SHIPPING_GIVES_UP_AFTER", default="2min")
# Number of calls that one worker makes at a time.
PAYMENT_CONCURRENCY = environment.count("PAYMENT_CONCURRENCY", default=16)
SHIPPING_CONCURRENCY = environment.count("SHIPPING_CONCURRENCY", default=16)

# --- Secrets: hidden in log lines and debug pages ----------------------------------------------

SECRETS = [
    SECRET_KEY,
    JWT_SIGNING_KEY,
    DATABASES["default"]["PASSWORD"],
    KAFKA_SASL_PASSWORD,
    METRICS_TOKEN,
    EMAIL_HOST_PASSWORD,
    *environment.passwords(PAYMENT_PROVIDER_URL, SHIPPING_PROVIDER_URL),
]
# The longest come first. If a secret is part of a longer one and is hidden before it, the rest of the longer one stays.
SECRETS = sorted(filter(None, SECRETS), key=len, reverse=True)
DEFAULT_EXCEPTION_REPORTER = "commerce.admin_site.debug_pages.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "commerce.admin_site.debug_pages.Filter"

# --- Observability -----------------------------------------------------------------------------

# URL of the OpenTelemetry collector, such as http://localhost:4318. Without it no spans are recorded.
OTEL_EXPORTER_OTLP_ENDPOINT = environment.text("OTEL_EXPORTER_OTLP_ENDPOINT")
OTEL_SERVICE_NAME = environment.text("OTEL_SERVICE_NAME", default="commerce")
LOG_FORMAT = environment.choice("LOG_FORMAT", FORMATTERS, default="text" if DEBUG else "json")
LOGGING = logging_configuration(LOG_FORMAT, secrets=SECRETS)

# At the end, so that one message names the problems of all variables.
environment.refuse_problems()
