"""The product's settings with the peers' views, and with a header that counts the queries of an answer."""

from commerce.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.peers.urls"
MIDDLEWARE = [*MIDDLEWARE, "benchmarks.peers.counting.QueryCountMiddleware"]  # noqa: F405
