"""Settings of a project with the app `events` and without the shop. They contain all settings that `events` reads."""

import os
from datetime import timedelta
from urllib.parse import urlsplit

SECRET_KEY = "for-a-test-alone"
USE_TZ = True
INSTALLED_APPS = ["events", "tests.subscriptions.foreign.meters"]
_url = urlsplit(os.environ["FOREIGN_DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.removeprefix("/"),
        "USER": _url.username,
        "PASSWORD": _url.password,
        "HOST": os.environ.get("FOREIGN_DATABASE_HOST") or _url.hostname,
        "PORT": _url.port or "",
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

METER_READINGS_TOPIC = os.environ["FOREIGN_TOPIC"]

KAFKA_BOOTSTRAP_SERVERS = os.environ["KAFKA_BOOTSTRAP_SERVERS"].split(",")
_version = os.environ["FOREIGN_API_VERSION"]
KAFKA_API_VERSION = tuple(map(int, _version.split("."))) if _version else None
KAFKA_SECURITY_PROTOCOL = "PLAINTEXT"
KAFKA_SASL_MECHANISM = KAFKA_SASL_USERNAME = KAFKA_SASL_PASSWORD = None
KAFKA_SSL_CAFILE = None
KAFKA_TOPIC_PARTITIONS = 3
KAFKA_TOPIC_REPLICATION = 1
KAFKA_SESSION_TIMEOUT_MS = 45_000
KAFKA_MAX_POLL_INTERVAL_MS = 300_000
KAFKA_METADATA_MAX_AGE_MS = 60_000
KAFKA_FETCH_MAX_WAIT_MS = 500
KAFKA_ASSIGNMENT_DELAY_MS = int(os.environ.get("KAFKA_ASSIGNMENT_DELAY_MS", "0"))

EVENT_PUBLISHER = "events.outbox.publisher.BackgroundPublisher"
OUTBOX_QUEUE_SIZE = 10_000
OUTBOX_BATCH_SIZE = 1_000
OUTBOX_BATCH_BYTES = 8 * 1024 * 1024
OUTBOX_RELAY_GRACE = timedelta(seconds=2)
OUTBOX_RELAY_INTERVAL = timedelta(seconds=1)

CONSUMER_RETRY_FIRST = 0.5
CONSUMER_RETRY_LAST = 10
CONSUMER_SUSPECT_ATTEMPTS = 3
CONSUMER_DEATHS = 3
CONSUMER_TRIAL_TIMEOUT = 60
CONSUMER_POLL_WATCHDOG = 60
DEAD_LETTER_REPLAY_LIMIT = 5
