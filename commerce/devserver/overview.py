"""The overview that `make run` prints before READY: servers, processes, addresses and accounts."""

from collections.abc import Mapping

from django.conf import settings

from commerce.accounts import demo_accounts


def overview(*, site: str, servers: Mapping[str, str], pids: Mapping[str, int]) -> str:
    """Return the overview that `make run` prints, as aligned lines without a final newline.

    Args:
        site: the URL of the web server, without a slash at the end.
        servers: a description of each server that this run has started, by name.
        pids: the pids of the product's processes, by name.
    """
    rows = [
        *servers.items(),
        *((name, f"pid {pid}") for name, pid in pids.items()),
        ("admin", f"{site}/{settings.ADMIN_PATH}"),
        ("API", f"{site}/api/docs (OpenAPI), {site}/api/asyncapi (events)"),
        ("mails", _mails()),
        ("log lines", "here, each with the name of its process"),
        ("settings", "var/run.env; manage.py in another terminal finds them by itself"),
    ]
    if settings.DEBUG:
        rows += [("account", text) for text in demo_accounts.describe()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"   {name:<{width}}  {text}" for name, text in rows)


def _mails() -> str:
    if not settings.EMAIL_ENABLED:
        return "none, because EMAIL_URL is empty"
    return f"{settings.EMAIL_FILE_PATH}/*.eml" if settings.EMAIL_FILE_PATH else "as EMAIL_URL says"
