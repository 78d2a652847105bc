import os
from typing import Any

from gunicorn.glogging import Logger

from commerce.log_lines import JSONFormatter, LineFormatter


class WebServerLogger(Logger):
    """gunicorn's own lines, written as ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
        from django.conf import settings

        formatter = {"json": JSONFormatter, "text": LineFormatter}[settings.LOG_FORMAT]
        for handler in self.error_log.handlers:
            handler.setFormatter(formatter(self.error_fmt, self.datefmt))
        for handler in self.access_log.handlers:
            handler.setFormatter(formatter(self.access_fmt))
