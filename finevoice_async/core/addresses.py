"""Which links and addresses a result may be fetched from, and how they are shown: rules without I/O."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from finevoice_async.config import Address, Network


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


# What is not the public internet, of IPv4: the special-purpose registry of IANA (RFC 6890), with nothing excepted. The
# standard library's own list differs from version to version.
_NOT_PUBLIC_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared with the carrier
            "127.0.0.0/8",  # this machine
            "169.254.0.0/16",  # link-local, and clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # IETF protocols
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays to 6to4, withdrawn
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
# Of IPv6 only 2000::/3 is handed out to anybody, less these.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # IETF protocols: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_6TO4 = ipaddress.IPv6Network("2002::/16")
_STANDS_FOR_IPV4 = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))  # mapped, NAT64
_ISATAP = (0x00005EFE, 0x02005EFE)  # before an IPv4 address in an interface's part (RFC 5214)


def is_public(address: str) -> bool:
    """Tell whether an IP address is on the public internet, looking through the ways to wrap IPv4 in IPv6.

    Raises:
        ValueError: It is no IP address.
    """
    return _is_public(ipaddress.ip_address(address.partition("%")[0]))


def _is_public(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    inner = _inner(ip)
    if any(ip in network for network in _STANDS_FOR_IPV4):
        return inner is not None and _is_public(inner)
    public = ip in _PUBLIC_6 and not any(ip in network for network in _NOT_PUBLIC_6)
    return public and (inner is None or _is_public(inner))


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to, where it may be a public one itself."""
    if ip in _6TO4:
        return ipaddress.IPv4Address(int(ip) >> 80 & 0xFFFFFFFF)
    if any(ip in network for network in _STANDS_FOR_IPV4) or int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def may_be_asked(address: str, allow: tuple[Network, ...] = ()) -> bool:
    """Tell whether an IP address may be connected to: it is public, or in one of the networks that are allowed besides.

    Raises:
        ValueError: It is no IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    plain = (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
    return _is_public(ip) or any(way in network for network in allow for way in (ip, plain))


def host_problem(host: str, allow: tuple[Network, ...] = ()) -> str | None:
    """Return why a link's host must not be asked, as far as its name alone tells; None if it may.

    A name is looked up later, by this machine or by a proxy. What `inet_aton` takes for an address without being one
    (`127.1`, `0x7f000001`, `2130706433`) is no name, so that no proxy reads it in its own way.
    """
    name = host.rstrip(".").lower()
    try:
        return None if may_be_asked(name, allow) else "leads to a private address"
    except ValueError:
        last = name.rpartition(".")[2]
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
        return "leads to a private address"
    if last == "localhost" and not any(may_be_asked(own, allow) for own in ("127.0.0.1", "::1")):
        return "leads to a private address"
    return None


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


THIS_MACHINE: Final = "this machine"


def origin_of(base_url: str) -> str:
    """Return whose effects a base URL's are: its scheme, host and port.

    All of this machine's are one: an emulator listens on another port each time, and what is told of an earlier run of
    it is what a test of restarts is about.
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".").lower()
    if _is_this_machine(host):
        return THIS_MACHINE
    port = parts.port or (80 if parts.scheme == "http" else 443)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    plain = (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
    return plain.is_loopback or plain.is_unspecified


def over_https(url: str) -> str:
    """Return a plain http link as https, anything else as it is."""
    scheme, colon, rest = url.partition(":")
    if scheme.lower() != "http" or not colon:
        return url
    return "https:" + re.sub(r"^(//[^/?#]*):80(?=[/?#]|$)", r"\1", rest)


def link_problem(url: str, *, local: bool, allow: tuple[Network, ...] = ()) -> str | None:
    """Return why a result link must not be followed, None if it may. The address behind it is checked at connect.

    Args:
        url: The link.
        local: Plain http and every address are fine: the service itself is an emulator or a test.
        allow: Networks that may be asked although they are not public.
    """
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
    return None if local else host_problem(host, allow)
