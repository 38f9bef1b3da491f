"""What a report finds in a folder: lock, journal, manifest and files, any of which may be missing or damaged."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from journals import opened
from reports import BEGAN
from sounds import put, silence, tone, wav

from finevoice_async.adapters.sqlite_journal import SqliteJournal
from finevoice_async.batch.lock import LockRecord, format_lock
from finevoice_async.batch.report_data import EffectReport, ReportData
from finevoice_async.batch.report_folder import read_folder
from finevoice_async.batch.rows import hash_request, journal_key
from finevoice_async.batch.survey import JOURNAL_NAME
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import ManifestError

S = EffectState
MANIFEST = "key,prompt,duration\ndoor,Door creaks open,2\nbell,Church bell,\nlater,Wind,\n"
DOOR = SfxRequest("Door creaks open", duration=2)
BELL = SfxRequest("Church bell")


@attrs.define
class Batch:
    """A folder that a batch has filled, beside its manifest and lock."""

    root: Path
    records: dict[tuple[str, int], LockRecord] = attrs.field(factory=dict)

    @property
    def out(self) -> Path:
        """The folder."""
        return self.root / "out"

    def lock(self, key: str, sound: Sequence[float] | None, *, take: int = 1, request: SfxRequest = DOOR) -> Path:
        """Put a sound into the folder and the lock."""
        content = wav(sound or [])
        path = self.out / (f"{key}.wav" if take == 1 else f"{key}-{take}.wav")
        if sound is not None:
            put(path, content)
        self.records[key, take] = LockRecord(
            key=key,
            take=take,
            request=hash_request(request),
            task_id=f"task {key} {take}",
            file=path.name,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        (self.root / "sounds.csv.lock").write_bytes(format_lock(self.records))
        return path

    def journal(self, *rows: tuple[str | None, int, SfxRequest, Sequence[Move]]) -> None:
        """Make the journal: for each row key, take, request, and the moves that it made after SENDING."""

        async def fill() -> None:
            journal = await opened(self.out / JOURNAL_NAME)
            for number, (key, take, request, moves) in enumerate(rows):
                await self._fill_row(journal, number, None if key is None else journal_key(key, take), request, moves)
            await journal.aclose()

        with asyncio.Runner() as runner:
            runner.run(fill())

    async def _fill_row(
        self, journal: SqliteJournal, number: int, key: str | None, request: SfxRequest, moves: Sequence[Move]
    ) -> None:
        begun = await journal.begin(request, key=key, state=S.SENDING)
        for move in moves:
            fields: dict[str, str] = {"error": f"by {move.value}"} if move in (Move.FAIL, Move.DOUBT, Move.LOSE) else {}
            if move is Move.ACCEPT:
                fields["task_id"] = f"journal {number}"
            if move is Move.SAVE:
                fields |= {"path": str(self.out / f"{number}.wav"), "sha256": "00"}
            await journal.move(begun.row.id, move, **fields)  # type: ignore[arg-type]  # texts, as those fields are

    def read(self) -> ReportData:
        """Return what a report shows."""
        return read_folder(self.out, now=BEGAN)


SAVED = (Move.ACCEPT, Move.FINISH, Move.SAVE)
FAILED = (Move.ACCEPT, Move.FAIL)


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A manifest and an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "sounds.csv").write_text(MANIFEST)
    return Batch(tmp_path)


def by_key(shown: ReportData) -> dict[str, EffectReport]:
    """Return the effects by their keys."""
    return {effect.key: effect for effect in shown.effects}


def test_a_fresh_clone(batch: Batch) -> None:
    """Lock and manifest alone show every sound: prompt, file, length, task; and what is not begun."""
    batch.lock("door", tone(2, peak=0.25))
    batch.lock("bell", tone(1), request=BELL)
    shown = batch.read()
    assert [effect.key for effect in shown.effects] == ["door", "bell", "later"]  # as in the manifest
    (door,) = by_key(shown)["door"].takes
    assert (door.state, door.file, door.seconds, door.task_id) == (S.SAVED, "door.wav", 2.0, "task door 1")
    assert door.peak == pytest.approx(0.25, abs=0.001)
    assert len(door.waveform) == 120
    assert (door.problems, door.note, door.needs_care) == ((), None, False)
    assert by_key(shown)["door"].prompt == "Door creaks open"
    assert by_key(shown)["door"].asked_seconds == 2
    assert (shown.not_begun, shown.paid, shown.perhaps_paid) == (1, 2, 0)
    assert shown.title == "sounds.csv in out"
    assert shown.command == f"finevoice batch sounds.csv --out {batch.out}"
    assert shown.settle_command is None
    assert shown.notes == ("There is no journal here: when things were made, and what failed, nobody knows.",)
    assert shown.made_at == BEGAN


def test_with_its_journal(batch: Batch) -> None:
    """The journal adds when things ran, what failed and why, and what is perhaps paid for."""
    batch.lock("door", tone(2))
    batch.journal(
        ("door", 1, DOOR, SAVED), ("bell", 1, BELL, FAILED), ("bell", 2, BELL, [Move.DOUBT]),
        ("bell", 3, BELL, [Move.ACCEPT, Move.LOSE]), ("gone", 1, BELL, [Move.ACCEPT]), (None, 1, BELL, [Move.REFUSE]),
    )  # fmt: skip
    shown = batch.read()
    effects = by_key(shown)
    assert list(effects) == ["door", "bell", "later", "gone", "row 6"]
    (door,) = effects["door"].takes
    assert door.queued_at is not None
    assert door.submitted_at is not None
    assert door.ended_at is not None
    assert (door.task_id, door.reason) == ("journal 0", None)
    assert [(take.number, take.state, take.reason) for take in effects["bell"].takes] == [
        (1, S.FAILED, "by fail"), (2, S.UNKNOWN, "by doubt"), (3, S.LOST, "by lose"),
    ]  # fmt: skip
    assert [take.ended_at is None for take in effects["bell"].takes] == [False, True, False]
    assert effects["gone"].takes[0].ended_at is None
    assert effects["row 6"].prompt == "Church bell"
    assert (shown.paid, shown.perhaps_paid, shown.needing_care) == (3, 2, 2)
    assert shown.settle_command == f"finevoice journal {batch.out / JOURNAL_NAME} --state perhaps-paid"
    assert shown.notes == ()


def test_each_submission_counts(batch: Batch) -> None:
    """What was submitted again after it failed was paid for twice; what only the lock knows, once."""
    batch.lock("bell", tone(1), request=BELL)
    batch.journal(("door", 1, DOOR, [*FAILED, Move.RETRY, Move.SEND, *SAVED]), ("later", 1, BELL, [Move.REFUSE]))
    assert batch.read().paid == 3


def test_a_journal_alone(batch: Batch) -> None:
    """Without a lock the journal shows all, and `finevoice resume` goes on."""
    put(batch.out / "0.wav", wav(tone(2)))
    batch.journal(("door", 1, DOOR, SAVED), ("bell", 1, BELL, []))
    shown = batch.read()
    assert [take.file for take in shown.takes] == [None, "0.wav"]
    assert shown.title == "out"
    assert shown.command == f"finevoice resume {batch.out / JOURNAL_NAME} --out {batch.out}"
    assert by_key(shown)["bell"].takes[0].is_in_doubt


def test_silent_takes(batch: Batch) -> None:
    """A silent take with a later one that can be heard was rejected, and needs nobody; the last one alone does."""
    batch.lock("door", silence(2))
    batch.lock("door", silence(2), take=2)
    first, second = by_key(batch.read())["door"].takes
    assert (first.rejected, second.rejected, second.needs_care) == (False, False, True)
    assert second.problems == ("it is silent",)
    batch.lock("door", tone(2), take=3)
    takes = by_key(batch.read())["door"].takes
    assert [(take.number, take.rejected, take.needs_care) for take in takes] == [
        (1, True, False), (2, True, False), (3, False, False),
    ]  # fmt: skip


def test_files_that_are_not_as_they_were(batch: Batch) -> None:
    """A missing file is a problem and has no player; a changed one has a note, a broken one its reason."""
    batch.lock("door", None)
    batch.lock("bell", tone(1), request=BELL).write_bytes(wav(tone(1.1)))
    batch.lock("later", tone(1)).write_bytes(b"<html>")
    effects = by_key(batch.read())
    (door,), (bell,), (later,) = (effects[key].takes for key in ("door", "bell", "later"))
    assert (door.file, door.problems, door.needs_care) == (None, ("the file is missing: door.wav",), True)
    assert (bell.file, bell.note, bell.needs_care) == ("bell.wav", "changed since it was saved", False)
    assert (later.file, later.problems) == ("later.wav", ("it is an HTML or XML page, not audio",))


def test_another_request(batch: Batch) -> None:
    """A take that was made before the manifest changed says so."""
    batch.lock("door", tone(2), request=SfxRequest("Door slams", duration=2))
    assert by_key(batch.read())["door"].takes[0].note == "made for an earlier wording of the request"


def test_the_length_that_was_asked_for(batch: Batch) -> None:
    """Length is checked against the journal's request, or the manifest's where the journal knows nothing."""
    batch.lock("door", tone(1))
    assert by_key(batch.read())["door"].takes[0].problems == ("it lasts 1.0 s, 2 s were asked for",)
    batch.journal(("door", 1, SfxRequest("Door creaks open", duration=1), SAVED))
    assert by_key(batch.read())["door"].takes[0].problems == ()


def test_finished_copies(batch: Batch) -> None:
    """A finished copy that stands beside its original has a link."""
    batch.lock("door", tone(2))
    put(batch.out / "door.finished.flac", b"")
    assert by_key(batch.read())["door"].takes[0].finished == "door.finished.flac"


@pytest.mark.parametrize(
    ("page", "file"), [("out/report.html", "door.wav"), ("r.html", "out/door.wav"), ("sub/r.html", "../out/door.wav")]
)
def test_links_lead_from_the_page(batch: Batch, page: str, file: str) -> None:
    """Wherever the page is, files are named as seen from there."""
    batch.lock("door", tone(2))
    shown = read_folder("out", now=BEGAN, page=page)
    assert by_key(shown)["door"].takes[0].file == file


# Where things are


def test_a_lock_in_the_folder(batch: Batch) -> None:
    """A manifest from standard input has its lock in the folder; then there is no command with it."""
    batch.lock("door", tone(2))
    (batch.root / "sounds.csv.lock").rename(batch.out / "manifest.lock")
    shown = batch.read()
    assert [effect.key for effect in shown.effects] == ["door"]
    assert shown.command is None


def test_other_locks(batch: Batch) -> None:
    """Locks of other programs, and of other folders, are not taken for this one's."""
    batch.lock("door", tone(2))
    (batch.root / "a.lock").write_text("version = 1\n[[package]]\n")
    other = LockRecord(key="x", take=1, request="", task_id=None, file="not here.wav", sha256="")
    (batch.root / "b.csv.lock").write_bytes(format_lock({other.id: other}))
    assert list(by_key(batch.read())) == ["door", "bell", "later"]


def test_it_is_told_where_things_are(batch: Batch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Manifest, lock and journal can be named; then they are looked for nowhere else."""
    batch.lock("door", tone(2))
    batch.journal(("door", 1, DOOR, SAVED))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("sounds.csv", "sounds.csv.lock"):
        (batch.root / name).rename(elsewhere / name)
    (batch.out / JOURNAL_NAME).rename(elsewhere / "j.db")
    manifest, lock = elsewhere / "sounds.csv", elsewhere / "sounds.csv.lock"
    for shown in (
        read_folder(batch.out, now=BEGAN, journal=elsewhere / "j.db", manifest=manifest),
        read_folder(batch.out, now=BEGAN, journal=elsewhere / "j.db", lock=lock),
    ):
        assert list(by_key(shown)) == ["door", "bell", "later"]
        assert by_key(shown)["door"].takes[0].submitted_at is not None
        assert shown.command == f"finevoice batch {elsewhere / 'sounds.csv'} --out {batch.out}"


def test_what_is_damaged_is_noted(batch: Batch) -> None:
    """A journal, a lock or a manifest that cannot be read is noted, and what the others know is shown."""
    batch.lock("door", tone(2))
    (batch.out / JOURNAL_NAME).write_bytes(b"no journal" * 99)
    (batch.root / "sounds.csv").write_text("key,prompt,duration\ndoor,Door,fast\n")
    shown = batch.read()
    assert list(by_key(shown)) == ["door"]
    assert len(shown.notes) == 2
    assert "sounds.csv" in shown.notes[0]
    assert JOURNAL_NAME in shown.notes[1]
    (batch.root / "sounds.csv").write_text(MANIFEST)
    (batch.root / "sounds.csv.lock").write_bytes(b"{}\n")
    shown = read_folder("out", now=BEGAN, manifest="sounds.csv")
    assert shown.not_begun == 3
    assert "needs key" in shown.notes[0]


def test_nothing_is_known(batch: Batch) -> None:
    """A folder of which nothing is known has no report, and the error says what is missing."""
    put(batch.out / "door.wav", wav(tone(1)))
    with pytest.raises(ManifestError, match=r"Nothing of a batch is known of .*out"):
        batch.read()
    with pytest.raises(ManifestError, match="Nothing of a batch"):
        read_folder("nowhere", now=BEGAN)
    with pytest.raises(ManifestError, match=r"no journal at .*j\.db"):
        read_folder("out", now=BEGAN, journal="j.db")


def test_it_tells_how_many_there_are(batch: Batch) -> None:
    """Before files are measured, somebody hears how many."""
    batch.lock("door", tone(2))
    batch.lock("bell", tone(2))
    told: list[int] = []
    read_folder(batch.out, now=BEGAN, on_counted=told.append)
    assert told == [2]
