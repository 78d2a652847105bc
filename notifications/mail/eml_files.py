"""A mail backend that writes each message to a file in `EMAIL_FILE_PATH`, for development."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class EmailBackend(BaseEmailBackend):
    """Writes each message to a file that mail programs can open. A message that is sent again replaces its file."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        folder = Path(settings.EMAIL_FILE_PATH)
        folder.mkdir(parents=True, exist_ok=True)
        for email in email_messages:
            message: Any = email.message()
            name = hashlib.sha256(str(message["Message-ID"]).encode()).hexdigest()[:12]
            part = folder / f"{name}.part"
            part.write_bytes(message.as_bytes(linesep="\r\n"))
            part.rename(folder / f"{name}.eml")
        return len(email_messages)
