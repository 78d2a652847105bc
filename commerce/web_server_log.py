from typing import Any

from gunicorn.glogging import Logger

from commerce.log_lines import LineFormatter


class WebServerLogger(Logger):
    """gunicorn's own lines, written as ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(LineFormatter(self.error_fmt, self.datefmt))
        for handler in self.access_log.handlers:
            handler.setFormatter(LineFormatter(self.access_fmt))
