"""The product's settings, but order events go to a topic of a single test, so that they reach no other test."""

import os

from commerce.settings import *  # noqa: F403

ORDER_EVENTS_TOPIC = os.environ["OWN_TOPIC"]
