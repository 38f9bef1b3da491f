"""Options: small frozen values, in seconds and bytes. Each default says where it comes from.

Also the rules for the key and the service's address.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from finevoice_async.errors import ConfigurationError

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
    if not isinstance(key, str) or not key.strip():
        raise ConfigurationError(f"There is no API key. {where} To try without one, run `finevoice demo`.")
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(f"The API key must be printable ASCII without spaces. {where}")
    return key


def check_base_url(url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        ConfigurationError: It is no plain http or https address.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
    except (ValueError, AttributeError, TypeError):
        usable = plain = False
    if not usable or not plain:
        shown = "one with these parts" if usable else repr(url)[:60]  # the parts may hold a password
        raise ConfigurationError(
            f"The base URL must be an http or https address without user, query and fragment, not {shown}. It comes "
            f"from base_url or {BASE_URL_VARIABLE}."
        )
    return url.rstrip("/")


def _refuse(owner: object, field: attrs.Attribute[Any], value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{type(owner).__name__}.{field.name} must be {rule}, not {value!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value) or value <= 0:
        raise _refuse(owner, field, value, "a finite number above 0")


def _not_negative(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value) or value < 0:
        raise _refuse(owner, field, value, "a finite number, 0 or above")


def _count(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refuse(owner, field, value, "a whole number, 1 or above")


def _optional_positive(owner: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _positive(owner, field, value)


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

    connect: float = attrs.field(default=10.0, validator=_positive)  # three SYN retransmissions take 7 s
    read: float = attrs.field(default=30.0, validator=_positive)  # a healthy answer takes well under 1 s
    task: float | None = attrs.field(default=900.0, validator=_optional_positive)  # effects take seconds to minutes
    close: float = attrs.field(default=10.0, validator=_positive)  # what container runtimes allow before SIGKILL


@attrs.frozen(kw_only=True)
class Polling:
    """When to ask the service how a task is doing, in seconds unless said otherwise.

    By default the schedule learns how long effects take, and asks when an end is likely. `Polling.fixed` is the
    vendor's rule instead.

    Attributes:
        poll_cost: Seconds of notice lost that one poll is worth.
        busy_poll_cost: The same while requests wait for a place, when every second of notice costs a place.
        min_gap: The least time between two polls of a task.
        max_gap: The most.
        budget: Polls a second, for the whole session.
        memory: How many of the last effects the learned schedule remembers.
        state: What `FineVoiceSession.polling_state` gave in an earlier run, to start warm.
        interval: A fixed time between polls, instead of the learned schedule.
        grace: How long after submission a 404 is borne: the task may not be visible everywhere yet.
        failures: How many polls of a task may fail in a row before its waiters hear of it.
        concurrency: How many polls may be under way at once.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    poll_cost: float = attrs.field(default=0.4, validator=_positive)  # about 3 polls on an 8 s effect, 0.9 s of lag
    busy_poll_cost: float = attrs.field(default=0.2, validator=_positive)  # shortest makespan at 5 places
    min_gap: float = attrs.field(default=0.5, validator=_positive)  # no law measured gains from asking sooner
    max_gap: float = attrs.field(default=30.0, validator=_positive)  # the longest silence a person bears
    budget: float = attrs.field(default=50.0, validator=_positive)  # 10,000 tasks of minutes; 2 % of a core
    memory: float = attrs.field(default=50.0, validator=_positive)  # forgets a change of pace within 200 effects
    state: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    interval: float | None = attrs.field(default=None, validator=_optional_positive)
    grace: float = attrs.field(default=30.0, validator=_not_negative)  # replication lag of ordinary databases
    failures: int = attrs.field(default=8, validator=_count)  # with the backoff, half a minute of outage
    concurrency: int = attrs.field(default=16, validator=_count)  # at 0.3 s an answer, the default budget

    def __attrs_post_init__(self) -> None:
        if self.min_gap > self.max_gap:
            raise ConfigurationError(f"Polling.min_gap ({self.min_gap}) must not be above max_gap ({self.max_gap}).")

    @classmethod
    def fixed(cls, interval: float = 2.5, **options: Any) -> Polling:
        """Ask every `interval` seconds. The vendor advises 2 to 3."""
        return cls(interval=interval, **options)


@attrs.frozen(kw_only=True)
class Retry:
    """What is tried again, and how patiently. What must never be tried again is not an option but a rule.

    Attributes:
        attempts: How often a call is made at most, the first included.
        first_delay: The longest first wait, in seconds; it doubles with each attempt.
        max_delay: The longest wait between attempts, in seconds.
        max_retry_after: The longest `Retry-After` that is obeyed, in seconds.
        resend_unknown: Send a submission again although it may have been accepted and paid for. Costs money.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    attempts: int = attrs.field(default=4, validator=_count)  # with these delays, rides out 3 s on average
    first_delay: float = attrs.field(default=0.5, validator=_positive)  # the usual start of SDKs
    max_delay: float = attrs.field(default=30.0, validator=_positive)  # the usual end
    max_retry_after: float = attrs.field(default=120.0, validator=_positive)  # beyond it, an error is more use
    resend_unknown: bool = False  # an unknown submission may have been paid for
