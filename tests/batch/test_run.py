"""A batch is made, goes on, and never pays twice or overwrites anything."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from batch_project import Project

from finevoice_async import (
    Budget,
    BudgetExceededError,
    EffectState,
    FineVoiceSession,
    ManifestError,
    SubmitUnknownError,
)
from finevoice_async.batch import BatchUpdate, ResultKind, run_batch

pytestmark = pytest.mark.real_time


def keys(results: list[Any]) -> list[tuple[str, int]]:
    """Return which sounds they are."""
    return [(result.key, result.take) for result in results]


async def test_made_once(project: Project) -> None:
    """All sounds are made and saved where their names say; the same again pays nothing, and asks nothing."""
    manifest = project.want("a", {"key": "b", "prompt": "b", "takes": 2}, {"prompt": "c", "file": "x/{prompt}.mp3"})
    report = await project.run(manifest)
    assert (len(report.saved), report.paid, report.exit_code) == (4, 4, 0)
    assert project.files == ["a.wav", "b-2.wav", "b.wav", "x/c.wav"]
    assert [(each["key"], each["take"], each["seconds"]) for each in project.records()][:3] == [
        ("a", 1, 0.1),
        ("b", 1, 0.1),
        ("b", 2, 0.1),
    ]
    before, posts = project.lock.read_bytes(), project.service.ledger.posts
    again = await project.run(manifest)
    assert (len(again.existing), again.paid, again.exit_code) == (4, 0, 0)
    assert (project.lock.read_bytes(), project.service.ledger.posts) == (before, posts)


async def test_without_the_journal_the_lock_pays_nothing(project: Project) -> None:
    """A fresh clone with lock and files does nothing; with the lock alone it fetches by task id, and pays nothing."""
    manifest = project.want("a", "b")
    await project.run(manifest)
    before = {name: (project.out / name).read_bytes() for name in project.files}
    project.journal.unlink()
    assert keys((await project.run(manifest)).existing) == [("a", 1), ("b", 1)]
    shutil.rmtree(project.out)
    report = await project.run(manifest)
    assert (keys(report.saved), report.paid, project.paid) == ([("a", 1), ("b", 1)], 0, 2)
    assert {name: (project.out / name).read_bytes() for name in project.files} == before


async def test_without_the_lock_the_journal_pays_nothing(project: Project) -> None:
    """A lock that is gone is written again from the journal, to the byte."""
    manifest = project.want("a", "b")
    await project.run(manifest)
    before = [each | {"seconds": None} for each in project.records()]
    project.lock.unlink()
    assert (await project.run(manifest)).paid == 0
    assert [each | {"seconds": None} for each in project.records()] == before


async def test_a_changed_request(project: Project) -> None:
    """What changed is shown and not paid for; `remake` makes a new take, and what was there stays."""
    await project.run(project.want("a", "b"))
    old = (project.out / "a.wav").read_bytes()
    manifest = project.want({"key": "a", "prompt": "another"}, "b")
    report = await project.run(manifest)
    assert (keys(report.changed), report.paid, report.exit_code) == ([("a", 2)], 0, 0)
    report = await project.run(manifest, remake=True)
    assert (keys(report.saved), report.paid) == ([("a", 2)], 1)
    assert project.files == ["a-2.wav", "a.wav", "b.wav"]
    assert (project.out / "a.wav").read_bytes() == old
    for again in (manifest, project.want("a", "b")):  # and back: the first take is what is wanted
        report = await project.run(again, remake=True)
        assert (len(report.existing), report.paid) == (2, 0)


async def test_more_takes(project: Project) -> None:
    """More takes are made beside those that are there; fewer take nothing away."""
    await project.run(project.want("a"))
    report = await project.run(project.want({"key": "a", "prompt": "a", "takes": 3}))
    assert (keys(report.saved), keys(report.existing), report.paid) == ([("a", 2), ("a", 3)], [("a", 1)], 2)
    report = await project.run(project.want("a"))
    assert (len(report.existing), report.paid, project.files) == (3, 0, ["a-2.wav", "a-3.wav", "a.wav"])


async def test_what_was_changed_by_hand(project: Project) -> None:
    """A file that somebody changed, or put there, is reported and never overwritten, and nothing is paid for it."""
    await project.run(project.want("a"))
    (project.out / "a.wav").write_text("mine")
    (project.out / "B.mp3").write_text("mine, too")
    report = await project.run(project.want("a", "b"), remake=True)
    assert (len(report.existing), report.paid) == (2, 0)
    assert [result.note for result in report.existing] == [
        "changed by hand; kept",
        "a file is in its place that the lock does not know; kept",
    ]
    assert (project.out / "a.wav").read_text() == "mine"
    assert project.files == ["B.mp3", "a.wav"]


async def test_a_file_that_comes_meanwhile(project: Project) -> None:
    """A file that appears while its sound is made is kept: the sound stays paid for, and is fetched once it is gone."""
    manifest = project.want("a")

    def interfere(update: BatchUpdate) -> None:
        if update.result is None:
            (project.out / "a.wav").write_text("mine")

    report = await project.run(manifest, on_update=interfere)
    assert (len(report.failed), report.paid, report.exit_code) == (1, 1, 6)
    assert (project.out / "a.wav").read_text() == "mine"
    (project.out / "a.wav").unlink()
    report = await project.run(manifest)
    assert (len(report.saved), report.paid, project.paid) == (1, 0, 1)


async def test_perhaps_paid(project: Project) -> None:
    """What is perhaps paid is listed, now and in every later run, and not sent again; all else is made."""
    project.service.inject("submit.lose_reply")
    manifest = project.want("a", "b", "c")
    for paid in (2, 0):
        report = await project.run(manifest, max_concurrency=1, remake=True, retry_failed=True)
        assert (len(report.unknown), report.paid, report.exit_code) == (1, paid, 5)
    assert project.paid == 3
    changed = project.want({"key": "a", "prompt": "another"}, "b", "c")
    report = await project.run(changed)
    assert [keys(report.unknown), keys(report.changed)] == [[("a", 1)], [("a", 2)]]
    assert report.paid == 0


async def test_what_failed(project: Project) -> None:
    """What the service could not make is made again where that is asked for; a changed request is another sound."""
    project.service.inject("task.fail", times=2)
    manifest = project.want("a", "b")
    assert len((await project.run(manifest)).failed) == 2
    report = await project.run(manifest)
    assert (keys(report.failed), report.paid, report.exit_code) == ([("a", 1), ("b", 1)], 0, 4)
    report = await project.run(project.want("a", {"key": "b", "prompt": "another"}))
    assert (keys(report.saved), keys(report.failed), project.files) == ([("b", 1)], [("a", 1)], ["b.wav"])
    report = await project.run(project.want("a"), retry_failed=True)
    assert (keys(report.saved), report.paid) == ([("a", 1)], 1)


async def test_refused_requests(project: Project) -> None:
    """A request that the service refuses is one sound's fate; run again, it is asked for again."""
    project.service.inject("submit.reject")
    manifest = project.want("a", "b", "c")
    report = await project.run(manifest, max_concurrency=1)
    assert (len(report.invalid), len(report.saved), report.exit_code) == (1, 2, 3)
    assert (await project.run(manifest)).paid == 1


@pytest.mark.parametrize("options", [{"limit": 2}, {"budget": Budget(effects=2)}])
async def test_so_many_and_no_more(project: Project, options: dict[str, Any]) -> None:
    """A limit and a budget hold; the rest is not begun, and left for later runs."""
    manifest = project.want(*"abcde")
    for left in (3, 1, 0):
        report = await project.run(manifest, **options)
        assert (len(report.not_begun), report.paid) == (left, min(2, 5 - project.paid + report.paid))
        if left and "budget" in options:
            assert isinstance(report.stopped_by, BudgetExceededError)
            assert report.exit_code == 4
    assert project.paid == 5


async def test_only_some(project: Project) -> None:
    """A pattern of keys or files leaves all others alone."""
    manifest = project.want({"prompt": "a", "file": "x/a"}, {"prompt": "b", "file": "x/b"}, "c")
    report = await project.run(manifest, only="x/*")
    assert (project.files, len(report.results)) == (["x/a.wav", "x/b.wav"], 2)


async def test_too_many_failures(project: Project) -> None:
    """After so many failures nothing more is begun."""
    project.service.inject("task.fail", times=100)
    report = await project.run(project.want(*(f"s{i}" for i in range(100))), max_failures=3, max_concurrency=1)
    assert 3 <= len(report.failed) <= 5
    assert len(report.not_begun) + len(report.failed) == 100
    assert report.exit_code == 4


@pytest.mark.parametrize(("fault", "code"), [("submit.unauthorized", 3), ("submit.no_credits", 3)])
async def test_what_all_would_meet(project: Project, fault: Any, code: int) -> None:
    """A refused key or spent credits stop the run: what runs is saved, the rest is not begun."""
    manifest = project.want(*"abcdefgh")
    project.service.inject(fault)
    report = await project.run(manifest, max_concurrency=1)
    assert len(report.not_begun) >= 7
    assert report.exit_code == code
    assert (await project.run(manifest)).exit_code == 0
    assert project.paid == 8


async def test_a_stop(project: Project) -> None:
    """A stop lets what runs end and be saved, and takes back what waits; run again, the rest is made."""
    stop = asyncio.Event()
    manifest = project.want(*(f"s{i:02}" for i in range(30)))
    report = await project.run(manifest, stop=stop, on_update=lambda _: stop.set(), max_concurrency=2)
    assert 0 < len(report.saved) == report.paid <= 4
    assert len(report.not_begun) == 30 - len(report.saved)
    assert report.is_stopped
    assert all(result.error is None for result in report.not_begun)
    again = await project.run(manifest)
    assert (len(again.existing), len(again.saved), project.paid) == (len(report.saved), len(report.not_begun), 30)


async def test_a_stop_while_wishes_are_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that comes while wishes are being written takes them back, too."""
    stop = asyncio.Event()
    enqueue = FineVoiceSession.enqueue

    async def keep_slowly(self: FineVoiceSession, *arguments: Any, **options: Any) -> Any:
        task = await enqueue(self, *arguments, **options)
        stop.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return task

    monkeypatch.setattr(FineVoiceSession, "enqueue", keep_slowly)
    report = await project.run(project.want(*"abcdefghij"), stop=stop, max_concurrency=1)
    assert report.paid == len(report.saved) == project.paid <= 1
    assert len(report.not_begun) == 10 - report.paid
    assert not report.failed


async def test_what_the_service_has_forgotten(project: Project) -> None:
    """A lost file whose task is not known any more is told as such: it was paid for, and nothing is paid again."""
    manifest = project.want("a")
    await project.run(manifest)
    shutil.rmtree(project.out)
    project.service.inject("poll.not_found", times=1000)
    report = await project.run(manifest)
    assert (len(report.failed), report.unknown, report.paid, report.exit_code) == (1, [], 0, 4)
    assert report.failed[0].task_id in project.service.ledger.accepted


async def test_cancelled(project: Project) -> None:
    """A cancelled batch ends at once; what runs is fetched by the next one, and nothing is paid twice."""
    project.service.service_time = 0.5
    manifest = project.want(*"abcdef")
    begun = asyncio.Event()
    running = asyncio.create_task(project.run(manifest, on_update=lambda _: begun.set(), max_concurrency=3))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    paid = project.paid
    assert 0 < paid <= 3
    report = await project.run(manifest)
    assert (len(report.saved), report.paid, project.paid) == (6, 6 - paid, 6)


async def test_cancelled_in_a_session_that_stays_open(project: Project) -> None:
    """What waited when a batch was cancelled is not sent by the session, which goes on; nor is it lost."""
    project.service.service_time = 0.3
    manifest = project.want(*(f"s{i:02}" for i in range(20)))
    project.out.mkdir()
    begun = asyncio.Event()
    async with project.service.session(journal=project.journal, max_concurrency=2) as session:
        running = asyncio.create_task(run_batch(session, manifest, project.out, on_update=lambda _: begun.set()))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert session.stats.waiting == 0
        for task in session.tasks:
            await task
        assert project.paid <= 2
    assert (await project.run(manifest)).exit_code == 0
    assert project.paid == 20


async def test_a_wish_that_was_never_sent(project: Project) -> None:
    """What an earlier run wished for and never sent does not stand in the way of what is wanted now."""
    async with project.service.session(journal=project.folder / "j.db", max_concurrency=1) as session:
        for name in ("block", "a"):
            await session.enqueue("old", key=name)
    report = await project.run(project.want("a"), journal=project.folder / "j.db", max_concurrency=4)
    assert (keys(report.saved), report.results[0].request.prompt) == ([("a", 1)], "a")  # type: ignore[union-attr]  # it has one


async def test_a_crash_between_file_and_note(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there already, byte for byte, is what was paid for."""
    manifest = project.want("a")
    async with project.service.session(journal=project.folder / "j.db") as session:
        effect = await session.generate("a", duration=0.1, key="a")
        content = await effect.read()
    project.out.mkdir()
    (project.out / "a.wav").write_bytes(content)
    report = await project.run(manifest, journal=project.folder / "j.db")
    assert (keys(report.saved), report.paid, project.files) == ([("a", 1)], 0, ["a.wav"])
    async with project.service.session(journal=project.folder / "j.db") as session:
        assert [row.state async for row in session.rows()] == [EffectState.SAVED]
    assert (await project.run(manifest, journal=project.folder / "j.db")).exit_code == 0


async def test_without_a_journal(project: Project) -> None:
    """Without a journal the lock remembers."""
    manifest = project.want("a", "b")
    assert (await project.run(manifest, journal=None)).paid == 2
    assert (await project.run(manifest, journal=None)).paid == 0


async def test_orphans_are_left_alone(project: Project) -> None:
    """What the manifest does not name any more keeps its file and its line in the lock."""
    await project.run(project.want("a", "b"))
    report = await project.run(project.want("a"))
    assert [entry.key for entry in report.orphaned] == ["b"]
    assert (project.files, len(project.records())) == (["a.wav", "b.wav"], 2)


async def test_a_lock_that_cannot_be_read(project: Project) -> None:
    """A damaged lock stops everything before anything is sent."""
    manifest = project.want("a")
    project.lock.write_text("garbage\n")
    with pytest.raises(ManifestError, match=r"m\.jsonl\.lock:1"):
        await project.run(manifest)
    assert project.service.ledger.posts == 0


async def test_a_lock_that_cannot_be_written(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sounds are saved all the same, and the report says so; the next run writes it."""
    manifest = project.want("a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("finevoice_async.batch.lock_writer.update_lock", full)
        report = await project.run(manifest)
    assert (len(report.saved), report.exit_code) == (1, 6)
    assert "No space" in str(report.lock_error)
    assert not project.lock.exists()
    assert report.write_lock() == project.lock
    assert len(project.records()) == 1


async def test_silent_ones(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent sound leads to more takes, so many at most, within the budget; what was silent is kept."""
    from finevoice_async.batch.checks import AudioCheck

    def silence(path: Path, asked: float | None) -> AudioCheck:
        return AudioCheck(seconds=0.1, silent=path.name in ("a.wav", "a-2.wav", "b.wav"))

    monkeypatch.setattr("finevoice_async.batch.keeping.check_file", silence)
    manifest = project.want("a", "b", "c")
    report = await project.run(manifest, reroll_silent=1)
    assert (sorted(keys(report.saved)), report.paid) == ([("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)], 5)
    assert project.files == ["a-2.wav", "a.wav", "b-2.wav", "b.wav", "c.wav"]
    report = await project.run(manifest, reroll_silent=1)
    assert report.paid == 0
    report = await project.run(manifest, reroll_silent=3, budget=Budget(effects=1))
    assert (keys(report.saved), report.paid) == ([("a", 3)], 1)
    assert (await project.run(manifest, reroll_silent=3)).paid == 0


async def test_updates(project: Project) -> None:
    """Each submission and each end is told, with counts; a listener that fails harms nothing."""
    told: list[BatchUpdate] = []

    def hear(update: BatchUpdate) -> None:
        told.append(update)
        raise RuntimeError("a bug of the caller's")

    await project.run(project.want("a", "b"), on_update=hear)
    assert [update.result.kind if update.result else None for update in told].count(ResultKind.SAVED) == 2
    assert [update.result for update in told].count(None) == 2
    assert (told[-1].made, told[-1].left, told[-1].paid, told[-1].failed, told[-1].unknown) == (2, 0, 2, 0, 0)


async def test_errors_name_their_sound(project: Project) -> None:
    """A result says which sound, which line, and what is known."""
    project.service.inject("submit.lose_reply")
    (result,) = (await project.run(project.want("a"))).unknown
    assert (result.key, result.line, result.task_id) == ("a", 1, None)
    assert isinstance(result.error, SubmitUnknownError)
