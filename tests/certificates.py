"""A certificate for files.test, apis.test and 127.0.0.1 that nobody trusts unless told to, and its key: for tests."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBvzCCAWWgAwIBAgIUZ9BAItUWel+5Fn3i3ciyYxrhlx4wCgYIKoZIzj0EAwIw
IDEeMBwGA1UEAwwVZmluZXZvaWNlLWFzeW5jIHRlc3RzMCAXDTI2MTEyODEzNTky
M1oYDzIxMjYxMTA0MTM1OTIzWjAgMR4wHAYDVQQDDBVmaW5ldm9pY2UtYXN5bmMg
dGVzdHMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATHScLGvd+QN5rntCK6U4I5
Dn5aF/tQoJxeYSqzEg0rnlwbp5UnrAibGOXF6Xj9F3AaGn0f6NO1SpwZKfpf/SWT
o3sweTAdBgNVHQ4EFgQUMXQ9GgYxIxzANiIi417Y7upkEWIwHwYDVR0jBBgwFoAU
MXQ9GgYxIxzANiIi417Y7upkEWIwJgYDVR0RBB8wHYIKZmlsZXMudGVzdIIJYXBp
cy50ZXN0hwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIg
Cljqe4rWDcgCg809JxsLsdnuXCOQeyHa0dlNG42RdjQCIQC1mq1UUGPkAOYF3gI/
d4F44ZEPeRIr0WVd7XbxApU7hA==
-----END CERTIFICATE-----
"""
_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJcuic+NnrqK6eTRv
gu0NexEblUl0+HDqvfoezjsEykahRANCAATHScLGvd+QN5rntCK6U4I5Dn5aF/tQ
oJxeYSqzEg0rnlwbp5UnrAibGOXF6Xj9F3AaGn0f6NO1SpwZKfpf/SWT
-----END PRIVATE KEY-----
"""


def server_side() -> ssl.SSLContext:
    """Return what a server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "both.pem"
        file.write_text(_KEY + _CERTIFICATE)
        context.load_cert_chain(file)
    return context


def client_side() -> ssl.SSLContext:
    """Return what a client needs who trusts it."""
    return ssl.create_default_context(cadata=_CERTIFICATE)
