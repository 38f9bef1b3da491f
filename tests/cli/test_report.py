"""`finevoice report`: what it writes, what it says, and how it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sounds import put, silence, wav

from finevoice_async.batch.survey import JOURNAL_NAME

MANIFEST = "key,prompt,duration\ndoor,<script>alert(1)</script>,1\nbell,Church bell,2\n"


@pytest.fixture
def made(run: Any, quick_emulator: None, tmp_path: Path) -> Path:
    """A folder that `finevoice batch` has filled."""
    (tmp_path / "sounds.csv").write_text(MANIFEST)
    result = run("batch", "sounds.csv", "--out", "out", "--emulator", "--yes")
    assert result.exit_code == 0, result.output
    return tmp_path / "out"


def test_after_a_batch(run: Any, made: Path) -> None:
    """What a batch made is on the page, which stands in the folder; its path alone is the output."""
    result = run("report", "out")
    assert (result.exit_code, result.stdout) == (0, "out/report.html\n")
    assert result.stderr == "2 effects. Open it in a browser:\n"
    page = (made / "report.html").read_text()
    assert page.count('class="play"') == 2
    assert 'data-src="./door.wav"' in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert(1)" not in page
    assert "finevoice batch sounds.csv --out out" in page
    assert 'class="times few"' in page


def test_what_needs_a_look_is_said(run: Any, made: Path) -> None:
    """Problems are counted, in words and for programs."""
    put(made / "door.wav", wav(silence(1)))
    assert run("report", "out").stderr == "2 effects, 1 of them needs a look. Open it in a browser:\n"
    (made / "bell.wav").unlink()
    assert "2 of them need a look" in run("report", "out").stderr
    result = run("report", "out", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "report": "out/report.html",
        "effects": 2,
        "need_a_look": 2,
        "not_begun": 0,
        "states": {"saved": 2},
        "paid": 2,
        "perhaps_paid": 0,
        "continue": "finevoice batch sounds.csv --out out",
        "notes": [],
    }


def test_another_place(run: Any, made: Path, tmp_path: Path) -> None:
    """The page may be elsewhere, in a folder that is made for it; its links lead back."""
    assert run("report", "out", "-o", "pages/a.html").stdout == "pages/a.html\n"
    assert 'data-src="./../out/bell.wav"' in (tmp_path / "pages" / "a.html").read_text()


def test_named_files(run: Any, made: Path, tmp_path: Path) -> None:
    """Manifest and journal can be named."""
    (made / JOURNAL_NAME).rename(tmp_path / "j.db")
    assert "There is no journal here" in run("report", "out").stderr
    result = run("report", "out", "--manifest", "sounds.csv", "--journal", "j.db", "--json")
    assert json.loads(result.stdout)["notes"] == []


def test_measuring_is_said(run: Any, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are many files somebody hears why it takes a while."""
    monkeypatch.setattr("finevoice_async.cli.report._WORTH_SAYING", 2)
    assert run("report", "out").stderr.startswith("Measuring 2 files ...\n")
    assert run("report", "out", "--json").stderr == ""


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_nothing_is_known(run: Any, tmp_path: Path, as_json: list[str]) -> None:
    """A folder without a batch is wrong use, and no page is written."""
    (tmp_path / "out").mkdir()
    result = run("report", "out", *as_json)
    assert result.exit_code == 2
    assert "Nothing of a batch is known of out." in result.output
    assert list((tmp_path / "out").iterdir()) == []


def test_it_cannot_be_written(run: Any, made: Path) -> None:
    """A page that cannot be written is wrong use: the place is the caller's."""
    result = run("report", "out", "-o", "out/door.wav/report.html")
    assert result.exit_code == 2
    assert "The page out/door.wav/report.html cannot be written" in result.stderr


def test_without_jinja2(run: Any, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what makes pages the error names the extra."""
    for name in [*sys.modules]:
        if name.startswith("finevoice_async.batch.report"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run("report", "out")
    assert result.exit_code == 2
    assert "pip install 'finevoice-async[cli]'" in result.stderr
