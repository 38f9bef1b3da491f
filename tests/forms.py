"""What a client uploads. aiohttp's own reader warns of itself, depending on how a body happens to arrive."""

from __future__ import annotations

import email

from aiohttp import web


async def read_form(request: web.Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return a form's fields by name, and its files by their file names."""
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    if request.content_type != "multipart/form-data":
        return {name: str(value) for name, value in (await request.post()).items()}, files
    boundary = request.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
    for part in (await request.read()).split(b"--" + boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers, content = email.message_from_bytes(head), content.removesuffix(b"\r\n")
        name = headers.get_filename()
        if name is not None:
            files[name] = content
        else:
            fields[str(headers.get_param("name", header="content-disposition"))] = content.decode()
    return fields, files
