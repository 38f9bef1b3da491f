"""Options: small frozen values, in seconds and bytes. Each default says where it comes from.

Also the rules for the key and the service's address.
"""

from __future__ import annotations

import ipaddress
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import attrs

from finevoice_async.errors import ConfigurationError
from finevoice_async.reprs import with_safe_repr

BASE_URL = "https://apis.finevoice.ai"
"""The real service, from the vendor's reference."""

BASE_URL_VARIABLE = "FINEVOICE_BASE_URL"
API_KEY_VARIABLE = "FINEVOICE_API_KEY"


def check_api_key(key: str | None) -> str:
    """Return the key if a header can carry it.

    Raises:
        ConfigurationError: It is missing, blank, or not printable ASCII. The message never shows it.
    """
    where = f"Keys come from your FineVoice account; give one as api_key or in {API_KEY_VARIABLE}."
    text = _plain_text(key).strip()
    if not text:
        raise ConfigurationError(f"There is no API key. {where} To try without one, run `finevoice demo`.")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigurationError(f"The API key must be printable ASCII without spaces. {where}")
    return text


def check_base_url(url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        ConfigurationError: It is no plain http or https address.
    """
    text = _plain_text(url)
    secretive = any(mark in text for mark in "@?#")  # what stands there may be a password
    if secretive or not _is_web_address(text):
        raise ConfigurationError(
            f"The base URL must be an http or https address without user, query and fragment, not "
            f"{'one with these parts' if secretive else _show(url)}. It comes from base_url or {BASE_URL_VARIABLE}."
        )
    return text.rstrip("/")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return usable and text.isprintable() and " " not in text


def _plain_text(value: object) -> str:
    """Return a text as a plain one, and nothing of anything else: a subclass may do anything in its methods."""
    return str.__str__(value) if issubclass(type(value), str) else ""


def _show(value: object) -> str:
    try:
        return str.encode(repr(value), "utf-8", "backslashreplace").decode()[:60]
    except Exception:  # noqa: BLE001 - a message must not fail for what it is about
        return "a value that cannot be shown"


def _refuse(owner: object, field: attrs.Attribute[Any], value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{type(owner).__name__}.{field.name} must be {rule}, not {_show(value)}.")


def _as_number(value: Any) -> Any:
    """Return a number as a plain one, anything else as it is, for the rule to refuse."""
    kind = type(value)
    if issubclass(kind, int) and kind is not bool:
        return int.__int__(value)
    return float.__float__(value) if issubclass(kind, float) else value


def _is_number(value: Any) -> bool:
    """Tell whether it is a finite number, and within the range of floats."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _positive(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value) or value <= 0:
        raise _refuse(owner, field, value, "a finite number above 0")


def _not_negative(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value) or value < 0:
        raise _refuse(owner, field, value, "a finite number, 0 or above")


def _count(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if type(value) is not int or value < 1:
        raise _refuse(owner, field, value, "a whole number, 1 or above")


def _optional_positive(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _positive(owner, field, value)


def _yes_or_no(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if type(value) is not bool:
        raise _refuse(owner, field, value, "True or False")


def _as_count(value: int) -> Any:
    """Do the same where the caller gives a whole number: a checker takes this type for the option's."""
    return _as_number(value)


def _as_time(value: timedelta | None) -> Any:
    """Return a time as a plain one, anything else as it is, for the rule to refuse."""
    plain: Any = value
    return timedelta.__add__(timedelta(), plain) if issubclass(type(plain), timedelta) else plain


def _optional_time(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (type(value) is not timedelta or value <= timedelta()):
        raise _refuse(owner, field, value, "a timedelta above 0, or None")


def _number(default: float | None, rule: Callable[[object, attrs.Attribute[Any], Any], None]) -> Any:
    return attrs.field(default=default, converter=_as_number, validator=rule)


@with_safe_repr
@attrs.frozen(kw_only=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect: For one connection, TLS included.
        read: For an answer of the service, once it is connected; between two pieces of a download.
        task: For one effect, from the start of the wait; None waits for ever.
        close: For submissions under way when the session closes.

    Raises:
        ConfigurationError: A value is not a finite number above 0.
    """

    connect: float = _number(10.0, _positive)  # three SYN retransmissions take 7 s
    read: float = _number(30.0, _positive)  # a healthy answer takes well under 1 s
    task: float | None = _number(900.0, _optional_positive)  # effects take seconds to minutes
    close: float = _number(10.0, _positive)  # what container runtimes allow before SIGKILL


@with_safe_repr
@attrs.frozen(kw_only=True)
class Polling:
    """When to ask the service how a task is doing, in seconds unless said otherwise.

    By default the schedule learns how long effects take, and asks when an end is likely. `Polling.fixed` is the
    vendor's rule instead.

    Attributes:
        poll_cost: Seconds of notice lost that one poll is worth.
        busy_poll_cost: The same while requests wait for a slot, when every second of notice costs one.
        min_gap: The least time between two polls of a task.
        max_gap: The most.
        budget: Polls a second, for the whole session.
        memory: How many of the last effects the learned schedule remembers.
        state: What `FineVoiceSession.polling_state` gave in an earlier run, to start warm.
        interval: A fixed time between polls, instead of the learned schedule.
        grace: How long after submission a 404 is borne: the task may not be visible everywhere yet.
        failures: How many polls of a task must fail in a row, for two minutes at least, before its waiters hear of
            it. Polls that did not reach the service do not count.
        concurrency: How many polls may be under way at once.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    poll_cost: float = _number(0.4, _positive)  # about 3 polls on an 8 s effect, 0.9 s of lag
    busy_poll_cost: float = _number(0.2, _positive)  # shortest makespan at 5 slots
    min_gap: float = _number(0.5, _positive)  # no law measured gains from asking sooner
    max_gap: float = _number(30.0, _positive)  # the longest silence a person bears
    budget: float = _number(50.0, _positive)  # 10,000 tasks of minutes; 2 % of a core
    memory: float = _number(50.0, _positive)  # forgets a change of pace within 200 effects
    state: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    interval: float | None = _number(None, _optional_positive)
    grace: float = _number(30.0, _not_negative)  # replication lag of ordinary databases
    failures: int = _number(8, _count)  # with the backoff, about as long as the two minutes
    concurrency: int = _number(16, _count)  # at 0.3 s an answer, the default budget

    def __attrs_post_init__(self) -> None:
        if self.min_gap > self.max_gap:
            raise ConfigurationError(f"Polling.min_gap ({self.min_gap}) must not be above max_gap ({self.max_gap}).")

    @classmethod
    def fixed(
        cls,
        interval: float = 2.5,
        *,
        min_gap: float = 0.5,
        max_gap: float = 30.0,
        budget: float = 50.0,
        state: Mapping[str, Any] | None = None,
        grace: float = 30.0,
        failures: int = 8,
        concurrency: int = 16,
    ) -> Polling:
        """Ask every `interval` seconds. The vendor advises 2 to 3.

        The other options are those that do not concern the learned schedule, with the same defaults. A `state` is
        kept for a later session that learns.
        """
        return cls(
            interval=interval,
            min_gap=min_gap,
            max_gap=max_gap,
            budget=budget,
            state=state,
            grace=grace,
            failures=failures,
            concurrency=concurrency,
        )


@with_safe_repr
@attrs.frozen(kw_only=True)
class Retry:
    """What is tried again, and how patiently. What must never be tried again is not an option but a rule.

    Attributes:
        attempts: How often a call is made at most, the first included. A submission that costs nothing, because the
            service was not reached or said 429, is bounded by `patience` instead; with 1 nothing is tried again.
        first_delay: The longest first wait, in seconds; it doubles with each attempt.
        max_delay: The longest wait between attempts, in seconds.
        max_retry_after: The longest `Retry-After` that is obeyed, in seconds.
        patience: How long a submission is held that costs nothing, in seconds: the service is not reached, or says
            429. One probe at a time tells when it goes on, for all that wait. Then whoever waits hears why; what
            `enqueue` has kept in a journal, or an earlier session, stays queued there.
        resend_unknown: Send a submission again although it may have been accepted and paid for. Costs money.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    attempts: int = _number(4, _count)  # with these delays, rides out 3 s on average
    first_delay: float = _number(0.5, _positive)  # the usual start of SDKs
    max_delay: float = _number(30.0, _positive)  # the usual end
    max_retry_after: float = _number(120.0, _positive)  # beyond it, an error is more use
    patience: float = _number(120.0, _positive)  # a router restarts, somebody else's effects end
    resend_unknown: bool = attrs.field(default=False, validator=_yes_or_no)  # it may have been paid for


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NETWORKS = (ipaddress.IPv4Network, ipaddress.IPv6Network)
_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)


def _optional_count(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _count(owner, field, value)


def _as_networks(value: Iterable[str | Network | Address]) -> Any:
    """Return networks, addresses and texts as networks; anything else as it is, for the rule to refuse."""
    if issubclass(type(value), (str, bytes, *_NETWORKS)):  # these would be taken letter by letter, address by address
        return value
    try:
        known = (*_NETWORKS, *_ADDRESSES)
        return tuple(ipaddress.ip_network(each if type(each) in known else _plain_text(each)) for each in value)
    except Exception:  # noqa: BLE001 - the caller's iterable may raise anything
        return value


def _networks(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if type(value) is not tuple or not all(type(each) in _NETWORKS for each in value):
        raise _refuse(owner, field, value, "a list of networks, such as ['198.18.0.0/15']")


def _context(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not issubclass(type(value), ssl.SSLContext):
        raise _refuse(owner, field, value, "an ssl.SSLContext, or None for aiohttp's own")


def _as_text(value: str | None) -> Any:
    """Return a text as a plain one, anything else as it is, for the rule to refuse."""
    return _plain_text(value) if issubclass(type(value), str) else value


def _proxy(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not (_is_web_address(_plain_text(value)) and value.isascii()):
        raise ConfigurationError(  # it is not shown: it may hold a password
            f"{type(owner).__name__}.{field.name} must be an http or https address, such as http://user:pw@host:3128."
        )


def _show_proxy(value: str | None) -> str:
    """Show a proxy without user, password and what stands behind its host."""
    if value is None:
        return "None"
    parts = urlsplit(value)
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


@with_safe_repr
@attrs.frozen(kw_only=True)
class Downloads:
    """How results are fetched.

    Results lie anywhere, so nothing of the service's goes to them: no key, no cookies, nothing of `~/.netrc`. Only
    public addresses are asked, and those in `allow`. With a proxy it is the proxy that looks names up: then only
    addresses that stand in a link itself are checked, and the proxy's own may be any.

    Attributes:
        concurrency: How many downloads run at once. A stream counts from its first piece to its end.
        attempts: How often a result is asked for at most, the first time included; None: as `Retry.attempts`.
        trust_env: Use the environment's proxies: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.
        proxy: The address of an http or https proxy, before the environment's.
        ssl: Certificates to trust, and so on, in place of aiohttp's own.
        allow: Networks that may be asked although they are not public: some resolvers answer from 198.18.0.0/15.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    concurrency: int = _number(8, _count)  # more than browsers open to a host (6); 30 s of audio have 1 to 10 MB
    attempts: int | None = _number(None, _optional_count)  # one patience for all calls, unless somebody wants another
    trust_env: bool = attrs.field(default=False, validator=_yes_or_no)  # as aiohttp
    proxy: str | None = attrs.field(default=None, converter=_as_text, validator=_proxy, repr=_show_proxy)  # as aiohttp
    ssl: ssl.SSLContext | None = attrs.field(default=None, validator=_context, repr=False)  # as aiohttp
    allow: tuple[Network, ...] = attrs.field(
        default=(), converter=_as_networks, validator=_networks
    )  # nothing but public


@with_safe_repr
@attrs.frozen(kw_only=True)
class Budget:
    """How many submissions may be made: each may cost money.

    A submission counts from the moment before it leaves until it is known that it certainly was not accepted. One whose
    answer was lost, or that a crash cut off, counts as accepted. One of the same effect again is another one. Rows that
    are pruned from the journal count on. What is beyond it is a `BudgetExceededError`; of `enqueue`, by its task.

    Attributes:
        effects: How many, at most.
        per: In any stretch of this length, by the journal, whatever sessions made them; None: in the session's life.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    effects: int = attrs.field(converter=_as_count, validator=_count)  # no default: nobody else knows it
    per: timedelta | None = attrs.field(default=None, converter=_as_time, validator=_optional_time)


def _more_than_twice_the_beat(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    _positive(owner, field, value)
    if value <= 2 * owner.beat:  # type: ignore[attr-defined]  # the options' own field
        raise _refuse(owner, field, value, "more than twice the beat")


@with_safe_repr
@attrs.frozen(kw_only=True)
class Fleet:
    """How a session lives in a fleet: several processes and machines with one key, and one PostgreSQL.

    Attributes:
        beat: Seconds between two signs of life.
        lease: Seconds without one after which the others take the session for dead: what it was sending is unknown
            then. Half a lease after its last sign a session sends nothing by itself.
        hold: Seconds for which what is unknown keeps its slot: it may run.
        adopt: Follow the tasks of sessions that died or left.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    beat: float = _number(1.0, _positive)  # a dead worker's slots are back within two
    lease: float = _number(15.0, _more_than_twice_the_beat)  # longer than restarts of a database and pauses of a VM
    hold: float = _number(120.0, _not_negative)  # effects take seconds to minutes
    adopt: bool = attrs.field(default=True, validator=_yes_or_no)
