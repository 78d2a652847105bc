"""Start a program with short leases of all leased work, so that they expire during a test.

    python -m tests.faults.short_lease 3 django send_emails

The number is the lease in seconds. The words after it are the arguments of `python -m`, such as another launcher.
"""

import runpy
import sys
from dataclasses import replace

import django

ACTION_S = 1.0
PAUSE_S = 0.2
LEASE_S = 3.0


def short_lease(*, seconds: float = LEASE_S) -> list[str]:
    """Return the words before a program that start it with leases of `seconds`, for `ProductProcess(launcher=...)`."""
    return ["tests.faults.short_lease", str(seconds)]


def main() -> None:
    django.setup()
    from events.work import kinds
    from notifications import work

    for name, kind in kinds._kinds.items():
        kinds._kinds[name] = replace(
            kind, lease_s=float(sys.argv[1]), action_s=ACTION_S, first_pause_s=PAUSE_S, last_pause_s=PAUSE_S
        )
    work.EMAIL = kinds._kinds["email"]
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
