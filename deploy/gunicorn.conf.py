"""gunicorn, for `make run` and for the image. Any of it can be overridden on the command line."""

import os

workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "gthread"
threads = 4
# A stopping worker finishes the requests in hand, and is gone within the 10 s its supervisor allows.
graceful_timeout = 8
timeout = 30
# It would write into the home of whoever runs this.
control_socket_disable = True
# Longer than clients and proxies keep an idle connection: whoever closes first must not be the one that gets a request.
keepalive = 75
logger_class = "commerce.web_server_log.WebServerLogger"
