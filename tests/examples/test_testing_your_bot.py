"""The page on tests of one's own bot passes in a project that has pytest and this package, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from programs import EXAMPLES

PAGE = EXAMPLES / "testing_your_bot.py"


def test_the_page(tmp_path: Path) -> None:
    """Run as its first lines say."""
    shutil.copy(PAGE, tmp_path)
    plugin = ["-p", "finevoice_async.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugin, PAGE.name],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout
