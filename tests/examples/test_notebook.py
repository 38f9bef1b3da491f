"""The notebook, run by a real kernel, as Jupyter runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from programs import EXAMPLES, PATIENCE, environment

from finevoice_async.testing import EmulatedService

NOTEBOOK = EXAMPLES / "notebook.ipynb"


def test_the_notebook(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """Every cell runs; each effect is a player with its sound inside, and no link stands anywhere."""
    out = tmp_path / "done.ipynb"
    jupyter_execute = [sys.executable, "-c", "from nbclient.cli import main; main()"]
    shutil.copy(NOTEBOOK, tmp_path)  # where it lies, it saves
    command = [*jupyter_execute, NOTEBOOK.name, "--output", str(out.with_suffix(""))]
    variables = environment(finevoice_emulator, IPYTHONDIR=str(tmp_path), JUPYTER_PLATFORM_DIRS="1")
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    pages = [
        "".join(output["data"]["text/html"])
        for cell in cells
        for output in cell["outputs"]
        if output["output_type"] in ("execute_result", "display_data")
    ]
    assert len(pages) == 4
    assert all(page.startswith('<figure><audio controls src="data:audio/wav;base64,UklGR') for page in pages)
    assert finevoice_emulator.url not in text
    assert len(finevoice_emulator.ledger.accepted) == 4
    assert len(list((tmp_path / "effects").iterdir())) == 3


def test_it_is_kept_clean() -> None:
    """The file in the repository has no outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
