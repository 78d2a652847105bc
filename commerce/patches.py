"""Patches of the standard library's private parts, for the web server."""

import atexit
from multiprocessing.util import Finalize


def run_exit_handlers_in_this_worker() -> None:
    """Run what `atexit` was given when this process, one of multiprocessing's, ends.

    Reason: multiprocessing ends a forked process without its exit handlers, by which the publisher sends what it still
    holds, and OpenTelemetry its last spans. `Finalize` is not documented either.
    Upstream: https://github.com/python/cpython/issues/83856, mended by https://github.com/python/cpython/pull/114279.
    Guard: tests/web/test_web_server.py, `test_sigterm_sends_what_the_fast_path_still_holds`.
    It can go with the last supported Python that lacks the mend. Elsewhere it does nothing: each handler runs once.
    """
    Finalize(None, atexit._run_exitfuncs, exitpriority=0)
