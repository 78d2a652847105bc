"""The product's settings with the peers' endpoints. Each response tells, in a header, the number of its SQL queries."""

from commerce.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.peers.urls"
MIDDLEWARE = [*MIDDLEWARE, "benchmarks.peers.counting.QueryCountMiddleware"]  # noqa: F405
