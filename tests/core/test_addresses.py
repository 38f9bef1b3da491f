"""Addresses: which ones a result may come from, and how they are shown."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.addresses import (
    THIS_MACHINE,
    host_problem,
    is_local,
    is_public,
    link_problem,
    may_be_asked,
    origin_of,
    over_https,
    without_secrets,
)

PUBLIC = [
    "8.8.8.8",
    "192.0.1.1",
    "2001:4860:4860::8888",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
    "2a00:1450::5efe:8.8.8.8",
]


@pytest.mark.parametrize("address", PUBLIC)
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
        "192.0.0.9",
        "192.0.0.171",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "239.1.1.1",
        "240.0.0.1",
        "fec0::1",
        "fed0::1%3",
        "fd12::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        "::ffff:0:8.8.8.8",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "64:ff9b:1::8.8.8.8",
        "2001:0:808:808::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "2002:c0a8:101::",
        "2a00:1450::5efe:10.0.0.1",
        "2a00:1450::200:5efe:127.0.0.1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "100::1",
        "fe80::5efe:8.8.8.8",
        "ff0e::1",
    ],
)
def test_private_addresses(address: str) -> None:
    """Everything else is not, in any wrapping."""
    assert not is_public(address)


@given(st.ip_addresses())
def test_every_address_is_judged(address: object) -> None:
    """Whatever the standard library of this Python holds for private is not public, but for what stands for IPv4."""
    ip = ipaddress.ip_address(str(address))
    stands_for = isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or str(ip).startswith("64:ff9b::"))
    assert not is_public(str(ip)) or ip.is_global or stands_for


@pytest.mark.parametrize(
    ("address", "networks", "may"),
    [
        ("198.18.0.7", ["198.18.0.0/15"], True),
        ("::ffff:198.18.0.7", ["198.18.0.0/15"], True),
        ("198.20.0.7", ["198.18.0.0/15"], True),
        ("10.0.0.1", ["198.18.0.0/15"], False),
        ("10.0.0.1", ["198.18.0.0/15", "10.0.0.0/8"], True),
        ("fc00::1%2", ["fc00::/18"], True),
        ("fd00::1", ["fc00::/18"], False),
        ("8.8.8.8", [], True),
        ("127.0.0.1", [], False),
    ],
)
def test_networks_that_are_allowed(address: str, networks: list[str], may: bool) -> None:
    """What is allowed besides is asked, and nothing else that is not public."""
    allow = tuple(ipaddress.ip_network(network) for network in networks)
    assert may_be_asked(address, allow) is may


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("cdn.finevoice.ai", True),
        ("8.8.8.8", True),
        ("cafe", True),
        ("x.0xyz", True),
        ("127.0.0.1", False),
        ("127.0.0.1.", False),
        ("::1", False),
        ("127.1", False),
        ("0x7f000001", False),
        ("0X7F.1", False),
        ("2130706433", False),
        ("0177.0.0.1", False),
        ("x.127", False),
        ("localhost", False),
        ("LOCALHOST.", False),
        ("a.localhost", False),
    ],
)
def test_hosts(host: str, fine: bool) -> None:
    """A name may be looked up; an address is checked, and what some machines read as one is none."""
    assert (host_problem(host) is None) is fine


def test_hosts_that_are_allowed() -> None:
    """What is allowed may stand in a link, under its name, too; never in a spelling that others may read otherwise."""
    for network in ("127.0.0.0/8", "::1"):
        assert host_problem("localhost", (ipaddress.ip_network(network),)) is None
    allow = (ipaddress.ip_network("127.0.0.0/8"),)
    assert host_problem("127.0.0.1", allow) is None
    assert host_problem("10.0.0.1", allow) is not None
    assert host_problem("127.1", allow) is not None


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://x/a?b#c", "https://x/a?b#c"),
        ("HTTP://x:80/a", "https://x/a"),
        ("http://u:p@x:80", "https://u:p@x"),
        ("http://[::1]:80?b", "https://[::1]?b"),
        ("http://x:8080/a:80", "https://x:8080/a:80"),
        ("http://x/:80/", "https://x/:80/"),
        ("https://x:80/a", "https://x:80/a"),
        ("ftp://x", "ftp://x"),
        ("http", "http"),
        ("", ""),
    ],
)
def test_over_https(url: str, asked: str) -> None:
    """A plain http link is asked over https, on its own port unless that is http's."""
    assert over_https(url) == asked


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
        ("https://127.0.0.1/", False, "private"),
        ("https://[fec0::1]/", False, "private"),
        ("https://2130706433/", False, "private"),
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
    ("url", "origin"),
    [
        ("https://apis.finevoice.ai", "https://apis.finevoice.ai:443"),
        ("https://APIS.finevoice.ai.:443/v1", "https://apis.finevoice.ai:443"),
        ("http://apis.finevoice.ai", "http://apis.finevoice.ai:80"),
        ("http://192.168.1.5:8080/gateway", "http://192.168.1.5:8080"),
        ("https://[2a00:1450::1]", "https://[2a00:1450::1]:443"),
        ("http://127.0.0.1:45671", THIS_MACHINE),
        ("http://127.8.9.1", THIS_MACHINE),
        ("https://localhost:8443", THIS_MACHINE),
        ("http://emulator.localhost:1", THIS_MACHINE),
        ("http://[::1]:9", THIS_MACHINE),
        ("http://[::ffff:127.0.0.1]:9", THIS_MACHINE),
        ("http://0.0.0.0:9", THIS_MACHINE),
    ],
)
def test_whose_effects_they_are(url: str, origin: str) -> None:
    """Scheme, host and port tell services apart; whatever listens on this machine is one."""
    assert origin_of(url) == origin
