"""`make reset`: delete the data of earlier runs after a confirmation."""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from commerce.devserver.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresFailed, data_home
from commerce.devserver.run.messages import CannotRun
from commerce.devserver.run.surroundings import CHECKOUT, VAR, locked

KAFKA = VAR / "kafka" / "data"
"""The data folder of `make kafka`."""


def main() -> int:
    folders = [folder for folder in dict.fromkeys((data_home(CHECKOUT), VAR)) if folder.exists()]
    if not folders:
        print("There is nothing to drop.")
        return 0
    with ExitStack() as locks:
        try:
            if VAR.is_dir():
                locks.enter_context(locked(VAR / "run.lock", "`make run` runs in this folder. Stop it first."))
            if KAFKA.is_dir():
                locks.enter_context(locked(KAFKA / "lock", "`make kafka` runs on this folder's data. Stop it first."))
            _require_consent(folders)
            EmbeddedPostgres.end_leftover(data_home(CHECKOUT))
            for folder in folders:
                _drop(folder)
        except (CannotRun, EmbeddedPostgresFailed, OSError) as error:
            print(f"Cannot reset: {error}", file=sys.stderr)
            return 1
    return 0


def _require_consent(folders: list[Path]) -> None:
    what = " and ".join(map(str, folders))
    if os.environ.get("YES"):
        return
    if not sys.stdin.isatty():
        raise CannotRun(f"it would drop {what}, and there is no terminal to ask on. To agree: make reset YES=1")
    print(f"This drops {what}: all orders, accounts and events of earlier runs, and all files that were generated.")
    try:
        agreed = input("Go on? Type yes: ").strip().lower() == "yes"
    except (EOFError, KeyboardInterrupt):
        agreed = False
    if not agreed:
        raise CannotRun("it was not agreed to. Nothing was dropped.")


def _drop(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    print(f"Dropped {path}")


if __name__ == "__main__":
    sys.exit(main())
