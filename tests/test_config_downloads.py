"""The options of downloads."""

from __future__ import annotations

import copy
import ipaddress
import pickle
import ssl
from typing import Any

import pytest
from strange import NO_NUMBERS, NO_TEXTS, BrokenInt, BrokenText, Liar, Unshowable

from finevoice_async import ConfigurationError, Downloads, FineVoiceSession

SECRET = "s3cret"
STRANGE: dict[str, Any] = NO_NUMBERS | NO_TEXTS | {"no repr": Unshowable(), "a liar": Liar()}
COUNTS = {"a number", "beyond floats", "5,000 digits", "a broken int"}


def test_defaults() -> None:
    """By default nothing but public addresses is asked, without a proxy."""
    options = Downloads()
    assert (options.concurrency, options.attempts, options.trust_env) == (8, None, False)
    assert (options.proxy, options.ssl, options.allow) == (None, None, ())


@pytest.mark.parametrize(
    "fields",
    [
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"concurrency": None},
        {"concurrency": True},
        {"attempts": 0},
        {"attempts": "3"},
        {"trust_env": 1},
        {"trust_env": None},
        {"ssl": True},
        {"ssl": False},
        {"ssl": "ca.pem"},
        {"ssl": ssl.SSLContext},
        {"allow": "198.18.0.0/15"},
        {"allow": b"198.18.0.0/15"},
        {"allow": ipaddress.ip_network("198.18.0.0/15")},
        {"allow": ["198.18.0.1/15"]},
        {"allow": ["files.test"]},
        {"allow": [None]},
        {"allow": [5]},
        {"allow": None},
        {"allow": 5},
    ],
    ids=str,
)
def test_an_option_out_of_its_range_is_refused(fields: dict[str, Any]) -> None:
    """The error names the option and its rule."""
    with pytest.raises(ConfigurationError, match=rf"^Downloads\.{next(iter(fields))} must be .*, not ") as caught:
        Downloads(**fields)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["concurrency", "attempts", "trust_env", "ssl", "proxy", "allow"])
@pytest.mark.parametrize("value", STRANGE)
def test_whatever_else_is_refused(name: str, value: str) -> None:
    """Objects that fail in all that they do are mistakes like any other; a count may be as large as anybody likes."""
    if value in {"concurrency": COUNTS, "attempts": COUNTS, "trust_env": {"a bool"}}.get(name, ()):
        Downloads(**{name: STRANGE[value]})
        return
    with pytest.raises(ConfigurationError, match=rf"^Downloads\.{name} must be ") as caught:
        Downloads(**{name: STRANGE[value]})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        f"user:{SECRET}@proxy.test:3128",
        f"socks5://user:{SECRET}@proxy.test",
        f"http://user:{SECRET}@",
        f"http://user:{SECRET}@[::1",
        f"http://user:{SECRET}@x:99999",
        f"http://user:{SECRET}@x y",
        f"http://user:{SECRET}@x\n",
        f"http://üser:{SECRET}@x",
        f"http://user:{SECRET}@x".encode(),
        5,
    ],
    ids=range(11),
)
def test_a_proxy_that_is_none_is_not_shown(proxy: Any) -> None:
    """It may hold a password."""
    with pytest.raises(ConfigurationError, match=r"^Downloads\.proxy must be an http or https address") as caught:
        Downloads(proxy=proxy)
    assert SECRET not in repr((caught.value, caught.value.__cause__, caught.value.__context__, vars(caught.value)))


def test_good_options() -> None:
    """Networks come as texts, networks or addresses; texts and numbers of other kinds are taken as plain ones."""
    networks = [
        "198.18.0.0/15",
        "fc00::/18",
        "10.1.2.3",
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_address("::1"),
    ]
    options = Downloads(
        allow=networks, concurrency=BrokenInt(3), proxy=BrokenText(f"http://user:{SECRET}@proxy.test:1/")
    )
    assert [str(network) for network in options.allow] == [
        "198.18.0.0/15",
        "fc00::/18",
        "10.1.2.3/32",
        "10.0.0.0/8",
        "::1/128",
    ]
    assert type(options.proxy) is str
    assert SECRET in options.proxy
    assert SECRET not in repr(options)
    assert "proxy.test:1" in repr(options)
    assert Downloads(allow=(text for text in ["10.0.0.0/8"])).allow == (ipaddress.ip_network("10.0.0.0/8"),)
    assert Downloads(ssl=ssl.create_default_context()).ssl is not None
    for twin in (copy.copy(options), pickle.loads(pickle.dumps(options))):
        assert twin == options


def test_a_session_shows_no_secret() -> None:
    """Nor does whoever is given the options."""
    session = FineVoiceSession("key", downloads=Downloads(proxy=f"http://user:{SECRET}@proxy.test"))
    assert SECRET not in repr(session)
