"""All patches of kafka-python's private parts: its network, its consumer group and its record batches.

The patches override methods that kafka-python may rename or change in any release. Each patch names its reason, the
upstream issue, the test that guards it, and when it can go. This module refuses an untested version of kafka-python.
To change the version, run the tests that the patches name and `make test-kafka`, then set `TESTED_VERSION`.
"""

from django.core.exceptions import ImproperlyConfigured
from kafka.version import __version__ as installed_version

TESTED_VERSION = "3.0.12"
"""Version of kafka-python in requirements.txt."""

if installed_version != TESTED_VERSION:
    raise ImproperlyConfigured(
        f"Cannot start: kafka-python {installed_version} is installed, but the patches in events/kafka/patches are "
        f"tested only with {TESTED_VERSION}. Install kafka-python=={TESTED_VERSION}, as in requirements.txt."
    )
