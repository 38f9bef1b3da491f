"""Names for files, and which links and addresses a result may be fetched from: rules without I/O."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from urllib.parse import unquote, urlsplit

_MAX_SLUG = 40
_MAX_ID = 48


def slug(text: str) -> str:
    """Give lower-case ASCII words joined by hyphens: safe in every file system, whatever the text holds."""
    plain = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:_MAX_SLUG].rstrip("-")


def file_name(prompt: str | None, task_id: str | None, url: str) -> str:
    """Give a safe name for a result: words of the prompt, the task id, the link's kind of file."""
    safe_id = re.sub(r"[^A-Za-z0-9_-]+", "-", task_id or "")[:_MAX_ID].strip("-")
    if safe_id != task_id:  # another id may read the same now
        safe_id = f"{safe_id}-{hashlib.sha256((task_id or url).encode('utf-8', 'replace')).hexdigest()[:8]}".lstrip("-")
    return f"{slug(prompt or '') or 'effect'}-{safe_id}{extension(url)}"


def extension(url: str) -> str:
    """Give the file extension of a link, `.mp3` if it has none that is plain."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return ".mp3"
    match = re.search(r"\.([A-Za-z0-9]{2,4})$", path)
    return f".{match[1].lower()}" if match else ".mp3"


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
    """Give why a result link must not be followed, None if it may. The address behind it is checked at connect."""
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
