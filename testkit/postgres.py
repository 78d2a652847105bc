"""A PostgreSQL that can be made to crash."""

import signal

from commerce.devserver.embedded_postgres import EmbeddedPostgres


class CrashingPostgres(EmbeddedPostgres):
    def crash(self) -> None:
        """End it as `pg_ctl stop -m immediate` does: nobody is waited for, and `start` has to recover."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def restart_immediately(self) -> None:
        """As `pg_ctl restart -m immediate` does; back when it answers again, where it answered before."""
        self.crash()
        self.start()

    def is_down(self) -> bool:
        return self._process is None or self._process.poll() is not None
