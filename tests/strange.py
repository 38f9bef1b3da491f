"""Values that callers give by mistake, and that misbehave when they are looked at."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn
from unittest.mock import Mock


def _fail(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("do not look at me")


class Unshowable:
    """An object without a usable repr."""

    __repr__ = __str__ = _fail


class Liar:
    """An object that fails even when it is asked for its class."""

    __class__ = property(_fail)
    __eq__ = __bool__ = __repr__ = _fail


class BrokenText(str):
    """A text that fails in each of its methods."""

    __slots__ = ()
    strip = encode = isprintable = isascii = rstrip = split = _fail
    __len__ = __getitem__ = __contains__ = __repr__ = __str__ = __eq__ = _fail
    __hash__ = str.__hash__


class BrokenInt(int):
    """A whole number that fails when it is compared or shown."""

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __float__ = __abs__ = __repr__ = _fail
    __hash__ = int.__hash__


class BrokenFloat(float):
    """A number that fails when it is compared or shown."""

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __float__ = __abs__ = __repr__ = _fail
    __hash__ = float.__hash__


class LongWinded:
    """An object whose repr has megabytes, and a lone surrogate."""

    def __repr__(self) -> str:
        return "\ud800" + "x" * 1_000_000


class Evasive:
    """An object whose repr fails when it is looked at."""

    def __repr__(self) -> str:
        return BrokenText("evasive")


class ArrayLike:
    """A number as numpy's: it converts and compares, and a comparison has no truth of its own."""

    def __float__(self) -> float:
        return 5.0

    def __le__(self, other: object) -> Unbool:
        return Unbool()

    __lt__ = __ge__ = __gt__ = __le__


class Unbool:
    """Neither true nor false."""

    __bool__ = _fail


class BrokenMapping(Mapping[str, Any]):
    """A mapping whose values are gone."""

    def __getitem__(self, name: str) -> Any:
        _fail()

    def __iter__(self) -> Iterator[str]:
        return iter(["prompt"])

    def __len__(self) -> int:
        return 1


class Word(enum.StrEnum):
    """A text as programs name their constants."""

    RAIN = "rain"
    IMAGE = "image"


class Seconds(enum.IntEnum):
    """A number as programs name their constants."""

    FEW = 5


def deep() -> list[Any]:
    """Return a list that is nested too deeply to be shown."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


NO_TEXTS: dict[str, Any] = {
    "a number": 5,
    "megabytes of bytes": b"rain" * 1_000_000,
    "no repr": Unshowable(),
    "a liar": Liar(),
    "a long repr": LongWinded(),
    "a broken repr": Evasive(),
    "a mock": Mock(spec=str),
    "5,000 digits": 10**5000,  # has no repr
    "a lone surrogate": "\ud800",
    "a broken text": BrokenText("\udfff"),
    "too deep": deep(),
    "a long list": ["x"] * 100_000,
}
"""None of them can be a prompt or an address. By name, because pytest itself fails if it has to look at some."""

NO_NUMBERS: dict[str, Any] = {
    "beyond floats": 10**400,
    "below floats": -(10**400),
    "5,000 digits": 10**5000,
    "no number": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "a decimal": Decimal(5),
    "no decimal": Decimal("sNaN"),
    "a fraction": Fraction(5, 2),
    "complex": 5 + 0j,
    "a bool": True,
    "a text": "5",
    "a broken text": BrokenText("5"),
    "a broken int": BrokenInt(10**400),
    "a broken float": BrokenFloat("nan"),
    "an array": ArrayLike(),
    "no repr": Unshowable(),
    "a liar": Liar(),
    "a mock": Mock(spec=float),
    "too deep": deep(),
}
"""None of them can be a number of seconds."""
