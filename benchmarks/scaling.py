"""Whether an effect costs the same whether a hundred are made or a hundred thousand.

    python benchmarks/scaling.py                  the table, as Markdown (some minutes)
    python benchmarks/scaling.py --quick          up to 3,000 effects
    python benchmarks/scaling.py --check          and exit with 1 when the exponent is above 1.03

Effects are made in one session, 100 in flight, one POST and one GET each (see `overhead.py`). The exponent is the slope
of the logarithm of total CPU over that of the number of effects, by least squares.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path

from benchmarks.harness import Child, FastServer, Spread, table
from benchmarks.overhead import PAUSE_EACH, Job, measure

LIMIT = 1.03
IN_FLIGHT = 100


def main() -> int:
    """Measure, print, check."""
    parser = argparse.ArgumentParser(description="CPU per effect over the number of effects.")
    parser.add_argument("--quick", action="store_true", help="up to 3,000 effects")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the exponent is too large")
    options = parser.parse_args()
    sizes = [100, 300, 1_000, 3_000] if options.quick else [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000]
    pause = PAUSE_EACH * IN_FLIGHT
    costs: dict[int, Spread] = {}
    overhead = str(Path(__file__).with_name("overhead.py"))
    with FastServer() as server, Child(overhead, "--worker", "finevoice") as child:
        child.ask(url=server.url, effects=200, in_flight=20, pause=0.005)  # warm up
        for size in sizes:
            turns = max(1, min(9, 20_000 // size))
            job = Job(url=server.url, effects=size, in_flight=IN_FLIGHT, pause=pause)
            costs[size] = Spread.of([measure(server, child, job, {"seconds": 0.8 * pause}).cpu for _ in range(turns)])
            print(f"  {size:,} effects: {costs[size].show(3)} ms each", file=sys.stderr)
    logs = [math.log(size) for size in sizes]
    totals = [math.log(size * costs[size].median) for size in sizes]
    exponent = statistics.linear_regression(logs, totals).slope
    print(table(["effects", "CPU an effect, ms"], [[f"{size:,}", costs[size].show(3)] for size in sizes]))
    print(f"\nCPU grows with the number of effects to the power of {exponent:.3f}.")
    if options.check and exponent > LIMIT:
        print(f"missed: exponent {exponent:.3f}, at most {LIMIT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
