"""A payment provider and a carrier for development and tests (docs/providers.md).

    python -m commerce.devserver.provider

The provider needs the standard library alone. Its book is a SQLite file, which survives a kill and a restart. The
variables `PROVIDER_...` set address, latency and faults. It has no authentication, so it is not for production.
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
