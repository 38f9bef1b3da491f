"""The lock: stable bytes, merged row by row."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async import ManifestError
from finevoice_async.batch.checking import Faults
from finevoice_async.batch.lock import LockRecord, format_lock, merge, parse_lock, read_lock, update_lock


def record(key: str = "a", take: int = 1, **fields: object) -> LockRecord:
    """Return a record."""
    known: dict[str, object] = {"request": "r", "task_id": "t", "file": f"{key}.wav", "sha256": "00"}
    return LockRecord(key=key, take=take, **{**known, **fields})  # type: ignore[arg-type]  # a test's own fields


def parse(content: bytes) -> dict[tuple[str, int], LockRecord]:
    """Read a lock that has no faults."""
    faults = Faults("a.lock")
    found = parse_lock(content.splitlines(keepends=True), faults)
    faults.check()
    return found


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
RECORDS = st.builds(
    LockRecord,
    key=TEXTS,
    take=st.integers(1, 3),
    request=st.sampled_from(["r1", "r2"]),
    task_id=st.none() | TEXTS,
    file=st.sampled_from(["a.wav", "b/ü.mp3"]),
    sha256=st.sampled_from(["00", "ff"]),
    media_type=st.none() | st.just("audio/wav"),
    seconds=st.none() | st.floats(0, 100),
    silent=st.none() | st.booleans(),
)
LOCKS = st.lists(RECORDS, max_size=6).map(lambda records: {each.id: each for each in records})


@settings(deadline=None)
@given(LOCKS)
def test_what_is_written_is_read(records: dict[tuple[str, int], LockRecord]) -> None:
    """Whatever the keys hold, a lock is read as it was written, and its bytes do not depend on the order."""
    content = format_lock(records)
    assert parse(content) == records
    assert format_lock(dict(reversed(records.items()))) == content
    assert len(content.split(b"\n")) == len(records) + 1


@settings(deadline=None)
@given(LOCKS, LOCKS, LOCKS)
def test_merging(
    one: dict[tuple[str, int], LockRecord],
    two: dict[tuple[str, int], LockRecord],
    three: dict[tuple[str, int], LockRecord],
) -> None:
    """Nothing is lost, and who merges with whom first makes no difference."""
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, one) == one
    assert merge(one, two).keys() == one.keys() | two.keys()


@pytest.mark.parametrize("request_hash", ["q", "r", "s"])
def test_a_record_with_a_task_counts(request_hash: str) -> None:
    """Of two records of one take that with a task's id counts, whatever else they say: it is fetched, not paid for."""
    paid, other = record(), record(request=request_hash, task_id=None)
    for one, two in ((paid, other), (other, paid)):
        assert merge({one.id: one}, {two.id: two}) == {paid.id: paid}
        assert parse(format_lock({one.id: one}) + format_lock({two.id: two})) == {paid.id: paid}


@settings(deadline=None)
@given(LOCKS, LOCKS, st.booleans())
def test_what_git_could_not_merge(
    one: dict[tuple[str, int], LockRecord], two: dict[tuple[str, int], LockRecord], with_base: bool
) -> None:
    """A lock with git's marks in it gives both sides' rows; what both began with is no side."""
    base = b"||||||| base\n" + format_lock({("x", 1): record("x")}) if with_base else b""
    content = b"<<<<<<< mine\n" + format_lock(one) + base + b"=======\n" + format_lock(two) + b">>>>>>> theirs\n"
    assert parse(content) == merge(one, two)


def git(folder: Path, *words: str, code: int | None = 0) -> None:
    """Run git."""
    names = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    ran = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=False, env=os.environ | names
    )
    assert code is None or ran.returncode == code, ran.stdout + ran.stderr


def test_two_people(tmp_path: Path) -> None:
    """Two people who make different sounds merge with git; where that conflicts, the next write mends it."""
    path = tmp_path / "m.csv.lock"
    git(tmp_path, "init", "-b", "main")
    update_lock(path, {each.id: each for each in (record("b"), record("f"), record("m"))})
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "checkout", "-b", "other")
    update_lock(path, {each.id: each for each in (record("c"), record("p"))})
    git(tmp_path, "commit", "-am", "theirs")
    git(tmp_path, "checkout", "main")
    update_lock(path, {each.id: each for each in (record("a"), record("d"))})
    git(tmp_path, "commit", "-am", "mine")
    git(tmp_path, "merge", "other", code=None)
    assert b"<<<<<<<" in path.read_bytes()  # c and d stand in one place
    update_lock(path, {("z", 1): record("z")})
    assert [key for key, _ in read_lock(path)] == list("abcdfmpz")
    assert b"<<<<<<<" not in path.read_bytes()


def test_others_rows_stay(tmp_path: Path) -> None:
    """What somebody else wrote meanwhile stays; one's own rows count; a file that would be the same is not touched."""
    path = tmp_path / "new" / "m.csv.lock"
    update_lock(path, {})
    assert not path.exists()
    update_lock(path, {("a", 1): record("a")})
    update_lock(path, {("b", 1): record("b", task_id=None)})
    changed = record("a", sha256="11", task_id=None)
    update_lock(path, {("a", 1): changed})
    assert read_lock(path) == {("a", 1): changed, ("b", 1): record("b", task_id=None)}
    before = path.stat()
    update_lock(path, {("a", 1): changed})
    assert path.stat().st_ino == before.st_ino
    assert list(path.parent.iterdir()) == [path]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    """A lock keeps its permissions, a new one has those of the umask, and a link stays one."""
    path, link = tmp_path / "a.lock", tmp_path / "b.lock"
    update_lock(path, {("a", 1): record("a")})
    old = os.umask(0)
    os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o666 & ~old
    path.chmod(0o640)
    link.symlink_to(path)
    update_lock(link, {("b", 1): record("b")})
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(read_lock(path)) == 2


def test_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old lock, and nothing else."""
    path = tmp_path / "a.lock"
    update_lock(path, {("a", 1): record("a")})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        update_lock(path, {("b", 1): record("b")})
    assert list(read_lock(path)) == [("a", 1)]
    assert list(tmp_path.iterdir()) == [path]


GOOD = attrs.asdict(record())


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b"garbage", "no line of a lock"),
        (b"[]", "must be a JSON object"),
        (b'{"key": "a"}', "needs take"),
        (b'{"key": "a", "take": 0, "request": "r", "file": "a", "sha256": "0"}', "from 1 on"),
        (b'{"key": "a", "take": true, "request": "r", "file": "a", "sha256": "0"}', "needs take"),
        (b'{"key": "a", "take": 1, "request": "r", "file": "../a", "sha256": "0"}', "leads out"),
        (b'{"key": "a", "take": 1, "request": "r", "file": "/a", "sha256": "0"}', "leads out"),
        (b"[" * 100_000, "no line of a lock"),
    ],
)
def test_what_is_no_lock(tmp_path: Path, line: bytes, part: str) -> None:
    """A line that is none is told with its number, and nothing is written over it."""
    path = tmp_path / "a.lock"
    path.write_bytes(format_lock({("a", 1): record()}) + line + b"\n")
    with pytest.raises(ManifestError, match=part) as caught:
        update_lock(path, {("b", 1): record("b")})
    assert [fault.line for fault in caught.value.faults] == [2]
    assert line in path.read_bytes()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    """Whatever lies there, it is a lock or a fault."""
    parse_lock(content.splitlines(keepends=True), Faults("a.lock"))


def test_fields_of_other_kinds() -> None:
    """What a field cannot be is left out; nothing that is needed is guessed."""
    line = b'{"key":"a","take":1,"request":"r","file":"a","sha256":"0","task_id":5,"seconds":1e400,"silent":"no"}'
    assert parse(line)["a", 1] == record(task_id=None, file="a", sha256="0")


def test_an_emulators_sounds(tmp_path: Path) -> None:
    """They are marked, survive no real one of the same take, and never take the place of one."""
    real, tried = record(task_id=None), record(task_id="z", emulated=True)
    assert parse(format_lock({tried.id: tried})) == {tried.id: tried}
    assert merge({real.id: real}, {tried.id: tried}) == merge({tried.id: tried}, {real.id: real}) == {real.id: real}
    path = tmp_path / "a.lock"
    for written, left in ((tried, tried), (real, real), (tried, real)):
        update_lock(path, {written.id: written})
        assert read_lock(path) == {left.id: left}
