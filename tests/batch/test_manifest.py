"""Manifests are read in four formats, and checked as a whole."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async import ManifestError, SfxRequest
from finevoice_async.batch import Manifest, ManifestRow, read_manifest


def read(folder: Path, name: str, content: str | bytes, **options: Any) -> Manifest:
    """Write a manifest and read it."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_manifest(path, **options)


def faults(folder: Path, name: str, content: str | bytes, **options: Any) -> list[tuple[int | None, str]]:
    """Return the faults of a manifest, by line."""
    with pytest.raises(ManifestError) as caught:
        read(folder, name, content, **options)
    assert str(folder / name) in str(caught.value)
    assert caught.value.paid is False
    return [(fault.line, fault.what) for fault in caught.value.faults]


DOOR = SfxRequest("Door, creaking", negative_prompt="music", duration=2.5)
SHARED = 'negative_prompt="music"\nduration=2.5\ntakes=3'
FORMATS = [
    ("a.csv", 'key,prompt,negative_prompt,duration,takes\nd,"Door, creaking",music,2.5,3\n'),
    ("a.csv", "\ufeffKey;Prompt;negativePrompt;Duration;Takes;;\r\nd;Door, creaking;music;2,5;3;;\r\n;;;;;;\r\n"),
    ("a.csv", 'sep=;\nkey;prompt;negative prompt;duration;takes\nd;"Door, creaking";music;2,5;3\n'),
    ("a.tsv", "key\tprompt\tnegative_prompt\tduration\ttakes\nd\tDoor, creaking\tmusic\t2.5\t3\n"),
    (
        "a.jsonl",
        '\n{"key": "d", "prompt": "Door, creaking", "negative_prompt": "music", "duration": 2.5, "takes": 3}\n',
    ),
    ("a", '{"key": "d", "prompt": "Door, creaking", "negativePrompt": "music", "duration": 2.5, "takes": 3}'),
    ("a.toml", '[[sound]]\nkey="d"\nprompt="Door, creaking"\nnegative_prompt="music"\nduration=2.5\ntakes=3\n'),
    ("a", f'[defaults]\nprompt_suffix=", creaking"\n{SHARED}\n[[sound]]\nkey="d"\nprompt="Door"\n'),
]


@pytest.mark.parametrize(("name", "content"), FORMATS)
def test_one_sound_in_every_format(tmp_path: Path, name: str, content: str) -> None:
    """CSV with commas, semicolons and tabs, JSON Lines and TOML say the same; either spelling of the fields will do."""
    manifest = read(tmp_path, name, content)
    (row,) = manifest
    assert (row.key, row.request, row.takes, row.number) == ("d", DOOR, 3, 1)
    assert len(manifest) == 1


def test_a_prompt_a_line(tmp_path: Path) -> None:
    """Plain text is a prompt a line; blank lines are none, and keys are made of words and a hash."""
    rain, bell = read(tmp_path, "a.txt", "\ufeffRain on a roof, soft\r\n\r\n  Bell \n".encode())
    assert (rain.request, bell.request) == (SfxRequest("Rain on a roof, soft"), SfxRequest("Bell"))
    assert rain.key.startswith("rain-on-a-roof-soft-")
    assert (rain.line, bell.line, bell.number) == (1, 3, 2)


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard input, whatever format comes."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"prompt,duration\nRain,2\n")))
    manifest = read_manifest("-")
    assert [row.request for row in manifest] == [SfxRequest("Rain", duration=2.0)]
    assert manifest.lock_path(tmp_path) == tmp_path / "manifest.lock"


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Every row is checked, and every fault is told with its line, before anything could be sent."""
    content = (
        "key,prompt,duration,takes,sourceUrl,file\n"
        "k,Rain,31,1,,\n"
        "b,,1,0,,../b\n"
        "k,Bell,x,1,,\n"
        "c,Bell,1,1,ftp://x,/etc/c\n"
        "d,Bell,1,1,,x/{nobody}\n"
        "e#2,Bell,1,1,,\n"
        "f,Rain,1,1,,A/f.wav\n"
        "g,Rain,1,1,,a/F\n"
        "h,Rain,1,1,,a/f/h,more\n"
    )
    told = faults(tmp_path, "a.csv", content)
    assert [line for line, _ in told] == [2, 3, 3, 3, 4, 5, 5, 6, 7, 9, 10, 10]
    words = " | ".join(what for _, what in told)
    for part in (
        "duration must be above 0 and at most 30 seconds, not 31",
        "prompt must be given",
        "takes must be a whole number from 1 to 100, not 0",
        "'../b' leads out of the folder",
        "duration must be a number of seconds, not 'x'",
        "source_url must be an http or https address",
        "not an absolute path",
        "{nobody}; there are {key}, {take}, {prompt}, {row}",
        "must not end in # and a number",
        "the file 'a/F' is that of line 8",
        "'a/f' is a file of line 8",
        "more cells than columns",
    ):
        assert part in words


def test_the_same_key_twice(tmp_path: Path) -> None:
    """A key, given or made, stands for one sound."""
    assert faults(tmp_path, "a.jsonl", '{"key": "a", "prompt": "x"}\n{"key": "a", "prompt": "y"}') == [
        (2, "the key 'a' is that of line 1, too; for more of one sound there is takes")
    ]
    assert [line for line, _ in faults(tmp_path, "a.txt", "Rain\nBell\nRain\n")] == [3]


@pytest.mark.parametrize(
    ("name", "content", "line", "part"),
    [
        ("a.csv", "promt,duration\nx,1\n", 1, "unknown column 'promt'; did you mean 'prompt'?"),
        ("a.csv", "prompt,Duration (s)\nx,1\n", 1, "did you mean 'duration'?"),
        ("a.csv", "prompt,prompt\nx,y\n", 1, "two columns are prompt"),
        ("a.csv", 'prompt\n"x\n', 2, "no CSV"),
        ("a.csv", "prompt\nx\n\xe4\n".encode("latin-1"), 3, "no UTF-8"),
        ("a.csv", "prompt\nx\n".encode("utf-16"), None, "UTF-16"),
        ("a.csv", "", None, "no sounds"),
        ("a.csv", "prompt\n", None, "no sounds"),
        ("a.jsonl", '{"prompt": "x", "lenght": 1}', 1, "unknown field 'lenght'"),
        ("a.jsonl", '{"prompt": "x", "duraton": 1}', 1, "did you mean 'duration'?"),
        ("a.jsonl", '{"prompt": "x", "prompt": "y"}', 1, "given twice"),
        ("a.jsonl", '{"prompt": "x", "sourceType": "image", "source_type": "image"}', 1, "given twice"),
        ("a.jsonl", "\n[1]", 2, "must be a JSON object"),
        ("a.json", '[\n{"prompt": "x"}\n]', 1, "not an array over many"),
        ("a.jsonl", '{"prompt": "x", "duration": "2"}', 1, "must be a number of seconds"),
        ("a.jsonl", '{"prompt": "x", "takes": true}', 1, "takes must be a whole number"),
        ("a.jsonl", '{"prompt": "x", "key": " "}', 1, "key must be text"),
        ("a.jsonl", '{"prompt": "x", "file": "a/"}', 1, "names no file"),
        ("a.jsonl", '{"prompt": "x", "file": "{key.__class__}"}', 1, "there are {key}"),
        ("a.jsonl", '{"prompt": "x", "file": "c:/x"}', 1, "absolute"),
        ("a.jsonl", "[" * 100_000, 1, "no JSON"),
        ("a.toml", '[[sounds]]\nprompt = "x"\n', 1, "neither [[sound]] nor [defaults]"),
        ("a.toml", '\n[[sound]]\nprompt = "x\n', 3, "no TOML"),
        ("a.toml", '[defaults]\nprompt = "x"\n[[sound]]\nprompt = "x"\n', None, "[defaults]: unknown field 'prompt'"),
        ("a.toml", '[sound]\nprompt = "x"\n', None, "two brackets"),
        ("a.toml", '[[sound]]\nprompt = "x"\n\n[[sound]]\nduration = 1\n', 4, "prompt must be given"),
    ],
)
def test_one_fault(tmp_path: Path, name: str, content: str | bytes, line: int | None, part: str) -> None:
    """A fault is told where it is, with what would be right."""
    told = faults(tmp_path, name, content)
    assert [where for where, what in told if part in what] == [line], told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """What cannot be read is a fault like any other."""
    with pytest.raises(ManifestError, match="No such file"):
        read_manifest(tmp_path / "a.csv")


def test_very_many_faults(tmp_path: Path) -> None:
    """A thousand faults are enough; how many more there are is said."""
    with pytest.raises(ManifestError, match="has 1500 faults") as caught:
        read(tmp_path, "a.csv", "prompt,duration\n" + "x,99\n" * 1500)
    assert (len(caught.value.faults), caught.value.left_out) == (1000, 500)


def test_keys_stay_when_defaults_change(tmp_path: Path) -> None:
    """A default that changes changes the request, not the key: else all would be paid for anew."""
    before = '[defaults]\nduration = 2\n[[sound]]\nprompt = "Rain"\n'
    (one,) = read(tmp_path, "a.toml", before)
    (other,) = read(
        tmp_path, "a.toml", before.replace("2", "3").replace("duration", 'prompt_suffix = "loud"\nduration')
    )
    assert one.key == other.key
    assert one.request_hash != other.request_hash
    assert other.request.prompt == "Rain loud"


def test_keys_come_from_files(tmp_path: Path) -> None:
    """Without a key a row is called as its file, unless that is a template."""
    rows = list(read(tmp_path, "a.csv", "prompt,file\nRain,sfx/rain.wav\nBell,sfx/{prompt}\n"))
    assert rows[0].key == "sfx/rain.wav"
    assert (rows[0].stem(1), rows[0].stem(2)) == ("sfx/rain", "sfx/rain-2")
    assert rows[1].key.startswith("bell-")
    assert rows[1].stem(1) == "sfx/bell"


# The folder


def test_places_are_checked_before(tmp_path: Path) -> None:
    """A folder that is a file, or leads elsewhere by a link, is a fault of each row that needs it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("mine")
    (out / "away").symlink_to(tmp_path, target_is_directory=True)
    (out / "folder").mkdir()
    content = "prompt,file\na,file/a\nb,away/b\nc,fine/c\nd,folder\n"
    told = faults(tmp_path, "a.csv", content, out=out)
    assert [line for line, _ in told] == [2, 3, 5]
    assert "is a file, not a folder" in told[0][1]
    assert "leads out of the folder" in told[1][1]
    assert "is a folder already" in told[2][1]
    assert not (out / "fine").exists()


def test_no_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written, nothing is sent."""
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "nothing can be written" in faults(tmp_path, "a.txt", "Rain\n", out=tmp_path / "out")[0][1]


def test_not_enough_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What will not fit is told before; what is there already needs no room."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=400_000))
    content = "prompt,file,duration\nRain,rain,15\nBell,bell,15\n"
    told = faults(tmp_path, "a.csv", content, out=tmp_path)
    assert told == [(None, "not enough disk: at least 0.5 MB are needed, 0.4 MB are free")]
    (tmp_path / "rain.wav").write_text("there")
    assert len(read(tmp_path, "a.csv", content, out=tmp_path)) == 2


# Many, and any


MANY = """
import resource, sys
from finevoice_async.batch import read_manifest

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = used()
manifest = read_manifest(sys.argv[1], out=sys.argv[2])
print(len(manifest), sum(row.number for row in manifest), used() - before)
"""


@pytest.mark.timeout(300)
def test_a_hundred_thousand_rows(tmp_path: Path) -> None:
    """100,000 rows take a few hundred bytes each at most, while they are read and while they are gone through."""
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("key,prompt,duration\n")
        file.writelines(f"sound-{i},Footsteps on gravel number {i},{1 + i % 20}\n" for i in range(100_000))
    words = [sys.executable, "-c", MANY, str(path), str(tmp_path / "out")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    rows, total, grown = map(int, ran.stdout.split())
    assert (rows, total) == (100_000, 100_000 * 100_001 // 2)
    assert grown < 50e6


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    str.strip
)
ROWS = st.lists(
    st.tuples(TEXTS, st.none() | TEXTS, st.none() | st.floats(0.01, 30), st.integers(1, 5)), min_size=1, max_size=8
)


def as_csv(rows: list[dict[str, Any]], delimiter: str) -> str:
    """Write rows as a spreadsheet does."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["key", "prompt", "negative_prompt", "duration", "takes"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_toml(rows: list[dict[str, Any]]) -> str:
    """Write rows as tables; JSON's strings are TOML's, but for one character."""
    lines = []
    for row in rows:
        lines.append("[[sound]]")
        lines += [
            f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in row.items() if value is not None
        ]
    return "\n".join(lines).replace("\x7f", "\\u007F")


@settings(deadline=None)  # it writes files
@given(ROWS)
def test_formats_agree(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[Any, ...]]) -> None:
    """Whatever the texts hold, every format gives the rows that were written."""
    folder = tmp_path_factory.mktemp("manifests")
    rows = [
        {"key": f"k{n}", "prompt": prompt, "negative_prompt": avoid, "duration": seconds, "takes": takes}
        for n, (prompt, avoid, seconds, takes) in enumerate(drawn)
    ]
    wanted = [
        (row["key"], SfxRequest(row["prompt"], negative_prompt=row["negative_prompt"], duration=row["duration"]))
        for row in rows
    ]
    texts = {
        "a.csv": as_csv(rows, ","),
        "b.csv": as_csv(rows, ";"),
        "c.jsonl": "\n".join(map(json.dumps, rows)),
        "d.toml": as_toml(rows),
    }
    for name, text in texts.items():
        found: list[ManifestRow] = list(read(folder, name, text))
        assert [(row.key, row.request) for row in found] == wanted, name
        assert [row.takes for row in found] == [row["takes"] for row in rows]
