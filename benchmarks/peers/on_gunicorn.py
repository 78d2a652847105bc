"""The product on gunicorn's threaded worker. The options are those of `commerce.web_server`: `--bind HOST:PORT`."""

import os
import sys
import tempfile
from typing import Any

from django.conf import settings
from gunicorn.app.base import BaseApplication


class Gunicorn(BaseApplication):
    """gunicorn with the product's number of workers and threads. It loads the application before it forks workers."""

    def load_config(self) -> None:
        from commerce.web_server import KEEP_ALIVE_MS

        options = {
            "bind": sys.argv[-1],
            "worker_class": "gthread",
            "workers": settings.WEB_CONCURRENCY,
            "threads": settings.WEB_THREADS,
            "preload_app": True,
            # gunicorn's default, 2 seconds, would close the connections while the other side of a round is measured.
            "keepalive": KEEP_ALIVE_MS // 1000,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from commerce.wsgi import application
        from events.process.garbage import reduce_garbage_collection

        reduce_garbage_collection()
        return application


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="commerce-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        Gunicorn().run()
