"""Which links and addresses a result may be fetched from, and how they are shown: rules without I/O."""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit


def without_secrets(url: str | None) -> str | None:
    """Return a URL without user, query and fragment, which may carry a signature or a password."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "(not a URL)"
    return f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")


def is_public(address: str) -> bool:
    """Tell whether an IP address is on the public internet, looking through the ways to wrap IPv4 in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 (RFC 6052)
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
    return ip.is_global and not ip.is_multicast


def is_local(base_url: str) -> bool:
    """Tell whether a base URL is of an emulator or a test: plain http, or a host that is not public."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme == "http" or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(host)
    except ValueError:
        return False


def link_problem(url: str, *, local: bool) -> str | None:
    """Return why a result link must not be followed, None if it may. The address behind it is checked at connect."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    schemes = ("https", "http") if local else ("https",)
    if parts.scheme not in schemes:
        return f"is not {' or '.join(schemes)}"
    if not host:
        return "has no host"
    if not url.isprintable():
        return "has control characters"
    return None


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads; a location that no URL can be as it is, for `link_problem` to say so."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location
