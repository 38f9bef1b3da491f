"""What a client costs beyond the service: CPU, requests and sockets per effect, against what people use today.

    python benchmarks/overhead.py                   the tables, as Markdown (about half an hour with all peers)
    python benchmarks/overhead.py --quick           a few seconds: small numbers, no slow peers
    python benchmarks/overhead.py --check           and exit with 1 when a required ratio is missed
    python benchmarks/overhead.py --picture FILE    draw CPU per effect against tasks in flight
    python benchmarks/overhead.py --clients A,B     only these

Every client is a process of its own, and so is the server (`fast_server.py`); a client is charged its own
`time.process_time`, imports left out. All run in turns, in alternating order, and a ratio is taken within a turn.

First table: every task takes as long as a client's pause before it asks (0.8 times, to be exact), so that this library
and the loops written by hand make exactly one POST and one GET an effect. The pause grows with the number in flight, so
that they really are in flight at once. This library runs with its learned schedule and all safety on; only the
schedule's pauses are pinned (`min_gap` = `max_gap`), and its poll budget is lifted, which would else be the limit. The
peers keep their own ways: fal-client polls once at once and fetches the result apart.

Second table: seeded lognormal times, and every client polls as its makers chose: the loops by hand every 2.5 s, as the
vendor advises. Lag is the time between a task's end and the answer that tells it; the greedy bound is the makespan of a
client that submits in order and notices at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import importlib
import importlib.util
import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.harness import Child, FastServer, Spread, alternated, messages, reply, table

KEY = "bench-key"
SUBMIT = "/v1/audio/sfx-generation"
PAUSE_EACH = 0.0006
"""Seconds of pause for each task in flight: a little more than its POST takes, so that all are submitted meanwhile."""

PEERS = ("fal-client", "replicate", "runwayml")
MODULES = {"httpx": "httpx", "fal-client": "fal_client", "replicate": "replicate", "runwayml": "runwayml"}
CORE = ("finevoice", "finevoice gather", "aiohttp tuned", "aiohttp")
LABELS = {
    "finevoice": "finevoice_async, generate_many",
    "finevoice gather": "finevoice_async, gather of generate",
    "aiohttp tuned": "aiohttp by hand, tuned",
    "aiohttp": "aiohttp by hand",
    "httpx": "httpx by hand",
}
LABEL_STEP = 1.3
"""How many times higher than the label below it one stands in the picture, at least."""

REQUIRED = {5: 4.0, 100: 10.0, 1_000: 40.0}
"""How many times more any peer must cost, by tasks in flight."""


@attrs.frozen(kw_only=True)
class Job:
    """One measurement.

    Attributes:
        url: The server.
        effects: How many to make.
        in_flight: How many at once.
        pause: Seconds between POST and GET, and between GETs; None lets the client choose.
    """

    url: str
    effects: int
    in_flight: int
    pause: float | None


# Clients. Each makes all effects of a job, and gives how many failed.


async def _each(job: Job, effect: Callable[[str], Awaitable[object]]) -> int:
    """Make every effect in a coroutine of its own, so many at once; what people write."""
    places = asyncio.Semaphore(job.in_flight)
    failed = 0

    async def one(prompt: str) -> None:
        nonlocal failed
        async with places:
            try:
                await effect(prompt)
            except Exception:  # noqa: BLE001 - peers lose tasks in many ways; they are counted
                failed += 1

    await asyncio.gather(*(one(f"effect {number}") for number in range(job.effects)))
    return failed


def _session(job: Job) -> Any:
    from finevoice_async import FineVoiceSession, Polling

    polling = Polling()
    if job.pause is not None:
        polling = Polling(min_gap=job.pause, max_gap=job.pause, budget=1e6)
    return FineVoiceSession(KEY, base_url=job.url, max_concurrency=job.in_flight, polling=polling)


async def finevoice(job: Job) -> int:
    """Run this library as it should be used."""
    failed = 0
    async with _session(job) as session:
        async for outcome in session.generate_many(f"effect {number}" for number in range(job.effects)):
            failed += outcome.error is not None
    return failed


async def finevoice_gather(job: Job) -> int:
    """Run this library with a coroutine an effect."""
    async with _session(job) as session:
        prompts = (f"effect {number}" for number in range(job.effects))
        results = await asyncio.gather(*map(session.generate, prompts), return_exceptions=True)
    return sum(isinstance(result, BaseException) for result in results)


async def aiohttp_default(job: Job) -> int:
    """Run a loop as aiohttp's documentation suggests."""
    import aiohttp

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def effect(prompt: str) -> str:
            async with session.post(job.url + SUBMIT, json={"prompt": prompt, "useAsync": True}) as response:
                response.raise_for_status()
                task = await response.json()
            while True:
                await asyncio.sleep(2.5 if job.pause is None else job.pause)
                async with session.get(f"{job.url}/v1/task/{task['task_id']}") as response:
                    response.raise_for_status()
                    state = await response.json()
                if state["status"] == "completed":
                    return str(state["url"])

        return await _each(job, effect)


async def aiohttp_tuned(job: Job) -> int:
    """Run the same loop with every knob turned that pays."""
    import aiohttp
    from yarl import URL

    get_headers = {"Authorization": f"Bearer {KEY}", "Accept": "application/json"}
    post_headers = get_headers | {"Content-Type": "application/json"}
    submit = URL(job.url + SUBMIT, encoded=True)
    ask = f"{job.url}/v1/task/"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=64),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30),
    ) as session:

        async def effect(prompt: str) -> str:
            body = json.dumps({"prompt": prompt, "useAsync": True}).encode()
            async with session.post(submit, data=body, headers=post_headers) as response:
                task = _decode(response.status, await response.read())
            url = URL(ask + task["task_id"], encoded=True)
            while True:
                await asyncio.sleep(2.5 if job.pause is None else job.pause)
                async with session.get(url, headers=get_headers) as response:
                    state = _decode(response.status, await response.read())
                if state["status"] == "completed":
                    return str(state["url"])

        return await _each(job, effect)


def _decode(status: int, body: bytes) -> dict[str, Any]:
    if status != 200:
        raise RuntimeError(f"status {status}")
    answer: dict[str, Any] = json.loads(body)
    return answer


async def httpx_by_hand(job: Job) -> int:
    """Run the same loop with httpx."""
    httpx = importlib.import_module("httpx")
    async with httpx.AsyncClient(base_url=job.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=None) as client:

        async def effect(prompt: str) -> str:
            response = await client.post(SUBMIT, json={"prompt": prompt, "useAsync": True})
            response.raise_for_status()
            path = f"/v1/task/{response.json()['task_id']}"
            while True:
                await asyncio.sleep(2.5 if job.pause is None else job.pause)
                response = await client.get(path)
                response.raise_for_status()
                state = response.json()
                if state["status"] == "completed":
                    return str(state["url"])

        return await _each(job, effect)


async def fal(job: Job) -> int:
    """Run fal-client's `subscribe`."""
    fal_client = importlib.import_module("fal_client")
    internals: Any = importlib.import_module("fal_client.client")
    internals.QUEUE_URL_FORMAT = f"{job.url}/"  # its own switch, an environment variable, allows https only
    client = fal_client.AsyncClient(key=KEY)
    options = {} if job.pause is None else {"interval": job.pause}
    return await _each(job, lambda prompt: client.subscribe("bench/sfx", {"prompt": prompt}, **options))


async def replicate(job: Job) -> int:
    """Run replicate's `predictions.async_create` and `async_wait`."""
    client = importlib.import_module("replicate.client").Client(api_token=KEY, base_url=job.url)
    if job.pause is not None:
        client.poll_interval = job.pause

    async def effect(prompt: str) -> object:
        prediction = await client.predictions.async_create(version="1", input={"prompt": prompt})
        await prediction.async_wait()
        return prediction.output

    return await _each(job, effect)


async def runwayml(job: Job) -> int:
    """Run runwayml's `sound_effect.create` and `wait_for_task_output`."""
    polling: Any = importlib.import_module("runwayml.lib.polling")
    if job.pause is not None:
        polling.POLL_TIME, polling.POLL_JITTER = job.pause, 0.0
    client = importlib.import_module("runwayml").AsyncRunwayML(api_key=KEY, base_url=job.url)

    async def effect(prompt: str) -> object:
        task = await client.sound_effect.create(model="eleven_text_to_sound_v2", prompt_text=prompt)
        return await task.wait_for_task_output()

    async with client:
        return await _each(job, effect)


CLIENTS: dict[str, Callable[[Job], Awaitable[int]]] = {
    "finevoice": finevoice,
    "finevoice gather": finevoice_gather,
    "aiohttp tuned": aiohttp_tuned,
    "aiohttp": aiohttp_default,
    "httpx": httpx_by_hand,
    "fal-client": fal,
    "replicate": replicate,
    "runwayml": runwayml,
}


def free_a_large_block() -> None:
    """Do what any program does sooner or later, so that chance does not decide which client has done it.

    Before, glibc maps and unmaps memory for each of asyncio's 256 KB receive buffers, two page faults a reply; from the
    first large block that is freed on, it takes them from its heap (`man mallopt`, M_MMAP_THRESHOLD).
    """
    bytes(1 << 20)


def work(name: str) -> None:
    """Be one client's process."""
    free_a_large_block()
    for module in ("finevoice_async", MODULES.get(name, "aiohttp")):
        if module != "finevoice_async" or name.startswith("finevoice"):
            importlib.import_module(module)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    for message in messages():
        job = Job(**message)
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        failed = asyncio.run(_run(CLIENTS[name], job))
        reply(cpu=time.process_time() - cpu, wall=time.perf_counter() - began, failed=failed)


async def _run(client: Callable[[Job], Awaitable[int]], job: Job) -> int:
    return await client(job)


# Measuring


@attrs.frozen(kw_only=True)
class Run:
    """One client's measurement of one job.

    Attributes:
        cpu: Milliseconds of CPU an effect.
        requests: Requests an effect.
        sockets: Connections open at once, at most.
        lag: Mean seconds between an end and the answer that told it.
        makespan: From the first submission to the last end that was told, in seconds.
        lost: Share of the effects that failed.
    """

    cpu: float
    requests: float
    sockets: int
    lag: float
    makespan: float
    lost: float


def measure(server: FastServer, child: Child, job: Job, law: dict[str, float]) -> Run:
    """Let one client do a job."""
    server.reset(**law)
    answer = child.ask(**attrs.asdict(job))
    stats = server.stats()
    made = max(job.effects - answer["failed"], 1)
    return Run(
        cpu=1000 * answer["cpu"] / made,
        requests=(stats["posts"] + stats["gets"]) / made,
        sockets=stats["peak"],
        lag=stats["lag"] / max(stats["ended"], 1),
        makespan=stats["last"] - stats["first"],
        lost=answer["failed"] / job.effects,
    )


def greedy_bound(times: Sequence[float], places: int) -> float:
    """Give the makespan of tasks started in order as soon as a place is free."""
    free = [0.0] * min(places, len(times))
    for seconds in times:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def law_times(law: dict[str, float], count: int) -> list[float]:
    """Draw the times as the server draws them."""
    rng = random.Random(int(law["seed"]))
    return [law["seconds"] * rng.lognormvariate(0.0, law["sigma"]) for _ in range(count)]


@attrs.frozen
class Cell:
    """A number of effects, a number in flight, and what each client needed for it, turn by turn."""

    effects: int
    in_flight: int
    runs: dict[str, list[Run]]

    def cpu(self, name: str) -> Spread:
        """Give milliseconds of CPU an effect."""
        return Spread.of([run.cpu for run in self.runs[name]])

    def ratio(self, name: str, other: str) -> Spread:
        """Give how many times the CPU of `other` a client needs, turn by turn."""
        pairs = zip(self.runs[name], self.runs[other], strict=False)  # slow clients sit out later turns
        return Spread.of([mine.cpu / theirs.cpu for mine, theirs in pairs])


def measure_cell(
    server: FastServer, children: dict[str, Child], names: Sequence[str], effects: int, in_flight: int, turns: int
) -> Cell:
    """Let the clients do the same job in turns; the slow ones take part in fewer."""
    pause = max(0.005, PAUSE_EACH * in_flight)
    cell = Cell(effects, in_flight, {name: [] for name in names})
    job = Job(url=server.url, effects=effects, in_flight=in_flight, pause=pause)
    for turn in range(turns):
        for name in alternated(names, turn):
            if turn >= 2 and name not in CORE:
                continue
            cell.runs[name].append(measure(server, children[name], job, {"seconds": 0.8 * pause}))
        print(f"  {effects:,} effects, {in_flight:,} in flight: turn {turn + 1} of {turns}", file=sys.stderr)
    return cell


def show_cell(cell: Cell) -> str:
    """Give the table of one cell."""
    rows = []
    for name, runs in cell.runs.items():
        lost = statistics.median(run.lost for run in runs)
        requests = statistics.median(run.requests for run in runs)
        cpu = cell.cpu(name)
        rows.append(
            [
                LABELS.get(name, name) + (f" ({lost:.0%} lost)" if lost else ""),
                cpu.show(),
                f"{cpu.median / requests:.3f}",
                cell.ratio(name, "aiohttp tuned").show() if "aiohttp tuned" in cell.runs else "",
                f"{requests:.2f}",
                f"{max(run.sockets for run in runs)}",
            ]
        )
    head = ["client", "CPU an effect, ms", "a request, ms", "over tuned aiohttp", "requests an effect", "sockets"]
    return f"### {cell.effects:,} effects, {cell.in_flight:,} in flight\n\n{table(head, rows)}\n"


def show_seeded(
    server: FastServer, children: dict[str, Child], names: Sequence[str], effects: int, in_flight: int, seconds: float
) -> str:
    """Measure and show the table with seeded times and each client's own way of polling."""
    law = {"seconds": seconds, "sigma": 0.35, "seed": 7}
    bound = greedy_bound(law_times(law, effects), in_flight)
    job = Job(url=server.url, effects=effects, in_flight=in_flight, pause=None)
    rows = []
    for name in names:
        run = measure(server, children[name], job, law)
        rows.append(
            [
                LABELS.get(name, name) + (f" ({run.lost:.0%} lost)" if run.lost else ""),
                f"{run.cpu:.2f}",
                f"{run.requests:.2f}",
                f"{run.lag:.2f}",
                f"{run.makespan / bound:.2f}",
            ]
        )
        print(f"  seeded times: {name}", file=sys.stderr)
    head = ["client", "CPU an effect, ms", "requests an effect", "lag, s", "makespan over greedy bound"]
    title = f"### {effects:,} effects of {seconds:g} s in the middle, {in_flight:,} in flight, each polls its own way"
    return f"{title}\n\n{table(head, rows)}\n"


def missed(cells: Sequence[Cell], slack: float) -> list[str]:
    """Give what is required and was not reached; `slack` widens the limits for small samples."""
    problems = []
    for cell in cells:
        where = f"at {cell.in_flight:,} in flight ({cell.effects:,} effects)"
        for other, limit in (("aiohttp tuned", 1.10), ("aiohttp", 1.0)):
            if other in cell.runs and (ratio := cell.ratio("finevoice", other).median) > limit * slack:
                problems.append(f"{ratio:.2f} times {LABELS[other]} {where}; at most {limit:.2f} is required")
        for peer in PEERS:
            least = REQUIRED.get(cell.in_flight, 0.0)
            if peer in cell.runs and (ratio := cell.ratio(peer, "finevoice").median) < least / slack:
                problems.append(f"{peer} costs only {ratio:.1f} times this library {where}; {least:g} is required")
    return problems


def _label_heights(ends: dict[str, tuple[int, float]]) -> dict[str, float]:
    """Give each line's label a height beside the line's end where it covers no other label."""
    heights: dict[str, float] = {}
    below: dict[int, float] = {}
    for name, (flight, cpu) in sorted(ends.items(), key=lambda item: item[1][1]):
        heights[name] = below[flight] = max(cpu, LABEL_STEP * below.get(flight, 0.0))
    return heights


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Draw CPU an effect against tasks in flight, of the cells with the most effects."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    points: dict[str, dict[int, float]] = {}
    for cell in cells:
        for name in cell.runs:
            points.setdefault(name, {})[cell.in_flight] = cell.cpu(name).median  # cells come by growing effects
    points.pop("finevoice gather", None)
    heights = _label_heights({name: max(by_flight.items()) for name, by_flight in points.items()})
    for name, by_flight in points.items():
        ours = name == "finevoice"
        flights = sorted(by_flight)
        style = {"linewidth": 2.5, "zorder": 3} if ours else {"linewidth": 1.2}
        line = axes.plot(flights, [by_flight[flight] for flight in flights], marker="o", **style)[0]
        axes.annotate(
            "finevoice_async" if ours else LABELS.get(name, name),
            (flights[-1], heights[name]),
            xytext=(6, 0),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
            fontweight="bold" if ours else "normal",
        )
    axes.set(xscale="log", yscale="log", xlabel="tasks in flight", ylabel="client CPU an effect, ms")
    axes.set_xlim(right=axes.get_xlim()[1] * 8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=150)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a client costs beyond the service.")
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a required ratio is missed")
    parser.add_argument("--picture", type=Path, help="draw CPU per effect against tasks in flight")
    parser.add_argument("--clients", help="only these, separated by commas")
    parser.add_argument("--cells", help="only these, as effects:in_flight,...")
    parser.add_argument("--turns", type=int, help="how often each client does each job")
    parser.add_argument("--no-seeded", action="store_true", help="leave the second table out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def _choose(options: argparse.Namespace) -> list[str]:
    """Give the clients that were asked for and are installed; say which are not."""
    wanted = options.clients.split(",") if options.clients else list(CORE) if options.quick else list(CLIENTS)
    names = []
    for name in wanted:
        if importlib.util.find_spec(MODULES.get(name, "aiohttp")) is None:
            print(f"{name} is not installed: left out (pip install {name})\n")
        else:
            names.append(name)
    return names


def _takes_part(name: str, effects: int, in_flight: int) -> bool:
    """Tell whether a client does a job: the slow ones need minutes to hours for the large ones."""
    return name in CORE or (effects <= 1_000 and in_flight <= 1_000)


def main() -> int:
    """Measure, print, check, draw."""
    options = _parse()
    if options.worker:
        work(options.worker)
        return 0
    names = _choose(options)
    jobs = [(size, flight) for size in (100, 1_000, 10_000) for flight in (5, 100, 1_000, 10_000) if flight <= size]
    if options.quick:
        jobs = [(300, 5), (1_000, 100), (1_000, 1_000)]
    if options.cells:
        jobs = [(int(size), int(flight)) for size, flight in (cell.split(":") for cell in options.cells.split(","))]
    turns = options.turns or (3 if options.quick else 7)
    children: dict[str, Child] = {}
    cells = []
    with FastServer() as server:
        try:
            for name in names:
                children[name] = Child(__file__, "--worker", name)
                children[name].ask(url=server.url, effects=50, in_flight=5, pause=0.001)  # warm up
            for effects, in_flight in jobs:
                taking_part = [name for name in names if _takes_part(name, effects, in_flight)]
                cells.append(measure_cell(server, children, taking_part, effects, in_flight, turns))
                print(show_cell(cells[-1]), flush=True)
            if not options.no_seeded:
                size = (60, 30, 1.0) if options.quick else (500, 100, 4.0)
                print(show_seeded(server, children, names, *size))
        finally:
            for child in children.values():
                child.__exit__()
    if options.picture:
        draw(cells, options.picture)
    problems = missed(cells, 1.15 if options.quick else 1.0) if options.check else []
    for problem in problems:
        print(f"missed: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
