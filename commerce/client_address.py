"""Who is asking: the address that throttles and lockouts count by."""

from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """The address of the client, or of the last proxy that is not ours; None on a Unix socket.

    Each proxy appends whom it heard from to `X-Forwarded-For`, so that only the last `TRUSTED_PROXIES` entries are
    known to be true. Whatever stands before them is the client's own claim.
    """
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    if 0 < settings.TRUSTED_PROXIES <= len(forwarded):
        claimed = _normalized(forwarded[-settings.TRUSTED_PROXIES])
        if claimed:
            return claimed
    return _normalized(request.META.get("REMOTE_ADDR", ""))


def _normalized(text: str) -> str | None:
    """One spelling of an address, None for what is none.

    The zone of an IPv6 address, which may be any text, is left out; an IPv4 address stays one within IPv6.
    """
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
