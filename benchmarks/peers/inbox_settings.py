"""The product's settings on a topic of a benchmark, with the group that `benchmarks.subscriptions` registers."""

from testkit.own_topic_settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks"]  # noqa: F405
