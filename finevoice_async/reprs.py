"""A `repr` for objects whose making has failed half-way: tracebacks with locals, and loggers, ask them for one."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def with_safe_repr(cls: type[T]) -> type[T]:
    """Give a class a `repr` that does not fail for an object without all of its fields."""
    whole = cls.__repr__

    def safe(self: T) -> str:
        try:
            return whole(self)
        except AttributeError:
            return f"<{type(self).__name__}, half made>"

    cls.__repr__ = safe  # type: ignore[assignment,method-assign]  # that is what it is for
    return cls
