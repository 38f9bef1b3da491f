"""The options, the key and the address: checked when they are given, and every mistake is one kind of error."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strange import NO_NUMBERS, NO_TEXTS, BrokenFloat, BrokenInt, BrokenText, Liar, Seconds, Unshowable

from finevoice_async.config import Budget, Polling, Retry, Timeouts, check_api_key, check_base_url
from finevoice_async.errors import ConfigurationError

NUMBERS: list[tuple[type[Any], str]] = [
    (kind, field.name)
    for kind in (Timeouts, Polling, Retry)
    for field in attrs.fields(kind)
    if field.name not in ("state", "resend_unknown")
]
"""Every option that is a number."""

BAD: list[tuple[type[Any], dict[str, Any]]] = [
    (Timeouts, {"connect": 0}),
    (Timeouts, {"read": -1e-9}),
    (Timeouts, {"task": 0}),
    (Timeouts, {"close": None}),
    (Polling, {"interval": 0}),
    (Polling, {"grace": -1}),
    (Polling, {"min_gap": 5, "max_gap": 1}),
    (Polling, {"failures": 0}),
    (Polling, {"concurrency": 1.5}),
    (Budget, {"effects": 0}),
    (Budget, {"effects": -1}),
    (Budget, {"effects": 1.0}),
    (Budget, {"effects": True}),
    (Budget, {"effects": None}),
    (Budget, {"per": timedelta(), "effects": 1}),
    (Budget, {"per": timedelta(microseconds=-1), "effects": 1}),
    (Budget, {"per": 86400, "effects": 1}),
    (Budget, {"per": "1 day", "effects": 1}),
    (Budget, {"per": Unshowable(), "effects": 1}),
    (Retry, {"attempts": 0}),
    (Retry, {"max_delay": "1"}),
    (Retry, {"resend_unknown": "no"}),
    (Retry, {"resend_unknown": 1}),
    (Retry, {"resend_unknown": None}),
]


@pytest.mark.parametrize(("kind", "fields"), BAD)
def test_an_option_out_of_its_range_is_refused(kind: type[Any], fields: dict[str, Any]) -> None:
    """The error names the option and its rule."""
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}\.{next(iter(fields))} .*must (not )?be"):
        kind(**fields)


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_whatever_is_no_number_is_refused(kind: type[Any], name: str, value: str) -> None:
    """A number beyond floats, of another kind, or that fails when it is compared is a mistake in the options."""
    if name in ("attempts", "failures", "concurrency") and value in ("beyond floats", "5,000 digits", "a broken int"):
        kind(**{name: NO_NUMBERS[value]})  # a count may be as large as anybody likes
        return
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}\.{name} must be ") as caught:
        kind(**{name: NO_NUMBERS[value]})
    assert len(str(caught.value)) < 200


def test_kinds_of_numbers_are_taken_as_plain_ones() -> None:
    """An enum's member counts as its number; so does a subclass that fails in all that it does."""
    timeouts = Timeouts(connect=Seconds.FEW, read=BrokenFloat(2.5), task=BrokenInt(7))
    assert timeouts == Timeouts(connect=5, read=2.5, task=7)
    assert (type(timeouts.connect), type(timeouts.read), type(timeouts.task)) == (int, float, int)
    assert Polling(min_gap=BrokenFloat(1), max_gap=BrokenFloat(2), failures=BrokenInt(3)).failures == 3


@pytest.mark.parametrize("value", [Unshowable(), Liar], ids=["no repr", "a liar"])
def test_whatever_is_no_bool_is_refused(value: Any) -> None:
    """Who accepts to pay twice must say so with True."""
    with pytest.raises(ConfigurationError, match=r"^Retry\.resend_unknown must be True or False"):
        Retry(resend_unknown=value() if isinstance(value, type) else value)
    assert Retry(resend_unknown=True).resend_unknown
    assert not Retry().resend_unknown


class Days(timedelta):
    """A time that fails in all that it does."""

    def _fail(self, *_: object) -> Any:
        raise RuntimeError("not today")

    __le__ = __lt__ = __ge__ = __gt__ = __add__ = __radd__ = __repr__ = __str__ = total_seconds = _fail


def test_a_budget() -> None:
    """It is a number of submissions, in the session or in a time; another's kind of time is taken as a plain one."""
    assert (Budget(effects=3).effects, Budget(effects=3).per) == (3, None)
    budget = Budget(effects=BrokenInt(100), per=Days(1))
    assert budget == Budget(effects=100, per=timedelta(days=1))
    assert (type(budget.effects), type(budget.per)) == (int, timedelta)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        budget.effects = 1000  # type: ignore[misc]  # that is what is refused
    with pytest.raises(TypeError):
        Budget()  # type: ignore[call-arg]  # nobody else knows how many


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_whatever_is_no_number_is_no_budget(value: str) -> None:
    """A count may be as large as anybody likes, and nothing else."""
    if value in ("beyond floats", "5,000 digits", "a broken int"):
        Budget(effects=NO_NUMBERS[value])
        return
    with pytest.raises(ConfigurationError, match=r"^Budget\.effects must be a whole number, 1 or above, not "):
        Budget(effects=NO_NUMBERS[value])


def test_options_without_end() -> None:
    """A task may be waited for without end; a fixed interval is chosen by name, with other options beside it."""
    assert Timeouts(task=None).task is None
    polling = Polling.fixed(3, grace=0)
    assert (polling.interval, polling.grace, polling.budget) == (3, 0, Polling().budget)
    assert Polling.fixed().interval == 2.5


def test_what_was_learned_stays_out_of_a_repr() -> None:
    """A saved state is long, and shown nowhere."""
    assert "s3cret" not in repr(Polling(state={"s3cret": 1}))


@pytest.mark.parametrize("key", ["k", "sk-live-1234", " sk-live-1234\n", BrokenText("sk-live-1234")], ids=str.__len__)
def test_good_key(key: str) -> None:
    """A key is taken without the white space around it, as files and shells leave it."""
    assert check_api_key(key) in ("k", "sk-live-1234")
    assert type(check_api_key(key)) is str


@pytest.mark.parametrize("key", [None, "", "  ", 5, b"key", "two words", "schlüssel", "a\nb", "a\x00b", "\ud800"])
def test_bad_key(key: Any) -> None:
    """A key that no header can carry is refused without being shown."""
    with pytest.raises(ConfigurationError, match="FINEVOICE_API_KEY") as caught:
        check_api_key(key)
    assert "schlüssel" not in str(caught.value)
    assert "words" not in str(caught.value)


@pytest.mark.parametrize("value", NO_TEXTS)
def test_whatever_is_no_text_is_no_key_and_no_address(value: str) -> None:
    """Objects that cannot be compared, shown or even asked for their class are mistakes like any other."""
    checks: tuple[Callable[[Any], str], ...] = (check_api_key, check_base_url)
    for check in checks:
        with pytest.raises(ConfigurationError) as caught:
            check(NO_TEXTS[value])
        str(caught.value).encode()
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://apis.finevoice.ai", "https://apis.finevoice.ai"),
        ("https://apis.finevoice.ai/", "https://apis.finevoice.ai"),
        ("http://127.0.0.1:8080//", "http://127.0.0.1:8080"),
        ("HTTPS://proxy.example/finevoice/", "HTTPS://proxy.example/finevoice"),
        ("http://[::1]:80", "http://[::1]:80"),
        (BrokenText("http://x/"), "http://x"),
    ],
    ids=str.__str__,
)
def test_good_base_url(url: str, taken: str) -> None:
    """A web address is taken without the slash at its end."""
    assert check_base_url(url) == taken


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "apis.finevoice.ai",
        "ftp://apis.finevoice.ai",
        "https://",
        "https://[::1",
        "https://x:0",
        "https://x:99999",
        "https://x y",
        "https://x\n",
        "https://x/\u202e",
        b"https://x",
        None,
    ],
)
def test_bad_base_url(url: Any) -> None:
    """What is no web address is refused, shown, and where it comes from is said."""
    with pytest.raises(ConfigurationError, match="FINEVOICE_BASE_URL") as caught:
        check_base_url(url)
    assert repr(url)[:60] in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cret@x",
        "https://s3cret@x",
        "ftp://user:s3cret@x",
        "https://user:s3cret@[::1",
        "https://x?key=s3cret",
        "https://x#s3cret",
        "x?s3cret",
    ],
)
def test_an_address_with_a_secret_is_not_shown(url: str) -> None:
    """User, query and fragment may hold a password: such an address is refused without being shown."""
    with pytest.raises(ConfigurationError, match="with these parts") as caught:
        check_base_url(url)
    assert "s3cret" not in str(caught.value)


@given(st.text() | st.text(max_size=20).map("https://".__add__))
def test_any_base_url_is_taken_or_refused(url: str) -> None:
    """No text makes the check fail in another way."""
    try:
        taken = check_base_url(url)
    except ConfigurationError:
        return
    assert taken == url.rstrip("/")
