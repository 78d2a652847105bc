"""The product's settings, with the endpoints of the programs with which the benchmarks compare the product.

The header `X-Queries` of each response has the number of the request's SQL queries.
"""

from commerce.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.peers.urls"
MIDDLEWARE = [*MIDDLEWARE, "benchmarks.peers.counting.QueryCountMiddleware"]  # noqa: F405
