"""How long the import takes, and what it brings along.

    python benchmarks/startup.py                  the table, as Markdown
    python benchmarks/startup.py --quick          fewer interpreters
    python benchmarks/startup.py --check          and exit with 1 when a required figure is missed

Each import runs in fresh interpreters, in alternating order, with compiled files in place. A ratio is taken between
neighbours. The command's `--help` is run, too, to see what it loads.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys

from benchmarks.harness import Spread, alternated, environment, table

LIMIT = 1.15
MODULES = ("aiohttp", "finevoice_async", "replicate", "runwayml", "fal_client")
UNWANTED = ("aiohttp.web", "numpy")

_IMPORT = """
import json, sys, time
before = len(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
import {module}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({{"wall": 1000 * wall, "cpu": 1000 * cpu, "modules": len(sys.modules) - before}}))
"""

_HELP = """
import sys
sys.argv = ["finevoice", "--help"]
from finevoice_async.cli import main
try:
    main()
except SystemExit:
    pass
print()
print("loaded", *sys.modules)
"""


def _python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout


def measure(names: list[str], turns: int) -> dict[str, list[dict[str, float]]]:
    """Import each module in fresh interpreters; the first round, which compiles, is dropped."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(turns + 1):
        for name in alternated(names, turn):
            run: dict[str, float] = json.loads(_python(_IMPORT.format(module=name)))
            if turn:
                runs[name].append(run)
    return runs


def help_loads() -> list[str]:
    """Give which unwanted modules the command's help loads."""
    loaded = set(_python(_HELP).splitlines()[-1].split()[1:])
    return [name for name in UNWANTED if name in loaded]


def main() -> int:
    """Measure, print, check."""
    parser = argparse.ArgumentParser(description="How long the import takes.")
    parser.add_argument("--quick", action="store_true", help="fewer interpreters")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a required figure is missed")
    options = parser.parse_args()
    names = [name for name in MODULES if importlib.util.find_spec(name) is not None]
    if options.quick:
        names = names[:2]
    runs = measure(names, 7 if options.quick else 25)
    rows = []
    for name in names:
        ratios = [run["cpu"] / base["cpu"] for run, base in zip(runs[name], runs["aiohttp"], strict=True)]
        wall, cpu = (Spread.of([run[key] for run in runs[name]]).show(0) for key in ("wall", "cpu"))
        rows.append([f"`import {name}`", wall, cpu, Spread.of(ratios).show(), f"{runs[name][0]['modules']:.0f}"])
    print(table(["", "wall, ms", "CPU, ms", "CPU over aiohttp", "modules"], rows))
    left_out = [name for name in MODULES if name not in names]
    if left_out:
        print(f"\nLeft out: {', '.join(left_out)}.")
    unwanted = help_loads()
    print(f"\n`finevoice --help` loads of {' and '.join(UNWANTED)}: {', '.join(unwanted) or 'neither'}.")
    pairs = zip(runs["finevoice_async"], runs["aiohttp"], strict=True)
    ratio = Spread.of([run["cpu"] / base["cpu"] for run, base in pairs]).median
    if options.check and (ratio > LIMIT or unwanted):
        print(f"missed: {ratio:.2f} times aiohttp, at most {LIMIT}; help loads {unwanted}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
