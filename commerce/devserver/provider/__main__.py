"""A simulated payment provider and carrier for development and tests, in one process (docs/providers.md).

    python -m commerce.devserver.provider

The process needs only Python's standard library. It keeps all payments and shipments in a SQLite file, its book, which
survives a kill and a restart. The variables `PROVIDER_...` set address, latency and faults. The process has no
authentication, so it is not for production.
"""

import os
import sys
from contextlib import suppress

from commerce.devserver.provider.server import Options, Server


def main() -> None:
    try:
        server = Server(Options.from_environment(os.environ))
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"The provider cannot start: {error}. See the variables PROVIDER_... in .env.example.")
    print(f"The provider answers on {server.url}", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
