"""Patches of the standard library, for the web server, and of axes, for admin."""

import atexit
from multiprocessing.util import Finalize
from typing import Any


def run_exit_handlers_in_this_worker() -> None:
    """Run the `atexit` handlers when this multiprocessing worker ends.

    Reason: multiprocessing ends a forked process without its exit handlers. These handlers let the publisher send its
    queued events, and OpenTelemetry its last spans. `Finalize`, which this function uses, is undocumented.
    Upstream: https://github.com/python/cpython/issues/83856, fixed by https://github.com/python/cpython/pull/114279.
    Guard: tests/web/test_web_server.py, `test_sigterm_sends_what_the_fast_path_still_holds`.
    It can go with the last supported Python that lacks the fix. Other versions are unaffected: each handler runs once.
    """
    Finalize(None, atexit._run_exitfuncs, exitpriority=0)


def name_failed_logins(model: Any) -> None:
    """Let `str()` of a failed login give its account and address. `model` is axes' `AccessAttempt`.

    Reason: axes gives the time alone, in English.
    Upstream: no issue is known.
    Guard: commerce/admin_site/tests/test_accounts.py, `test_a_failed_login_is_named_by_account_and_address`.
    It can go when axes names the account.
    """
    model.__str__ = lambda attempt: f"{attempt.username}, {attempt.ip_address}"
