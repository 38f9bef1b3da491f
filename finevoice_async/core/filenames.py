"""Names for files: safe in every file system, whatever the prompt holds."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from urllib.parse import unquote, urlsplit

_MAX_SLUG = 40
_MAX_ID = 48


def slug(text: str) -> str:
    """Return lower-case ASCII words joined by hyphens: safe in every file system, whatever the text holds."""
    plain = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:_MAX_SLUG].rstrip("-")


def file_name(prompt: str | None, task_id: str | None, url: str) -> str:
    """Return a safe name for a result: words of the prompt, the task id, the link's kind of file."""
    safe_id = re.sub(r"[^A-Za-z0-9_-]+", "-", task_id or "")[:_MAX_ID].strip("-")
    if safe_id != task_id:  # another id may read the same now
        safe_id = f"{safe_id}-{hashlib.sha256((task_id or url).encode('utf-8', 'replace')).hexdigest()[:8]}".lstrip("-")
    return f"{slug(prompt or '') or 'effect'}-{safe_id}{extension(url)}"


def extension(url: str) -> str:
    """Return the file extension of a link, `.mp3` if it has none that is plain."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return ".mp3"
    match = re.search(r"\.([A-Za-z0-9]{2,4})$", path)
    return f".{match[1].lower()}" if match else ".mp3"
