"""The emulator in a thread of its own: opening, closing, and what a test does to it meanwhile."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from conftest import open_sockets

from finevoice_async.core.requests import SUBMIT_PATH, SfxRequest
from finevoice_async.emulator import Emulator, EmulatorThread, thread


def submit(emulator: EmulatorThread) -> int:
    """Submit a sound as a program without any event loop would, and return the status."""
    request = urllib.request.Request(
        emulator.url + SUBMIT_PATH,
        data=b'{"prompt": "rain", "useAsync": true}',
        headers={"Authorization": f"Bearer {emulator.api_key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def its_threads() -> list[threading.Thread]:
    """Return the threads of emulators."""
    return [one for one in threading.enumerate() if one.name == "finevoice-emulator"]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Neither a thread nor a socket outlives a test."""
    before = open_sockets(), threading.active_count()
    yield
    gc.collect()
    assert (open_sockets(), threading.active_count()) == before


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    """An emulator in its thread."""
    with EmulatorThread(Emulator(service_time=60, seed=1)) as emulator:
        yield emulator


def test_opening_and_closing_again(emulator: EmulatorThread) -> None:
    """Both are idempotent; a service that was away comes back at the same address with the same tasks."""
    assert submit(emulator) == 200
    emulator.start()
    url = emulator.url
    for _ in range(2):
        emulator.close()
    assert not its_threads()
    with pytest.raises(urllib.error.URLError):
        submit(emulator)
    emulator.start()
    assert submit(emulator) == 200
    assert (emulator.url, emulator.seed) == (url, 1)
    assert (len(emulator.ledger.accepted), emulator.running) == (2, 2)


def test_an_address_in_use(emulator: EmulatorThread) -> None:
    """What goes wrong in the thread at the start is raised where it was started, and it can be tried again."""
    port = int(emulator.url.rpartition(":")[2])
    second = EmulatorThread(Emulator(port=port))
    for _ in range(2):
        with pytest.raises(OSError, match="address already in use"):
            second.start()
    emulator.close()
    with second:
        assert second.url == emulator.url
        assert submit(second) == 200


def test_settings_hold_from_the_next_request_on(emulator: EmulatorThread) -> None:
    """Limits, credits, times and faults are set from the test's thread, and read there."""
    emulator.plan_limit = 1
    assert [submit(emulator), submit(emulator)] == [200, 429]
    emulator.plan_limit, emulator.credits = None, 1
    assert [submit(emulator), submit(emulator)] == [200, 402]
    assert (emulator.plan_limit, emulator.credits, emulator.running) == (None, 0, 2)
    emulator.credits, emulator.service_time = None, 7
    assert submit(emulator) == 200
    assert emulator.ledger.service_times == [60, 60, 7]
    assert emulator.service_time(SfxRequest("x"), random.Random(1)) == 7
    assert emulator.bound(2) == 67
    emulator.inject("submit.refuse", value=418)
    assert [submit(emulator), submit(emulator)] == [418, 200]
    emulator.inject("submit.unavailable", 5)
    emulator.heal()
    assert submit(emulator) == 200
    assert emulator.ledger.refused == {429: 1, 402: 1, 418: 1}


def test_settings_that_make_no_sense(emulator: EmulatorThread) -> None:
    """They are refused where they are made, and the emulator goes on."""
    with pytest.raises(ValueError, match="no fault is called"):
        emulator.inject("submit.nonsense")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="0 seconds or above"):
        emulator.service_time = -1
    with pytest.raises(ValueError, match="slots"):
        emulator.bound(0)
    assert submit(emulator) == 200


@pytest.fixture
def held(emulator: EmulatorThread) -> Iterator[threading.Event]:
    """Hold the emulator up in the middle of a submission, until the event is set."""
    inside, release = threading.Event(), threading.Event()

    def law(request: SfxRequest, rng: random.Random) -> float:
        inside.set()
        assert release.wait(5)
        return 60.0

    emulator.service_time = law
    caller = threading.Thread(target=submit, args=(emulator,))
    caller.start()
    assert inside.wait(5)
    yield release
    release.set()
    caller.join()


def test_nothing_changes_under_a_request(emulator: EmulatorThread, held: threading.Event) -> None:
    """What is set while a request is being answered waits for that answer's turn to end."""
    accepted = []

    def order() -> None:
        emulator.inject("task.fail")
        accepted.append(len(emulator.ledger.accepted))

    other = threading.Thread(target=order)
    other.start()
    other.join(0.02)
    assert other.is_alive()
    assert not emulator.ledger.accepted  # to be read at any time
    held.set()
    other.join()
    assert accepted == [1]
    assert not next(iter(emulator.ledger.accepted.values())).fails


def test_a_law_that_sets_something_itself(emulator: EmulatorThread) -> None:
    """What is called in the emulator's own thread waits for nobody."""

    def law(request: SfxRequest, rng: random.Random) -> float:
        emulator.inject("submit.unavailable")
        emulator.plan_limit = 10 + emulator.running
        return 60.0

    emulator.service_time = law
    assert [submit(emulator), submit(emulator)] == [200, 503]
    assert emulator.plan_limit == 10


def test_a_thread_that_is_held_up(
    emulator: EmulatorThread, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an order nor the closing waits for ever; both say what may be the cause."""
    monkeypatch.setattr(thread, "PATIENCE", 0.01)
    with pytest.raises(TimeoutError, match=r"not answered.*law of service times"):
        emulator.inject("submit.reject")
    with pytest.raises(TimeoutError, match=r"did not end.*law of service times"):
        emulator.close()
    (left,) = its_threads()
    held.set()
    left.join(5)


def test_closing_is_prompt(emulator: EmulatorThread) -> None:
    """Answers that hang and connections that idle do not hold it up."""
    emulator.inject("submit.hang", 3)
    failed = []

    def hang() -> None:
        try:
            submit(emulator)
        except OSError as error:
            failed.append(error)

    callers = [threading.Thread(target=hang) for _ in range(3)]
    for caller in callers:
        caller.start()
    with socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2]))):
        while len(emulator.ledger.accepted) < 3:
            time.sleep(0.001)
        began = time.monotonic()
        emulator.close()
        assert time.monotonic() - began < 1
    for caller in callers:
        caller.join()
    assert len(failed) == 3


class BrokenEmulator(Emulator):
    """An emulator that fails where it is told to."""

    def __init__(self, *, starting: bool) -> None:
        super().__init__()
        self.starting = starting

    async def start(self) -> None:
        """Hang, or start."""
        if self.starting:
            await asyncio.Event().wait()
        await super().start()

    async def aclose(self) -> None:
        """Close, and fail."""
        await super().aclose()
        raise OSError("no more files")


def test_a_start_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after a while, and leaves nothing running."""
    monkeypatch.setattr(thread, "PATIENCE", 0.01)
    with pytest.raises(TimeoutError, match="did not come up"):
        EmulatorThread(BrokenEmulator(starting=True)).start()


def test_an_error_that_ends_the_thread() -> None:
    """It is raised where it is closed."""
    emulator = EmulatorThread(BrokenEmulator(starting=False))
    emulator.start()
    with pytest.raises(OSError, match="no more files"):
        emulator.close()
    emulator.close()


def test_a_thread_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised where it was started, and its event loop is closed."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        EmulatorThread(Emulator()).start()


def test_dropped_open() -> None:
    """One that is forgotten open says so, and its thread ends."""
    emulator = EmulatorThread(Emulator())
    emulator.start()
    (left,) = its_threads()
    opened = [emulator]
    del emulator
    with pytest.warns(ResourceWarning, match="unclosed <EmulatorThread of <Emulator on port"):
        opened.clear()
    left.join(5)


def test_many_threads_at_once(emulator: EmulatorThread) -> None:
    """Orders, looks and submissions of several threads do not get into each other's way."""
    failures: list[BaseException] = []

    def job() -> None:
        try:
            for _ in range(10):
                emulator.inject("submit.unavailable")
                submit(emulator)
                assert not list(emulator.ledger.accepted.values())
                assert emulator.running >= 0
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            failures.append(error)

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join()
    assert not failures
    assert (emulator.ledger.posts, emulator.ledger.refused) == (40, {503: 40})
