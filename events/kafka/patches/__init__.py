"""Every touch of kafka-python's private parts, by what it mends: the network, the group, the batches.

The patches override methods that kafka-python may rename or change in any release. Each says why it is there, where
that is known upstream, which test guards it, and when it can go. A package of another version is refused here, before
a patch meets it. To change the version: run the tests that the patches name and `make test-kafka`, then set
`TESTED_VERSION`.
"""

from django.core.exceptions import ImproperlyConfigured
from kafka.version import __version__ as installed_version

TESTED_VERSION = "3.0.12"
"""Of kafka-python, the one in requirements.txt."""

if installed_version != TESTED_VERSION:
    raise ImproperlyConfigured(
        f"Cannot start: kafka-python {installed_version} is installed, and the patches in events/kafka/patches are "
        f"tested with {TESTED_VERSION} alone. Install kafka-python=={TESTED_VERSION}, as requirements.txt says."
    )
