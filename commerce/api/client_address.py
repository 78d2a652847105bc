"""The client address of a request, by which throttles and lockouts count."""

from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """Return the IP address of the client, or of the last untrusted proxy.

    Return None if no trusted proxy names an address and the connection is a Unix socket.

    Each proxy appends the address of its peer to `X-Forwarded-For`. Only the last `TRUSTED_PROXIES` entries can be
    trusted, because the client can send all entries before them.
    """
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    if 0 < settings.TRUSTED_PROXIES <= len(forwarded):
        claimed = _normalized(forwarded[-settings.TRUSTED_PROXIES])
        if claimed:
            return claimed
    return _normalized(request.META.get("REMOTE_ADDR", ""))


def _normalized(text: str) -> str | None:
    """Return one spelling of an IP address, or None if the text is not an address.

    The result has no IPv6 zone, which may be any text. An IPv4 address that is mapped into IPv6 becomes IPv4.
    """
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
