"""The product's settings with a benchmark's topic and with the group that `benchmarks.subscriptions` registers."""

from testkit.own_topic_settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks"]  # noqa: F405
