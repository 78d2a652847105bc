"""What `make run` shows before it is READY: what runs, where it is, and how to log in."""

from collections.abc import Mapping

from django.conf import settings

from commerce.accounts import demo_accounts


def overview(*, site: str, servers: Mapping[str, str], pids: Mapping[str, int]) -> str:
    """Aligned lines, without an end of line behind the last.

    Args:
        servers: what is said of each server that this run has started.
        pids: of the product's processes, by their names.
    """
    rows = [
        *servers.items(),
        *((name, f"pid {pid}") for name, pid in pids.items()),
        ("admin", f"{site}/{settings.ADMIN_PATH}"),
        ("API", f"{site}/api/docs (OpenAPI), {site}/api/asyncapi (events)"),
        ("log lines", "here, each with the name of its process"),
        ("settings", "var/run.env; manage.py in another terminal finds them by itself"),
    ]
    if settings.DEBUG:
        rows += [("account", said) for said in demo_accounts.described()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"   {name:<{width}}  {said}" for name, said in rows)
