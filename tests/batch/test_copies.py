"""Finished copies in a batch: checked before anything is paid for, made once, noted in the lock."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import pytest
from batch_project import Project

from finevoice_async import ConfigurationError
from finevoice_async.batch import Finish
from finevoice_async.batch.finish import FinishError

pytestmark = pytest.mark.real_time


@pytest.fixture
def finisher(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Collection[str]]]:
    """Stand in for what needs the extra: a copy is its settings; tells what was made, and what might be replaced."""
    made: list[tuple[str, Collection[str]]] = []

    def finish(path: Path, *, format: str, trim: bool, peak_db: float | None, replaces: Collection[str]) -> Path:  # noqa: A002 - as it is called
        target = path.with_suffix(f".finished.{format}")
        if path.name == "b.wav":
            raise FinishError("It is broken.")
        target.write_text(f"{trim} {peak_db}")
        made.append((target.name, replaces))
        return target

    monkeypatch.setattr("finevoice_async.batch.copies.finish", finish)
    monkeypatch.setattr("finevoice_async.batch.copies.load_soundfile", lambda: object())
    return made


async def test_made_beside(project: Project, finisher: list[tuple[str, Collection[str]]]) -> None:
    """Each sound gets a copy, also one that was there before; the lock knows which one, so that it can be replaced."""
    await project.run(project.want("a"))
    manifest = project.want("a", "c")
    report = await project.run(manifest, finish=Finish(format="flac", trim=True))
    assert finisher == [("a.finished.flac", ()), ("c.finished.flac", ())]
    assert (report.exit_code, project.files) == (0, ["a.finished.flac", "a.wav", "c.finished.flac", "c.wav"])
    digests = [record["finished_sha256"] for record in project.records()]
    assert digests == [hashlib.sha256(b"True None").hexdigest()] * 2
    before = project.lock.read_bytes()
    report.write_lock()
    assert project.lock.read_bytes() == before
    await project.run(manifest, finish=Finish(format="flac", peak_db=-3.0))
    assert finisher[2:] == [("a.finished.flac", (digests[0],)), ("c.finished.flac", (digests[0],))]


async def test_one_that_fails(project: Project, finisher: list[tuple[str, Collection[str]]]) -> None:
    """A copy that cannot be made is told with its sound; the others are made."""
    report = await project.run(project.want("a", "b"), finish=Finish(format="ogg"))
    assert [(record.key, str(error)) for record, error in report.unfinished] == [("b", "It is broken.")]
    assert (report.exit_code, len(report.saved), len(finisher)) == (6, 2, 1)


@pytest.mark.parametrize("settings", [Finish(format="mp3"), Finish(peak_db=1.0), Finish(peak_db=float("nan"))])
async def test_settings_are_checked_before(
    project: Project, finisher: list[tuple[str, Collection[str]]], settings: Finish
) -> None:
    """What makes no sense is said before anything is paid for."""
    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        await project.run(project.want("a"), finish=settings)
    assert project.service.ledger.posts == 0


async def test_without_the_extra(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is said before anything is paid for."""
    monkeypatch.setattr("finevoice_async.batch.copies.load_soundfile", lambda: None)
    with pytest.raises(ConfigurationError, match="audio"):
        await project.run(project.want("a"), finish=Finish(trim=True))
    assert project.service.ledger.posts == 0
