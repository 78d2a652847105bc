"""Settings of a project with only `events` and one participant. The variable `FOREIGN_APP` names the participant."""

import os
from datetime import timedelta

from tests.subscriptions.foreign.settings import *  # noqa: F403

INSTALLED_APPS = ["events", os.environ["FOREIGN_APP"]]

PAYMENT_COMMANDS_TOPIC = SHIPPING_COMMANDS_TOPIC = os.environ["FOREIGN_TOPIC"]
PAYMENT_REPLIES_TOPIC = SHIPPING_REPLIES_TOPIC = os.environ["FOREIGN_TOPIC"] + "-replies"
PAYMENT_PROVIDER = "payments.providers.HTTPPayments"
SHIPPING_PROVIDER = "shipping.providers.HTTPShipments"
PAYMENT_PROVIDER_URL = SHIPPING_PROVIDER_URL = os.environ["FOREIGN_PROVIDER_URL"]
PAYMENT_PROVIDER_TIMEOUT = SHIPPING_PROVIDER_TIMEOUT = 3
PAYMENT_GIVES_UP_AFTER = SHIPPING_GIVES_UP_AFTER = timedelta(minutes=2)
PAYMENT_CONCURRENCY = SHIPPING_CONCURRENCY = 4
