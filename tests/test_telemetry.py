"""Spans and metrics of a session, by OpenTelemetry's own in-memory exporters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported import Exported
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from finevoice_async import FineVoiceError, FineVoiceSession, Retry, SfxRequest, TaskFailedError, TaskStatus
from finevoice_async.emulator import Emulator
from finevoice_async.events import About, Ended, Polled, Queued, Saved, Submitted
from finevoice_async.telemetry import HELD_FOR, OPERATION

Connect = Callable[..., FineVoiceSession]


async def test_spans_have_the_callers_parents(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """Two callers at once: each effect's span is its caller's child, with submission and download below it."""
    exported = Exported()
    tracer = exported.tracers.get_tracer("callers")
    urls: list[str] = []

    async def visit(session: FineVoiceSession, name: str) -> None:
        with tracer.start_as_current_span(name):
            effect = await session.generate(f"secret {name}", key=name)
            urls.append(effect.url)
            await effect.save(tmp_path / f"{name}.wav")

    async with connect(observer=exported.observer) as session:
        await asyncio.gather(visit(session, "a"), visit(session, "b"))
    effects = exported.spans("generate_content")
    assert len(effects) == 2
    for span in effects:
        assert span.attributes is not None
        (caller,) = exported.spans(str(span.attributes["finevoice.key"]))
        assert span.parent is not None
        assert span.parent.span_id == caller.context.span_id
        assert span.attributes["gen_ai.provider.name"] == "finevoice"
        assert {event.name for event in span.events} == {"finevoice.poll"}
        below = [child for child in exported.memory.get_finished_spans() if child.parent == span.context]
        assert sorted(child.name for child in below) == ["finevoice.download", "finevoice.submit"]
    told = exported.everything()
    assert not [secret for secret in (*urls, emulator.api_key, "secret") if secret in told]


async def test_names_of_the_conventions(connect: Connect, tmp_path: Path) -> None:
    """What is exported under `gen_ai.` are names and a value that the conventions have."""
    exported = Exported(prompts=True)
    async with connect(observer=exported.observer) as session:
        await (await session.generate("rain")).save(tmp_path / "rain")
    names = {name for span in exported.memory.get_finished_spans() for name in span.attributes or {}}
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {name for name in names if name.startswith("gen_ai.")}
    assert ours == {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.output.type",
        "gen_ai.response.id",
        "gen_ai.input.messages",
    }
    assert ours <= known
    assert OPERATION in {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    assert [name for name in exported.points() if name.startswith("gen_ai.")] == ["gen_ai.client.inference.duration"]


async def test_metrics(connect: Connect, tmp_path: Path, emulator: Emulator) -> None:
    """Outcomes are counted, gauges return to 0, and durations are in seconds."""
    exported = Exported()
    emulator.inject("submit.reject")
    async with connect(observer=exported.observer) as session:
        with pytest.raises(FineVoiceError):
            await session.generate("rain")
        for name in ("a", "b"):
            await (await session.generate("rain")).save(tmp_path / name)
    points = exported.points()
    outcomes = {point["attributes"]["finevoice.outcome"]: point["value"] for point in points["finevoice.submissions"]}
    assert outcomes == {"refused": 1, "accepted": 2}
    for gauge in ("finevoice.effects.queued", "finevoice.effects.in_flight"):
        assert [point["value"] for point in points[gauge]] == [0]
    for name in ("finevoice.effect.lag", "finevoice.download.duration", "gen_ai.client.inference.duration"):
        assert [point["count"] for point in points[name]] == [2]


async def test_prompts_if_asked_for_and_errors(connect: Connect, emulator: Emulator) -> None:
    """The prompt is exported if that was said; a failure is the span's error."""
    exported = Exported(prompts=True)
    emulator.inject("submit.reject")
    async with connect(observer=exported.observer) as session:
        with pytest.raises(FineVoiceError) as caught:
            await session.generate("heavy rain")
    (span,) = exported.spans("generate_content")
    assert span.attributes is not None
    assert "heavy rain" in str(span.attributes["gen_ai.input.messages"])
    assert span.attributes["error.type"] == type(caught.value).__name__
    assert not span.status.is_ok
    assert span.status.description == str(caught.value)


def test_times_are_the_events() -> None:
    """Spans begin and end when the steps were made, not when they are told; a download has its size."""
    exported = Exported()
    of = About(1, "k", "o", SfxRequest("rain", duration=3), 100.0, 1_700_000_000.0)
    for event in (
        Queued(of, None, 100.0),
        Submitted(of, "t", 103.0, 1.0, 2.0),
        Polled(of, "t", 105.0, TaskStatus.COMPLETED, 0.5),
        Ended(of, "t", 105.0, TaskStatus.COMPLETED, 2.0, 0.25),
        Saved(of, "t", 107.0, "/a", "0", 99, 1.5),
        Saved(of, "t", 108.0, "/b", "0", 99, 0.5),
    ):
        exported.observer.on_event(event)
    times = {
        span.name: [(time - 1_700_000_000 * 10**9) / 10**9 for time in (span.start_time or 0, span.end_time or 0)]
        for span in exported.memory.get_finished_spans()
    }
    assert times == {"finevoice.submit": [1.0, 3.0], "finevoice.download": [5.5, 7.0], "generate_content": [0.0, 7.0]}
    (span,), (download,) = exported.spans("generate_content"), exported.spans("finevoice.download")
    (poll,) = span.events
    assert poll.timestamp == (1_700_000_000 + 5) * 10**9
    assert dict(poll.attributes or {}) == {"finevoice.status": "completed", "finevoice.seconds": 0.5}
    assert dict(download.attributes or {}) == {"finevoice.size": 99}
    assert span.attributes is not None
    assert (span.attributes["finevoice.owner"], span.attributes["finevoice.request.duration"]) == ("o", 3.0)
    sums = {name: [point["sum"] for point in points] for name, points in exported.points().items() if "dur" in name}
    assert sums == {"gen_ai.client.inference.duration": [2.0], "finevoice.download.duration": [2.0]}


def test_errors_of_metrics() -> None:
    """How long effects took is known apart for those that failed, by what of."""
    exported = Exported()
    for number, error in enumerate((None, TaskFailedError("No."))):
        of = About(number, None, None, None, 0.0, 0.0)
        exported.observer.on_event(Submitted(of, "t", 0.0, 0.0, 0.0))
        exported.observer.on_event(Ended(of, "t", 9.0, TaskStatus.FAILED, 9.0, None, error))
    points = exported.points()["gen_ai.client.inference.duration"]
    assert [point["attributes"].get("error.type") for point in points] == [None, "TaskFailedError"]


def test_what_nobody_here_wished_for_is_nobodys() -> None:
    """A first step that is told while something else is under way makes no child of it."""
    exported = Exported()
    with exported.tracers.get_tracer("callers").start_as_current_span("something else"):
        exported.observer.on_event(
            Ended(About(1, None, None, None, 0.0, 0.0), "t", 9.0, TaskStatus.PENDING, None, None)
        )
    (span,) = exported.spans("generate_content")
    assert span.parent is None


def test_what_is_not_saved_soon_is_let_go() -> None:
    """With the next event a minute later the span of what is not saved ends, when its task did; not before."""
    exported = Exported()
    first, other = (About(number, None, None, None, 0.0, 0.0) for number in (1, 2))
    exported.observer.on_event(Ended(first, "t", 5.0, TaskStatus.COMPLETED, 5.0, 0.0))
    exported.observer.on_event(Queued(other, None, 4.9 + HELD_FOR))
    assert exported.spans("generate_content") == []
    exported.observer.on_event(Polled(other, "u", 5.1 + HELD_FOR, None, 0.0))
    (span,) = exported.spans("generate_content")
    assert span.end_time == 5 * 10**9


async def test_what_is_not_saved_ends_with_its_task(connect: Connect) -> None:
    """The span of an effect that is only read is held back, and ended by `close` at the time of its end."""
    exported = Exported()
    async with connect(observer=exported.observer) as session:
        await (await session.generate("rain")).read()
    assert not exported.spans("generate_content")
    exported.observer.close()
    (span,) = exported.spans("generate_content")
    (poll,) = span.events[-1:]
    assert span.end_time == poll.timestamp


@pytest.mark.parametrize("way", ["enqueue", "generate_many", "generate"])
async def test_parent_whichever_way(connect: Connect, kept_in: dict[str, Any], way: str) -> None:
    """The parent is what was current at the wish, also where the effect waits, and its caller's span has ended."""
    exported = Exported()
    tracer = exported.tracers.get_tracer("callers")

    async def wish(session: FineVoiceSession, name: str) -> None:
        with tracer.start_as_current_span(name):
            if way == "generate_many":
                assert [outcome.key async for outcome in session.generate_many([{"prompt": "rain", "key": name}])]
                return
            task = await getattr(session, way)("rain", key=name)
        if way == "enqueue":
            await task

    async with connect(observer=exported.observer, max_concurrency=1, **kept_in) as session:
        await asyncio.gather(*[asyncio.create_task(wish(session, name)) for name in ("a", "b", "c")])
    exported.observer.close()
    spans = exported.spans("generate_content")
    assert len(spans) == 3
    for span in spans:
        assert span.attributes is not None
        (caller,) = exported.spans(str(span.attributes["finevoice.key"]))
        assert span.parent == caller.context


async def test_nobody_is_the_parent_of_what_was_attached(connect: Connect) -> None:
    """An effect that another session wished for is nobody's child, and its length is not made up."""
    exported = Exported()
    tracer = exported.tracers.get_tracer("callers")
    async with connect() as other, connect(observer=exported.observer) as session:
        task = await other.submit("rain")
        assert task.id is not None
        with tracer.start_as_current_span("caller"):
            await (await session.attach(task.id))
        await task
    exported.observer.close()
    (span,) = exported.spans("generate_content")
    assert span.parent is None
    assert span.attributes is not None
    assert span.attributes["gen_ai.response.id"] == task.id
    assert "gen_ai.client.inference.duration" not in exported.points()


async def test_what_happens_between_is_an_event(connect: Connect, emulator: Emulator) -> None:
    """A 429 and an answer that was lost are events of the span and counted; the effect has one span all the same."""
    exported = Exported()
    emulator.inject("submit.rate_limit", value="2")
    async with connect(observer=exported.observer, retry=Retry(resend_unknown=True)) as session:
        emulator.inject("submit.error_500")
        emulator.inject("poll.rate_limit")
        await session.generate("rain")
    exported.observer.close()
    (span,) = exported.spans("generate_content")
    throttled = [dict(event.attributes or {}) for event in span.events if event.name == "finevoice.throttled"]
    assert sorted(bool(event["finevoice.polling"]) for event in throttled) == [False, True]
    assert "finevoice.unknown" in {event.name for event in span.events}
    assert [child.name for child in exported.memory.get_finished_spans()].count("finevoice.submit") == 1
    points = exported.points()["finevoice.submissions"]
    outcomes = {point["attributes"]["finevoice.outcome"]: point["value"] for point in points}
    assert outcomes == {"throttled": 1, "unknown": 1, "accepted": 1}


async def test_gauges_while_they_run(connect: Connect) -> None:
    """One is in flight and two wait; what a close leaves behind is counted out."""
    exported = Exported()
    async with connect(observer=exported.observer, max_concurrency=1) as session:
        tasks = [await session.enqueue("rain") for _ in range(3)]
        assert len(tasks) == 3
        await asyncio.sleep(0.5)
        points = exported.points()
        assert [point["value"] for point in points["finevoice.effects.queued"]] == [2]
        assert [point["value"] for point in points["finevoice.effects.in_flight"]] == [1]
    points = exported.points()
    for gauge in ("finevoice.effects.queued", "finevoice.effects.in_flight"):
        assert [point["value"] for point in points[gauge]] == [0]
    assert len(exported.spans("generate_content")) == 3


async def test_no_prompt_key_or_link_in_an_error(connect: Connect, emulator: Emulator) -> None:
    """What fails tells its kind and the error's message, and not what was asked for, the key, or a link."""
    exported = Exported()
    for fault in ("submit.reject", "submit.garbage", "task.fail", "task.fail"):
        emulator.inject(fault)
    async with connect(observer=exported.observer, max_concurrency=1) as session:
        wishes = [session.generate("secret words", negative_prompt="secret too") for _ in range(4)]
        results = await asyncio.gather(*wishes, return_exceptions=True)
    exported.observer.close()
    urls = [result.url for result in results if not isinstance(result, BaseException)]
    assert len(urls) == 1
    told = exported.everything()
    assert not [secret for secret in (*urls, emulator.api_key, "secret") if secret in told]
    kinds = {str((span.attributes or {}).get("error.type")) for span in exported.spans("generate_content")}
    assert kinds == {"None", *(type(result).__name__ for result in results if isinstance(result, BaseException))}
