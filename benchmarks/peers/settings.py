"""The product's settings, with the peers' views beside its own, and answers that tell the number of their queries."""

from commerce.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.peers.urls"
MIDDLEWARE = [*MIDDLEWARE, "benchmarks.peers.counting.QueryCountMiddleware"]  # noqa: F405
