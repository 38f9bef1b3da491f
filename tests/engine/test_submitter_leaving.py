"""Listeners come and go: with the last one goes what is not being sent; whoever joins in time is served."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from fake_journal import FakeJournal
from fakes import AWAY, FINISHED, Answer, FakeSlots, FakeTransport, says
from parts import RAIN, WIND, Ear, assemble, turns

from finevoice_async.config import Retry
from finevoice_async.core.ledger import EffectState, Move
from finevoice_async.engine.records import Phase, Submission, TaskRecord
from finevoice_async.errors import RequestRejectedError, SubmitUnknownError

QUEUED, SENDING, SUBMITTED, DONE, SAVED, REFUSED, UNKNOWN, FAILED, GONE = EffectState


class Scene:
    """Parts in which one submission, under a key, has come as far as the test wants it."""

    def __init__(self, phase: Phase, row: EffectState | None = None, *, answers: Sequence[Answer] = ()) -> None:
        self.phase = phase
        self.row = row
        self.ear = Ear()
        self.journal = FakeJournal()
        self.slots = FakeSlots()
        self.transport = FakeTransport(
            *([AWAY] if phase is Phase.HELD else answers), latency=0.0 if phase is Phase.HELD else 1.0
        )
        self.parts = assemble(
            self.transport, slots=self.slots, journal=self.journal, retry=Retry(first_delay=40, max_delay=40)
        )
        self.submission: Submission

    async def __aenter__(self) -> Scene:
        await self.parts.__aenter__()
        if self.phase is Phase.BEGINNING:
            self.journal.delays[QUEUED] = 5
        elif self.phase is Phase.QUEUED:
            self.slots.held = True
        elif self.phase is Phase.LAUNCHED:
            self.journal.delays[Move.SEND] = 5
        if self.row is None:
            self.submission = self.parts.submitter.submit(RAIN, "k", self.ear)
        else:
            row = self.journal.leave(self.row, key="k")
            self.submission = self.parts.submitter.submit_row(row, self.ear, resend=self.row is UNKNOWN)
        await asyncio.sleep(0.5)
        assert self.submission.phase is self.phase
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.parts.__aexit__(None, None, None)

    def leave(self) -> None:
        """Let the listener go."""
        self.parts.submitter.leave(self.submission, self.ear)

    async def goes_on(self) -> None:
        """Let all that can happen happen."""
        self.slots.let_go()
        await asyncio.sleep(100)


LEAVABLE = pytest.mark.parametrize("phase", [Phase.BEGINNING, Phase.QUEUED, Phase.HELD])
SENT = pytest.mark.parametrize("phase", [Phase.LAUNCHED, Phase.OUT])


@LEAVABLE
async def test_the_last_one_leaves(phase: Phase) -> None:
    """What nobody waits for any more is not sent (again), now or later; the key is free; the leaver hears nothing."""
    async with Scene(phase) as scene:
        posts = len(scene.transport.posts)
        scene.leave()
        await scene.goes_on()
        assert len(scene.transport.posts) == posts
        assert scene.journal.states == [REFUSED]
        assert scene.ear.heard == []
        assert not scene.slots.out
        assert (await scene.parts.submit(WIND, "k")).task_id == "t1"


@SENT
async def test_the_last_one_leaves_what_is_being_sent(phase: Phase, caplog: pytest.LogCaptureFixture) -> None:
    """A POST that is under way goes on, and its id is kept for nobody."""
    async with Scene(phase) as scene:
        scene.leave()
        await scene.goes_on()
        assert scene.journal.states == [SUBMITTED]
        assert list(scene.parts.inflight.tasks) == ["t1"]
        assert scene.ear.heard == []
        assert "although its caller was cancelled" in caplog.text


@pytest.mark.parametrize(("row", "end"), [(None, REFUSED), (QUEUED, QUEUED), (UNKNOWN, UNKNOWN)])
async def test_what_nobody_waits_for_is_not_sent_again(row: EffectState | None, end: EffectState) -> None:
    """A POST that turns out not to have been sent when its last listener has left is not repeated."""
    async with Scene(Phase.OUT, row, answers=[AWAY]) as scene:
        scene.leave()
        await asyncio.sleep(2)
        assert scene.journal.states == [end]
        assert not scene.slots.out
        await scene.goes_on()
        assert len(scene.transport.posts) == 1
        assert not scene.parts.submitter.is_under_way(scene.journal.contents[1])


@pytest.mark.parametrize("phase", [Phase.BEGINNING, Phase.QUEUED, Phase.LAUNCHED, Phase.OUT, Phase.HELD])
async def test_one_of_two_leaves(phase: Phase) -> None:
    """As long as somebody waits, it is sent; and only who stayed hears."""
    async with Scene(phase) as scene:
        other = Ear()
        assert scene.parts.submitter.submit(RAIN, "k", other) is scene.submission
        scene.leave()
        scene.leave()
        await scene.goes_on()
        assert isinstance(other.only, TaskRecord)
        assert scene.ear.heard == []
        assert scene.journal.states == [SUBMITTED]


@pytest.mark.parametrize(
    ("phase", "turns_between"),
    [
        (phase, turns)
        for phase in (Phase.BEGINNING, Phase.QUEUED, Phase.LAUNCHED, Phase.OUT, Phase.HELD)
        for turns in (0, 1, 2, 5)
    ],
)
async def test_somebody_comes_after_the_last_one_left(phase: Phase, turns_between: int) -> None:
    """Whoever asks for the key anew, however soon, gets a task: of the same submission, or of one of their own."""
    async with Scene(phase) as scene:
        scene.leave()
        await turns(turns_between)
        other = Ear()
        scene.parts.submitter.submit(RAIN, "k", other)
        await scene.goes_on()
        assert isinstance(other.only, TaskRecord)
        assert scene.ear.heard == []
        assert scene.journal.states == [SUBMITTED]
        assert len(scene.transport.posts) == (2 if phase is Phase.HELD else 1)


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.HELD])
@pytest.mark.parametrize("row", [QUEUED, UNKNOWN])
async def test_rows_of_an_earlier_process_are_left(phase: Phase, row: EffectState) -> None:
    """What an earlier process wished for stays queued, and what may be paid for stays unknown."""
    async with Scene(phase, row) as scene:
        posts = len(scene.transport.posts)
        scene.leave()
        await scene.goes_on()
        assert scene.journal.states == [row]
        assert len(scene.transport.posts) == posts
        assert not scene.parts.submitter.is_under_way(scene.journal.contents[1])


async def test_left_while_it_is_noted_that_it_is_sent_again() -> None:
    """A row that may be paid for is unknown again, and can be settled, when its second POST is called off."""
    async with Scene(Phase.HELD, UNKNOWN) as scene:
        scene.journal.delays[Move.RESEND] = 5
        await asyncio.sleep(21)  # the wait is over, and the next POST is being noted
        assert scene.journal.states == [SENDING]
        scene.leave()
        await scene.goes_on()
        assert len(scene.transport.posts) == 1
        assert scene.journal.states == [UNKNOWN]


@pytest.mark.parametrize("seconds", [0.0, 0.5])
async def test_a_cancelled_caller_leaves(seconds: float) -> None:
    """Cancelled, a caller leaves their submission, and hears of the cancellation only."""
    slots, journal = FakeSlots(), FakeJournal()
    slots.held = True
    async with assemble(slots=slots, journal=journal) as parts:
        job = parts.start(RAIN, "k")
        await asyncio.sleep(seconds)
        job.cancel()
        await asyncio.wait([job])
        assert job.cancelled()
        slots.let_go()
        await asyncio.sleep(5)
        assert parts.transport.posts == []
        assert set(journal.states) <= {REFUSED}


@pytest.mark.parametrize("count", range(6))
async def test_cancelled_as_the_slot_comes(count: int) -> None:
    """A slot that comes in the very steps of the cancellation is given back, or goes with the task that it was for."""
    slots = FakeSlots(1)
    slots.held = True
    async with assemble(slots=slots) as parts:
        job = parts.start()
        await asyncio.sleep(1)
        slots.let_go()
        await turns(count)
        job.cancel()
        await asyncio.wait([job])
        await asyncio.sleep(1)
        assert {record.slot for record in parts.inflight.tasks.values()} == slots.out
        parts.transport.tasks["t1"] = FINISHED
        await parts.submit()


async def test_cancelled_in_the_step_of_the_answer() -> None:
    """A result that came in the very step of the cancellation does no harm: the task is followed."""
    transport = FakeTransport(latency=1.0)
    async with assemble(transport) as parts:
        job = parts.start()
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(1.0, job.cancel)
        await asyncio.wait([job])
        await asyncio.sleep(1)
        assert list(parts.inflight.tasks) == ["t1"]


async def test_what_another_leaves_behind_is_not_in_the_way() -> None:
    """Listeners of submissions that have ended, or strangers, leave nothing."""
    async with Scene(Phase.OUT) as scene:
        scene.parts.submitter.leave(scene.submission, Ear())
        await scene.goes_on()
        scene.leave()
        assert isinstance(scene.ear.only, TaskRecord)


async def test_a_doubt_is_told_to_who_stays() -> None:
    """One of two leaves a resubmission that is refused then: the other hears of the doubt."""
    async with Scene(Phase.QUEUED, UNKNOWN) as scene:
        scene.transport.on_post.append(says(422))
        other = Ear()
        scene.parts.submitter.submit(scene.submission.request, "k", other)
        scene.leave()
        await scene.goes_on()
        assert isinstance(other.only, SubmitUnknownError)
        assert isinstance(other.only.__cause__, RequestRejectedError)
        assert scene.journal.states == [UNKNOWN]
