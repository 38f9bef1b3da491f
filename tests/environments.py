"""Environments that hold a few of the installed distributions and what these need, and nothing else."""

from __future__ import annotations

import subprocess
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def needed(*wanted: str) -> dict[str, Distribution]:
    """Return the distributions that an installation of the wanted ones brings, by their names."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    to_do = [Requirement(each) for each in wanted]
    while to_do:
        requirement = to_do.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found[name] = distribution(name)
            for text in found[name].requires or []:
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    to_do.append(further)
    return found


def make_environment(folder: Path, *wanted: str) -> Path:
    """Make an environment of this package, of its sources as they are, and the wanted distributions.

    Nothing is downloaded: it is made of what is installed here.

    Returns:
        Its interpreter.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    (packages / "finevoice_async").symlink_to(ROOT / "finevoice_async")
    for name, found in needed("finevoice-async", *wanted).items():
        tops = {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}
        if name == "finevoice-async":  # its sources are there already; what is left says what it is and brings
            tops = {top for top in tops if top.endswith(".dist-info")}
        for top in tops - {"__pycache__"}:
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
    return python


def run(python: Path, *arguments: str, folder: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run an environment's interpreter in a folder, without this one's variables."""
    environment = {"PATH": str(python.parent), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [python, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        check=False,
        env=environment,
    )
