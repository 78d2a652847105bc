"""Patches of private parts of the standard library, for the web server."""

import atexit
from multiprocessing.util import Finalize


def run_exit_handlers_in_this_worker() -> None:
    """Run the `atexit` handlers when this multiprocessing worker ends.

    Reason: multiprocessing ends a forked process without its exit handlers. They let the publisher send its queued
    events and OpenTelemetry its last spans. `Finalize` is undocumented as well.
    Upstream: https://github.com/python/cpython/issues/83856, fixed by https://github.com/python/cpython/pull/114279.
    Guard: tests/web/test_web_server.py, `test_sigterm_sends_what_the_fast_path_still_holds`.
    It can go with the last supported Python that lacks the fix. Other versions are unaffected: each handler runs once.
    """
    Finalize(None, atexit._run_exitfuncs, exitpriority=0)
