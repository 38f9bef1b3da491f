"""What mypy and basedpyright say of a user's programs: of `mistakes` just what its lines tell, of `right` nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
PROGRAMS = [HERE / "mistakes.py", HERE / "right.py"]

Found = dict[str, set[str]]
"""By line, as `name:number`, the codes of the errors."""

# A long line of a long answer is about one error. `note:` lines and the summary have no code.
_OF_MYPY = re.compile(r"^(?P<file>.+?):(?P<line>\d+): error: .*\[(?P<code>[a-z-]+)\]$", re.MULTILINE)


def marked(checker: str) -> Found:
    """Return the errors that the programs' lines tell: ``# E: code, code``. basedpyright's begin with "report"."""
    found: Found = {}
    for program in PROGRAMS:
        for number, line in enumerate(program.read_text(encoding="utf-8").splitlines(), 1):
            codes = set(line.partition("  # E: ")[2].split(", ")) - {""}
            its = {code for code in codes if code.startswith("report") == (checker == "basedpyright")}
            if codes:
                found[f"{program.name}:{number}"] = its
    return found


def run(checker: str, *options: str | Path) -> str:
    """Run a checker over the programs, as their author would: without this project's own settings."""
    command = [sys.executable, "-m", checker, *options, *PROGRAMS]
    env = os.environ | {"MYPYPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1, done.stdout + done.stderr  # there are errors; 2 and more: it did not come to its end
    return done.stdout


def by_mypy(folder: Path) -> Found:
    """Return what mypy finds. Its cache is its own: with other options it would throw away the project's."""
    cache = PROJECT / ".mypy_cache" / "typed"
    report = run("mypy", "--config-file=", "--strict", "--follow-imports=silent", "--no-pretty", "--cache-dir", cache)
    found: Found = defaultdict(set)
    for error in _OF_MYPY.finditer(report):
        found[f"{Path(error['file']).name}:{error['line']}"].add(error["code"])
    return found


def by_basedpyright(folder: Path) -> Found:
    """Return what basedpyright finds, without what follows of it: that what is wrong is of an unknown type."""
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(PROJECT)], "include": [str(HERE)]}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    report = run("basedpyright", "--project", folder / "settings.json", "--pythonpath", sys.executable, "--outputjson")
    found: Found = defaultdict(set)
    for error in json.loads(report)["generalDiagnostics"]:
        if error["severity"] == "error":
            found[f"{Path(error['file']).name}:{error['range']['start']['line'] + 1}"].add(error["rule"])
    for line, codes in found.items():
        found[line] = {code for code in codes if not code.startswith("reportUnknown")} or codes
    return found


@pytest.mark.timeout(300)  # a first run reads all of the library, and what it uses
@pytest.mark.parametrize("check", [by_mypy, by_basedpyright])
def test_every_line(check: Callable[[Path], Found], tmp_path: Path) -> None:
    """Each marked line has just its errors, and no other line has any."""
    wanted, found = marked(check.__name__.removeprefix("by_")), check(tmp_path)
    assert len(wanted) > 100
    assert all(wanted.values())  # both checkers find each mistake
    wrong = {line: (wanted.get(line), found.get(line)) for line in wanted.keys() | found.keys()}
    assert not {line: codes for line, codes in wrong.items() if codes[0] != codes[1]}
