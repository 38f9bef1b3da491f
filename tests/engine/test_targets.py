"""Which file a result is saved to."""

from __future__ import annotations

from pathlib import Path

# Where it goes


def test_a_name_is_a_file(tmp_path: Path) -> None:
    """A path that is no folder is the file itself; nothing is made."""
    assert choose_target(str(tmp_path / "a.wav"), "name.wav", overwrite=False) == tmp_path / "a.wav"
    assert left(tmp_path) == []


def test_a_folder_gets_the_name(tmp_path: Path) -> None:
    """A folder, or what ends like one and is made then, gets a file of the given name."""
    assert choose_target(str(tmp_path), "name.wav", overwrite=False) == tmp_path / "name.wav"
    assert choose_target(f"{tmp_path}/new/deep/", "name.wav", overwrite=False) == tmp_path / "new/deep/name.wav"
    assert (tmp_path / "new/deep").is_dir()
    choose_target(f"{tmp_path}/new/deep/", "name.wav", overwrite=False)


def test_what_exists_is_not_replaced(tmp_path: Path) -> None:
    """A file that is there is an error, unless the caller says so."""
    (tmp_path / "a.wav").write_bytes(b"mine")
    for path in (str(tmp_path / "a.wav"), str(tmp_path)):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            choose_target(path, "a.wav", overwrite=False)
        assert choose_target(path, "a.wav", overwrite=True) == tmp_path / "a.wav"
