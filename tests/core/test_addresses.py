"""Addresses: which ones a result may come from, and how they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.addresses import is_local, is_public, link_problem, redirected, without_secrets


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    """Addresses of the public internet are public."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)
def test_private_addresses(address: str) -> None:
    """Everything else is not, in any wrapping."""
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("https://apis.finevoice.ai", False),
        ("http://apis.finevoice.ai", True),
        ("https://localhost:8443", True),
        ("https://a.localhost", True),
        ("https://127.0.0.1", True),
        ("https://[::1]:1", True),
        ("https://8.8.8.8", False),
    ],
)
def test_is_local(url: str, local: bool) -> None:
    """A plain http or private base URL is an emulator's or a test's."""
    assert is_local(url) is local


@pytest.mark.parametrize(
    ("url", "local", "word"),
    [
        ("https://cdn.finevoice.ai/a.mp3", False, None),
        ("http://cdn.finevoice.ai/a.mp3", False, "https"),
        ("http://127.0.0.1/a.mp3", True, None),
        ("file:///etc/passwd", True, "https"),
        ("https:///a", False, "host"),
        ("https://x/a\nb", False, "control"),
        ("https://[", False, "URL"),
        ("https://x:99999/", False, "URL"),
    ],
)
def test_link_problem(url: str, local: bool, word: str | None) -> None:
    """Only web links are followed, only https unless the service itself is local."""
    problem = link_problem(url, local=local)
    assert (problem is None) if word is None else (word in str(problem))


@given(st.text())
def test_without_secrets_never_fails(text: str) -> None:
    """Any text can be shown without its secrets."""
    assert "?" not in (without_secrets(text) or "").replace("?...", "")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, None),
        ("https://user:pw@cdn.x/a.mp3?sig=1#f", "https://cdn.x/a.mp3?..."),
        ("https://cdn.x/a.mp3", "https://cdn.x/a.mp3"),
        ("https://[", "(not a URL)"),
    ],
)
def test_without_secrets(url: str | None, shown: str | None) -> None:
    """User, password, query and fragment are left out; nothing stays nothing."""
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/b", "https://a.test/b"),
        ("//b.test/c", "https://b.test/c"),
        ("http://[::1", "http://[::1"),
        ("", "https://a.test/x"),
    ],
)
def test_redirects(location: str, leads_to: str) -> None:
    """A location is read against the address that gave it; what no URL can be is left for the check to refuse."""
    assert redirected("https://a.test/x", location) == leads_to


@given(st.text())
def test_any_location(location: str) -> None:
    """Whatever a server calls a location, the check has a word on it."""
    link_problem(redirected("https://a.test/x", location), local=False)
