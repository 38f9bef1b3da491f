"""Which file a result is saved to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finevoice_async.core.filenames import part_name
from finevoice_async.engine.targets import Target, choose_target


def left(folder: Path) -> list[str]:
    """List what is in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


def test_a_name_is_a_file(tmp_path: Path) -> None:
    """A path that is no folder is the file itself, whatever its suffix says; nothing is made."""
    for name in ("a.wav", "a.php", "thunder.v2", "雨.wav"):
        target = choose_target(str(tmp_path / name), "stem", overwrite=False)
        assert target.of(".mp3") == tmp_path / name
        assert target.suffix == Path(name).suffix
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("thunder", "thunder.mp3"),
        ("take 2.5", "take 2.5.mp3"),
        ("Dr. Who", "Dr. Who.mp3"),
        (".thunder", ".thunder.mp3"),
        ("thunder.", "thunder.mp3"),
        ("thunder . .", "thunder.mp3"),
        ("雨" * 85, "雨" * 83 + ".mp3"),
        ("🌧" * 63 + "abc", "🌧" * 62 + "abc"[:3][:0] + ".mp3"),
    ],
    ids=range(8),
)
def test_a_name_without_a_suffix_gets_the_right_one(tmp_path: Path, name: str, saved: str) -> None:
    """It is put behind the name, which is cut where both have no room; nothing else of it changes."""
    target = choose_target(str(tmp_path / name), "stem", overwrite=False)
    assert target.of(".mp3") == tmp_path / saved
    assert len(os.fsencode(saved)) <= 255


def test_a_folder_gets_the_name(tmp_path: Path) -> None:
    """A folder, or a text that ends like one and is made then, gets a file of the given name."""
    assert choose_target(str(tmp_path), "name", overwrite=False).of(".wav") == tmp_path / "name.wav"
    for number, end in enumerate(("/", "//", "/.", "/deep/")):
        path = f"{tmp_path}/new {number}{end}"
        file = choose_target(path, "name", overwrite=False).of(".wav")
        assert file == Path(path) / "name.wav"
        assert file.parent.is_dir()
        assert choose_target(path, "name", overwrite=False).of("") == Path(path) / "name"


def test_a_path_forgets_its_slash(tmp_path: Path) -> None:
    """A `Path` is a folder where there is one, else a file."""
    path = tmp_path / "effects/"
    assert choose_target(os.fspath(path), "name", overwrite=False).of(".wav") == tmp_path / "effects.wav"
    path.mkdir()
    assert choose_target(os.fspath(path), "name", overwrite=False).of(".wav") == tmp_path / "effects" / "name.wav"


def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot is a folder, and so is nothing at all; a bare name is a file in it."""
    monkeypatch.chdir(tmp_path)
    for path in (".", "", "./"):
        assert choose_target(path, "name", overwrite=False).of(".wav") == Path("name.wav")
    assert choose_target("thunder", "name", overwrite=False).of(".wav") == Path("thunder.wav")


def test_what_exists_is_not_replaced(tmp_path: Path) -> None:
    """A file that is there is an error, unless the caller says so; what a crash left for it goes."""
    file = tmp_path / "a.wav"
    file.write_bytes(b"mine")
    (tmp_path / part_name("a.wav")).write_bytes(b"RI")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        choose_target(str(file), "stem", overwrite=False)
    assert left(tmp_path) == ["a.wav"]
    assert choose_target(str(file), "stem", overwrite=True).of(".mp3") == file
    target = Target(tmp_path / "a", "", overwrite=False)
    target.check(target.of(".mp3"))
    with pytest.raises(FileExistsError):
        target.check(target.of(".wav"))
