"""The learned schedule in the real session over HTTP, beside the same in the simulation.

    PYTHONPATH=. python benchmarks/polling_live.py [--quick] [--check]

The emulator, in a process of its own, makes effects with lognormal service times (median 8 s, sigma 0.35), and the
whole world runs 20 times faster: service times, `poll_cost`, the schedule's clamps and the poller's tick are divided by
20. The figures are multiplied back. The simulation is `benchmarks/polling.py`'s on the same law. What differs is the
client: HTTP, the event loop, the worker that is free or not; its part of the lag is stated.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

from finevoice_async import FineVoiceSession, Polling
from finevoice_async.core.polling.lifetable import EDGES
from finevoice_async.emulator import Emulator, LogNormal

MEDIAN, SIGMA, POLL_COST = 8.0, 0.35, 0.4
FASTER = 20.0
PLACES = 20
WARM = 200  # effects before the counting begins
ALLOWED = 0.15


def serve(pipe: Connection) -> None:
    """Run the emulator; answer each message with the tasks' polls and lags so far."""

    async def main() -> None:
        law = LogNormal(median=MEDIAN / FASTER, sigma=SIGMA, scaled=False)
        async with Emulator(service_time=law, seed=3) as emulator:
            pipe.send((emulator.url, emulator.api_key))
            while await asyncio.to_thread(pipe.recv) != "stop":
                tasks = list(emulator.ledger.accepted.values())
                pipe.send([(task.polls, (task.noticed_at or 0) - task.ends_at, task.service_time) for task in tasks])

    asyncio.run(main())


async def live(url: str, key: str, polling: Polling, effects: int) -> float:
    """Make the effects; give the mean seconds of one call over HTTP."""
    async with FineVoiceSession(key, base_url=url, max_concurrency=PLACES, polling=polling) as session:
        async for outcome in session.generate_many(f"sound {i}" for i in range(effects)):
            assert outcome.error is None, outcome.error
        began = time.perf_counter()
        for _ in range(50):
            await session._parts._transport.get("/v1/task/nobody")
        return (time.perf_counter() - began) / 50


def simulated(times: list[float], polling: Polling) -> tuple[float, float]:
    """Play the same service times on a virtual clock; give polls and mean lag of those that count."""
    from finevoice_async.core.polling.schedule import make_schedule

    schedule = make_schedule(polling)
    polls, lags = [], []
    for number, end in enumerate(times):
        last = age = 0.0
        asked = 0
        while True:
            age += schedule.gap(age, busy=False)
            asked += 1
            if age >= end:
                schedule.finished(last, age)
                break
            schedule.running(last, age)
            last = age
        if number >= WARM:
            polls.append(asked)
            lags.append(age - end)
    return statistics.fmean(polls), statistics.fmean(lags)


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer effects")
    parser.add_argument("--check", action="store_true", help="fail if live and simulation differ by more than 15 %%")
    options = parser.parse_args()
    effects = WARM + (200 if options.quick else 1500)
    cost = POLL_COST / FASTER
    # Both costs alike: the simulation knows nothing of requests that wait. The youngest bin bounds the clamps, and the
    # poller's tick is a share of the shortest gap.
    polling = Polling(
        poll_cost=cost, busy_poll_cost=cost, min_gap=0.5 / FASTER, max_gap=30 / FASTER, budget=1000, memory=50
    )
    assert EDGES[1] < MEDIAN / FASTER, "the table cannot tell ages this small apart"
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url, key = ours.recv()
    call = asyncio.run(live(url, key, polling, effects))
    ours.send("report")
    told = ours.recv()
    ours.send("stop")
    server.join()

    counted = told[WARM:]
    polls = statistics.fmean(polls for polls, _, _ in counted)
    lag = statistics.fmean(lag for _, lag, _ in counted) * FASTER
    expected_polls, expected_lag = simulated([time for _, _, time in told], polling)
    expected_lag *= FASTER
    print("| lognormal 8 s, poll_cost 0.4 | polls an effect | mean lag | cost |")
    print("|---|---|---|---|")
    for name, p, t in (("live, over HTTP", polls, lag), ("simulation", expected_polls, expected_lag)):
        print(f"| {name} | {p:.2f} | {t:.2f} s | {POLL_COST * p + t:.2f} |")
    print(f"\nOne call takes {call * 1000:.2f} ms here, which at this speed is {call * FASTER:.3f} s of the lag.")
    apart = max(abs(polls / expected_polls - 1), abs((lag - call * FASTER) / expected_lag - 1))
    print(f"Live and simulation are at most {apart:.0%} apart.")
    if options.check and apart > ALLOWED:
        print(f"more than {ALLOWED:.0%}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
