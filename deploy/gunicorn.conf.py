"""gunicorn, for `make run` and for the image. Any of it can be overridden on the command line."""

import os
import pathlib
import shutil
import tempfile

workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "commerce.web_worker.FairWorker"
threads = 4
# A stopping worker finishes the requests in hand, and is gone within the 10 s its supervisor allows.
graceful_timeout = 8
timeout = 30
# Whom to believe about X-Forwarded-Proto is for TRUSTED_PROXIES to say; gunicorn would believe every local client.
forwarded_allow_ips = ""
# It would write into the home of whoever runs this.
control_socket_disable = True
# Longer than clients and proxies keep an idle connection: whoever closes first must not be the one that gets a request.
keepalive = 75
logger_class = "commerce.web_server_log.WebServerLogger"

# Where the workers share their metrics, each through files of its own. Set before prometheus_client is imported.
OWN_FOLDER = "commerce-metrics-"
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=OWN_FOLDER)


def post_worker_init(worker):
    from events.garbage import collect_seldom

    collect_seldom()


def child_exit(server, worker):
    from prometheus_client.multiprocess import mark_process_dead

    from commerce.web_worker import FairWorker

    mark_process_dead(worker.pid)
    if isinstance(worker, FairWorker):
        worker.forget()


def on_exit(server):
    folder = pathlib.Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if folder.name.startswith(OWN_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
