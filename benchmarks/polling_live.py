"""The learned schedule in the real session over HTTP, beside the same in the simulation.

    PYTHONPATH=. python benchmarks/polling_live.py [--quick] [--check] [--cold]

The emulator, in a process of its own, makes effects with lognormal service times (median 8 s, sigma 0.35), and the
whole world runs 20 times faster: service times, `poll_cost`, the schedule's clamps and the poller's tick are divided by
20. The figures are multiplied back. The simulation is `benchmarks/polling.py`'s on the same law. What differs is the
client: HTTP, the event loop, the worker that is free or not; its part of the lag is stated.

With `--cold` it plays first effects instead: new sessions, each given 10 effects at once, at a service's own pace (the
guess that a session starts from is of seconds), against the vendor's fixed 2.5 s on the same service times.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from multiprocessing import get_context
from multiprocessing.connection import Connection

from finevoice_async import FineVoiceSession, Polling
from finevoice_async.core.polling.lifetable import EDGES
from finevoice_async.emulator import Emulator, LogNormal

MEDIAN, SIGMA, POLL_COST = 8.0, 0.35, 0.4
FASTER = 20.0
PLACES = 20
WARM = 200  # effects before the counting begins
COLD_SESSIONS, COLD_EFFECTS, COLD_MEDIAN, COLD_SIGMA = 20, 10, 6.0, 0.2
COLD_MOST = 0.95  # of the cost of fixed 2.5 s, as in `benchmarks/polling.py`
ALLOWED = 0.15


def serve(pipe: Connection, median: float, sigma: float) -> None:
    """Run the emulator; answer each message with the tasks' polls and lags so far."""

    async def main() -> None:
        law = LogNormal(median=median, sigma=sigma, scaled=False)
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


async def first_effects(url: str, key: str) -> None:
    """Give each of some new sessions, all at the same time, its first effects."""

    async def one() -> None:
        async with FineVoiceSession(key, base_url=url, max_concurrency=COLD_EFFECTS) as session:
            async for outcome in session.generate_many(f"sound {i}" for i in range(COLD_EFFECTS)):
                assert outcome.error is None, outcome.error

    async with asyncio.TaskGroup() as group:
        for _ in range(COLD_SESSIONS):
            group.create_task(one())


def cold() -> float:
    """Play first effects and print what they cost; gives the cost over that of fixed 2.5 s."""
    told = played(COLD_MEDIAN, COLD_SIGMA, first_effects)
    fixed = [math.ceil(time / 2.5) for _, _, time in told]
    polls, lag = (statistics.fmean(column) for column in zip(*((polls, lag) for polls, lag, _ in told), strict=True))
    fixed_polls = statistics.fmean(fixed)
    fixed_lag = statistics.fmean(2.5 * count - time for count, (_, _, time) in zip(fixed, told, strict=True))
    print(f"| first {COLD_EFFECTS} effects at once, lognormal {COLD_MEDIAN:g} s | polls an effect | mean lag | cost |")
    print("|---|---|---|---|")
    for name, p, t in (("live, over HTTP", polls, lag), ("fixed 2.5 s", fixed_polls, fixed_lag)):
        print(f"| {name} | {p:.2f} | {t:.2f} s | {POLL_COST * p + t:.2f} |")
    ratio = (POLL_COST * polls + lag) / (POLL_COST * fixed_polls + fixed_lag)
    print(f"\nThe cost is {ratio:.2f} of that of fixed 2.5 s.")
    return ratio


def played(
    median: float, sigma: float, play: Callable[[str, str], Coroutine[None, None, None]]
) -> list[tuple[int, float, float]]:
    """Run the emulator beside a play; give each task's polls, lag and service time."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, median, sigma), daemon=True)
    server.start()
    url, key = ours.recv()
    asyncio.run(play(url, key))
    ours.send("report")
    told: list[tuple[int, float, float]] = ours.recv()
    ours.send("stop")
    server.join()
    return told


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
    parser.add_argument("--cold", action="store_true", help="the first effects of new sessions instead")
    options = parser.parse_args()
    if options.cold:
        ratio = cold()
        return int(options.check and ratio > COLD_MOST)
    effects = WARM + (200 if options.quick else 1500)
    cost = POLL_COST / FASTER
    # Both costs alike: the simulation knows nothing of requests that wait. The youngest bin bounds the clamps, and the
    # poller's tick is a share of the shortest gap.
    polling = Polling(
        poll_cost=cost, busy_poll_cost=cost, min_gap=0.5 / FASTER, max_gap=30 / FASTER, budget=1000, memory=50
    )
    assert EDGES[1] < MEDIAN / FASTER, "the table cannot tell ages this small apart"
    calls: list[float] = []

    async def play(url: str, key: str) -> None:
        calls.append(await live(url, key, polling, effects))

    told = played(MEDIAN / FASTER, SIGMA, play)
    call = calls[0]
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
