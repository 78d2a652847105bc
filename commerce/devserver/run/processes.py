"""The processes of `make run`: the command of each, as arguments of the Python interpreter."""

from django.conf import settings

GROUPS_OF_FULFILMENT = ("payments", "shipping", "fulfilment")
KINDS_OF_FULFILMENT = ("payments", "shipping", "fulfilment_deadlines")


def processes(*, bind: str, needs_provider: bool) -> dict[str, tuple[str, ...]]:
    """Return the arguments of each process by its name. The web server listens on `bind`, HOST:PORT.

    With `needs_provider`, the development provider is one of the processes.
    """
    found: dict[str, tuple[str, ...]] = {
        "web": ("-m", "commerce.web_server", "--bind", bind),
        # All groups in one process, and all kinds of work in another one, because each process takes about 80 MiB.
        "consumer": ("manage.py", "consume", settings.NOTIFICATION_CONSUMER_GROUP, "sales", *GROUPS_OF_FULFILMENT),
        "relay": ("manage.py", "relay_outbox"),
        "worker": ("manage.py", "work", "email", *KINDS_OF_FULFILMENT),
        "watcher": ("manage.py", "watch_sales"),
    }
    if needs_provider:
        found["provider"] = ("-m", "commerce.devserver.provider")
    return found
