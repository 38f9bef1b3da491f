"""A user's program full of mistakes: each line ends with the errors that mypy and basedpyright must give for it.

It is checked, never run; see `test_typed`.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from finevoice_async import (
    Budget,
    Downloads,
    EffectState,
    FineVoiceSession,
    JournalRow,
    Outcome,
    Polling,
    Retry,
    SfxFields,
    SfxItem,
    SfxRequest,
    SfxTask,
    SoundEffect,
    TaskStatus,
    Timeouts,
)
from finevoice_async.emulator import Emulator
from finevoice_async.testing import EmulatedService, make_service


async def fields(session: FineVoiceSession) -> None:
    """Fields of a request."""
    await session.submit("x", duratoin=3)  # E: call-overload, reportCallIssue
    await session.enqueue("x", duratoin=3)  # E: call-overload, reportCallIssue
    await session.generate("x", duratoin=3)  # E: call-overload, reportCallIssue
    await session.submit("x", duration="3")  # E: call-overload, reportArgumentType
    await session.submit(prompt="x", negativ_prompt="music")  # E: call-overload, reportCallIssue
    await session.generate("x", source_url="https://a.b/c", source_type="gif")  # E: call-overload, reportArgumentType
    await session.generate("x", use_async="yes")  # E: call-overload, reportArgumentType
    await session.generate({"source_url": "https://a.b", "source_type": "gif"})  # E: call-overload, reportArgumentType
    await session.generate("x", prompt="y")  # E: call-overload, reportCallIssue
    await session.generate()  # E: call-overload, reportCallIssue
    await session.generate(duration=3)  # E: call-overload, reportCallIssue
    await session.generate(source_url="https://a.b/c.mp4")  # E: call-overload, reportCallIssue
    await session.generate(None)  # E: call-overload, reportArgumentType
    await session.generate(b"x")  # E: call-overload, reportArgumentType
    await session.submit("x", "music")  # E: call-overload, reportCallIssue
    await session.submit({"prompt": "x", "duratoin": 3})  # E: call-overload, reportArgumentType
    await session.submit({"prompt": "x", "key": "k"})  # E: call-overload, reportArgumentType
    await session.submit("x", key=3)  # E: call-overload, reportArgumentType
    await session.submit("x", retry_failed="no")  # E: call-overload, reportArgumentType
    SfxRequest("x", duratoin=3)  # E: call-arg, reportCallIssue
    SfxRequest("x", duration="3")  # E: arg-type, reportArgumentType
    SfxRequest("x", source_url="https://a.b/c", source_type="sound")  # E: arg-type, reportArgumentType
    SfxRequest("x").duration = 3  # E: misc, reportAttributeAccessIssue
    rest: SfxFields = {"duration": "3"}  # E: typeddict-item, reportAssignmentType
    item: SfxItem = {"prompt": "x", "filename": "rain.wav"}  # E: typeddict-unknown-key, reportAssignmentType
    print(rest, item)


async def many(session: FineVoiceSession, rows: list[dict[str, Any]], outcome: Outcome) -> None:
    """Many effects."""
    session.generate_many([{"prompt": "x", "duratoin": 3}])  # E: list-item, reportCallIssue, reportArgumentType
    session.generate_many({"prompt": i, "duratoin": 3} for i in "ab")  # E: misc, reportCallIssue, reportArgumentType
    session.generate_many(["x", {"prompt": "x", "duration": "3"}])  # E: list-item, reportCallIssue, reportArgumentType
    session.generate_many([3])  # E: list-item, reportCallIssue, reportArgumentType
    session.generate_many(SfxRequest("x"))  # E: call-overload, reportCallIssue, reportArgumentType
    session.generate_many(3)  # E: call-overload, reportCallIssue, reportArgumentType
    # Of these nobody knows what is in them; `right.py` shows what is to be said of them.
    session.generate_many(rows)  # E: arg-type, reportCallIssue, reportArgumentType
    session.generate_many(["x"], saveto="effects")  # E: call-overload, reportCallIssue
    session.generate_many(["x"], save_to=3)  # E: call-overload, reportCallIssue, reportArgumentType
    session.generate_many(["x"], save_to=lambda request: "rain.wav")  # E: arg-type, reportCallIssue, reportArgumentType
    session.generate_many(["x"], ordered="yes")  # E: call-overload, reportCallIssue, reportArgumentType
    await session.generate_many(["x"])  # E: misc, reportGeneralTypeIssues
    for _ in session.generate_many(["x"]):  # E: attr-defined, reportGeneralTypeIssues
        pass
    async with session.generate_many(["x"]):  # E: attr-defined, reportGeneralTypeIssues
        pass
    async with aclosing(session.recover()) as outcomes:
        print(outcomes.index)  # E: attr-defined, reportAttributeAccessIssue
    await session.recover()  # E: misc, reportGeneralTypeIssues
    print(outcome.pathh)  # E: attr-defined, reportAttributeAccessIssue
    print(outcome.path.name)  # E: union-attr, reportOptionalMemberAccess
    print(outcome.effect.url)  # E: union-attr, reportOptionalMemberAccess
    outcome.error = None  # E: misc, reportAttributeAccessIssue
    await outcome.unwrap()  # E: misc, reportGeneralTypeIssues


async def handles(session: FineVoiceSession, task: SfxTask, effect: SoundEffect, row: JournalRow) -> None:
    """Tasks and effects."""
    effect.save("rain")  # E: unused-coroutine, reportUnusedCoroutine
    print(effect.save("rain").name)  # E: attr-defined, reportAttributeAccessIssue
    print((await effect.save("rain")).nam)  # E: attr-defined, reportAttributeAccessIssue
    await effect.save()  # E: call-arg, reportCallIssue
    await effect.save(3)  # E: arg-type, reportArgumentType
    await effect.save("rain", overwrit=True)  # E: call-arg, reportCallIssue
    print(effect.read().hex())  # E: attr-defined, reportAttributeAccessIssue
    print(await effect.url)  # E: misc, reportGeneralTypeIssues
    print((await task).urll)  # E: attr-defined, reportAttributeAccessIssue
    print(task.url)  # E: attr-defined, reportAttributeAccessIssue
    print(TaskStatus.DONE)  # E: attr-defined, reportAttributeAccessIssue
    await task.wait(timeout="3")  # E: arg-type, reportArgumentType
    await session.find(5)  # E: call-arg, arg-type, reportCallIssue
    await session.find(key=5)  # E: arg-type, reportArgumentType
    print((await session.find(key="k")).status)  # E: union-attr, reportOptionalMemberAccess
    await session.attach(task)  # E: arg-type, reportArgumentType
    await session.attach()  # E: call-arg, reportCallIssue
    await session.status(5)  # E: arg-type, reportArgumentType
    session.rows("done")  # E: arg-type, reportArgumentType
    await session.rows()  # E: misc, reportGeneralTypeIssues
    await session.resubmit(row, accept_double_charges=True)  # E: call-arg, reportCallIssue
    await session.adopt(row)  # E: call-arg, reportCallIssue
    await session.adopt(row, "t")  # E: call-arg, reportCallIssue
    await session.discard("k")  # E: arg-type, reportArgumentType
    session.enqueue("x")  # E: unused-coroutine, reportUnusedCoroutine
    print(session.submit("x").id)  # E: attr-defined, reportAttributeAccessIssue
    with session:  # E: attr-defined, reportGeneralTypeIssues
        pass


def done_by_text(task: SfxTask) -> bool:
    """A state is no text."""
    return task.status == "done"  # E: comparison-overlap, reportUnnecessaryComparison


def done_by_another(task: SfxTask) -> bool:
    """A task's state is no effect's."""
    return task.status is EffectState.DONE  # E: comparison-overlap, reportUnnecessaryComparison


def saved_by_text(row: JournalRow) -> bool:
    """An effect's state is no text."""
    return row.state == "saved"  # E: comparison-overlap, reportUnnecessaryComparison


def options() -> None:
    """Options."""
    Polling.fixed(mingap=1)  # E: call-arg, reportCallIssue
    Polling.fixed("3")  # E: arg-type, reportArgumentType
    Polling(mingap=1)  # E: call-arg, reportCallIssue
    Timeouts(reed=3)  # E: call-arg, reportCallIssue
    Timeouts(read="3")  # E: arg-type, reportArgumentType
    Timeouts(3)  # E: call-arg, reportCallIssue
    Retry(patience="x")  # E: arg-type, reportArgumentType
    Retry(resend_unknown="no")  # E: arg-type, reportArgumentType
    Downloads(concurency=2)  # E: call-arg, reportCallIssue
    Downloads(allow=[3])  # E: list-item, reportArgumentType
    Budget(effect=3)  # E: call-arg, reportCallIssue
    Budget(effects="3")  # E: arg-type, reportArgumentType
    Budget(effects=3, per=60)  # E: arg-type, reportArgumentType
    Budget()  # E: call-arg, reportCallIssue
    Timeouts().read = 3  # E: misc, reportAttributeAccessIssue
    FineVoiceSession("key", concurrency=3)  # E: call-arg, reportCallIssue
    FineVoiceSession("key", "https://a.b")  # E: call-arg, reportCallIssue
    FineVoiceSession("key", max_concurrency="3")  # E: arg-type, reportArgumentType
    FineVoiceSession("key", timeouts=30)  # E: arg-type, reportArgumentType
    FineVoiceSession("key", journal=3)  # E: arg-type, reportArgumentType


def emulated(service: EmulatedService) -> None:
    """The emulator."""
    Emulator(faults={"submit.hnag": 1})  # E: dict-item, reportArgumentType
    Emulator(faults={"submit.hang": "often"})  # E: dict-item, reportArgumentType
    Emulator(dialect="quickstrat")  # E: arg-type, reportArgumentType
    Emulator(plan_limt=3)  # E: call-arg, reportCallIssue
    make_service(faults={"submit.hnag": 1})  # E: dict-item, reportArgumentType
    make_service(plan_limt=3)  # E: call-arg, reportCallIssue
    make_service(plan_limit="3")  # E: arg-type, reportArgumentType
    service.inject("submit.hnag")  # E: arg-type, reportArgumentType
    service.inject("submit.hang", "twice")  # E: arg-type, reportArgumentType
    service.session(poling=Polling.fixed(1))  # E: call-arg, reportCallIssue
    service.session(polling=1)  # E: arg-type, reportArgumentType
    service.plan_limit = "3"  # E: assignment, reportAttributeAccessIssue
