"""What checkers are told is what runs: the same names, types and defaults."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Required, get_args, get_origin, get_type_hints

import attrs
import pytest

from finevoice_async import FineVoiceSession, Polling, SfxDict, SfxFields, SfxItem, SfxRequest
from finevoice_async.core.fields import BesideRequest, WithPrompt, WithSource
from finevoice_async.emulator import Emulator
from finevoice_async.testing import EmulatorOptions, SessionOptions
from finevoice_async.wishes import Wishes

CALLS = [Wishes.enqueue, Wishes.submit, Wishes.generate]


def hints(typed: Any) -> dict[str, Any]:
    """Return the fields of a TypedDict and their types, needed or not."""
    return {
        name: get_args(kind)[0] if get_origin(kind) is Required else kind
        for name, kind in get_type_hints(typed, include_extras=True).items()
    }


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what a function takes by name, and its types."""
    return {name: kind for name, kind in get_type_hints(function).items() if name not in ("fields", "return")}


def test_fields() -> None:
    """A request as a dict has the fields of a request, and their types."""
    of_request = get_type_hints(SfxRequest)
    assert hints(SfxDict) == of_request
    assert hints(SfxFields) == {name: kind for name, kind in of_request.items() if name != "prompt"}
    assert hints(SfxItem).keys() - of_request.keys() == {"key", "owner", "file"}


@pytest.mark.parametrize("call", CALLS)
def test_forms_of_a_call(call: Callable[..., Any]) -> None:
    """Each form of a call takes what the call takes, and fields of a request; needed is what makes a request."""
    taken = {name: kind for name, kind in parameters(call).items() if name != "request"}
    for form in (BesideRequest, WithPrompt, WithSource):
        given = hints(form)
        assert given.keys() <= taken.keys() | hints(SfxDict).keys()
        assert taken.items() <= given.items()
    assert hints(BesideRequest).keys() == taken.keys() | hints(SfxFields).keys()
    needed = [set(form.__required_keys__) for form in (BesideRequest, WithPrompt, WithSource)]
    assert needed == [set(), {"prompt"}, {"source_url", "source_type"}]


@pytest.mark.parametrize(("options", "owner"), [(SessionOptions, FineVoiceSession), (EmulatorOptions, Emulator)])
def test_options_of_the_tests_service(options: Any, owner: type[Any]) -> None:
    """What `session` and `make_service` hand on is what its receiver takes."""
    assert hints(options) == parameters(owner.__init__)


def test_fixed_polling() -> None:
    """It has the defaults of `Polling`, and all its options but those of the learned schedule."""
    assert Polling.fixed(3) == Polling(interval=3)
    taken = {name: each.default for name, each in inspect.signature(Polling.fixed).parameters.items()}
    of_class = {field.name: field.default for field in attrs.fields(Polling)}
    assert of_class.keys() - taken.keys() == {"poll_cost", "busy_poll_cost", "memory"}
    assert taken | {"interval": None} == {name: of_class[name] for name in taken}
    given = dict.fromkeys(taken.keys() - {"failures", "concurrency", "state"}, 0.25)
    assert Polling.fixed(**given, failures=2, concurrency=3, state={}) == Polling(
        **given, failures=2, concurrency=3, state={}
    )


@pytest.mark.parametrize("way", ["generate_many", "recover", "rows", "updates", "stream"])
async def test_generators(emulator: Emulator, tmp_path: Path, way: str) -> None:
    """What is said to be an async generator is one: `aclosing` leaves it, and it can be sent to and thrown at."""
    journal = tmp_path / "effects.db"
    async with FineVoiceSession(emulator.api_key, base_url=emulator.url, journal=journal) as session:
        effect = await session.generate("rain")
        task = await session.attach(str(effect.task_id))
        make: dict[str, Callable[[], AsyncGenerator[Any, None]]] = {
            "generate_many": lambda: session.generate_many(["wind", "bell"]),
            "recover": session.recover,
            "rows": session.rows,
            "updates": task.updates,
            "stream": effect.stream,
        }
        async with aclosing(make[way]()) as stream:
            assert isinstance(stream, AsyncGenerator)
            assert await stream.asend(None)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        again = make[way]()
        await anext(again)
        with pytest.raises(LookupError):
            await again.athrow(LookupError())
        await again.aclose()
