"""A PostgreSQL that tests can crash."""

import signal

from commerce.devserver.embedded_postgres import EmbeddedPostgres


class CrashingPostgres(EmbeddedPostgres):
    def crash(self) -> None:
        """End the server without a clean shutdown, as `pg_ctl stop -m immediate` does.

        `start` then has to recover the data.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def restart_immediately(self) -> None:
        """Restart the server as `pg_ctl restart -m immediate` does, and wait until it answers at the same address."""
        self.crash()
        self.start()

    def is_down(self) -> bool:
        return self._process is None or self._process.poll() is not None
