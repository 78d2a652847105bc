"""The product's settings, on a topic of one test's own: what is sent there is nobody else's trouble."""

import os

from commerce.settings import *  # noqa: F403

ORDER_EVENTS_TOPIC = os.environ["OWN_TOPIC"]
