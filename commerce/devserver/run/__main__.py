"""`make run`: run the whole system on this machine, with its own PostgreSQL and Kafka unless variables name servers."""

import os
import signal
import sys
import threading
from contextlib import ExitStack
from types import FrameType

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from commerce.devserver import lifeline
from commerce.devserver.control import Control
from commerce.devserver.embedded_postgres import EmbeddedPostgresFailed
from commerce.devserver.run.first_order import watch
from commerce.devserver.run.messages import CannotRun, cannot_run_on_errors
from commerce.devserver.run.preparing import prepare_database_and_topics
from commerce.devserver.run.processes import processes
from commerce.devserver.run.surroundings import CHECKOUT, HOST, VAR, Servers, environment, free_port, locked, run_env
from commerce.devserver.supervisor import Supervisor


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_in_order)
    lifeline.follow_make()
    try:
        with ExitStack() as cleanup:
            return _run(cleanup)
    except (CannotRun, EmbeddedPostgresFailed, ImproperlyConfigured) as error:
        print(f"Cannot run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


_asked_to_stop = threading.Event()


def _exit_in_order(number: int, frame: FrameType | None) -> None:
    _asked_to_stop.set()
    raise KeyboardInterrupt


def _run(cleanup: ExitStack) -> int:
    port = free_port()
    servers = Servers()
    with cannot_run_on_errors():
        VAR.mkdir(exist_ok=True)
        cleanup.enter_context(locked(VAR / "run.lock", "it already runs in this folder. Stop it first."))
        os.environ.update(environment(cleanup, port, servers))
        cleanup.enter_context(run_env())
    prepare_database_and_topics(servers.lines)
    if _asked_to_stop.is_set():
        # Python ignores an exception that a signal handler raises inside an object's finaliser, so check again.
        raise KeyboardInterrupt

    supervisor = Supervisor()
    os.environ.update(_control_channel(cleanup, supervisor, servers))
    started = processes(bind=f"{HOST}:{port}", needs_provider=servers.needs_provider)
    for name, words in started.items():
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        supervisor.add_process(name, [sys.executable, *words], env=env, cwd=CHECKOUT)
    threading.Thread(target=watch, args=(supervisor, f"http://{HOST}:{port}", servers.lines), daemon=True).start()
    supervisor.loop()
    return 0 if supervisor.stopped_by_signal else 1


def _control_channel(cleanup: ExitStack, supervisor: Supervisor, servers: Servers) -> dict[str, str]:
    """Open the control channel, and return the environment variables by which web processes find it.

    If DEBUG is off, or the broker or the database is not embedded, open no channel, and return no variables.
    """
    if not settings.DEBUG or servers.broker is None:
        return {}
    control = Control(processes=supervisor, broker=servers.broker)
    cleanup.callback(control.close)
    return control.environment


if __name__ == "__main__":
    sys.exit(main())
