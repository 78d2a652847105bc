"""The product's settings with the orders' topic of a single test, so that its messages reach no other test."""

import os

from commerce.settings import *  # noqa: F403

ORDER_EVENTS_TOPIC = os.environ["OWN_TOPIC"]
