"""What the parts of a session share: a submission on its way, a task in flight, and who watches it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import enum
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from finevoice_async.core.failures import Failure, without_advice
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import FAILED, TaskStatus, TaskUpdate
from finevoice_async.core.text import sentence
from finevoice_async.engine.rows import end_of
from finevoice_async.errors import (
    MAX_BODY,
    FineVoiceError,
    InvalidRequestError,
    PollError,
    SessionClosedError,
    SubmitUnknownError,
    TaskFailedError,
    TaskTimeoutError,
)
from finevoice_async.ports import Begun

if TYPE_CHECKING:  # what watches is imported for who has an observer
    from finevoice_async.engine.watching import Watched

News = TaskUpdate | FineVoiceError
"""What a watcher hears: a state of the task, or why it hears no more."""


@attrs.define(eq=False)
class Watcher(ABC):
    """Somebody who wants to hear of a task. Each has one of their own: cancelling it touches nobody else's.

    Attributes:
        record: The task.
        timeout: How long to wait, in seconds; None for ever.
        every: Hear of changes on the way.
        expired: The time is up; the next answer is the last word.
    """

    record: TaskRecord
    timeout: float | None = attrs.field(default=None, kw_only=True)
    every: bool = attrs.field(default=False, kw_only=True)
    expired: bool = attrs.field(default=False, init=False)

    @abstractmethod
    def tell(self, news: News) -> None:
        """Hear the end, or an error, once; with every change of state, too, if `every`."""


@attrs.define(eq=False)
class TaskRecord:
    """A task that was submitted or attached.

    Attributes:
        task_id: The service's id; None only for a result that came without one, which is not polled.
        request: What was asked for, if this session knows it.
        born: When it was submitted (or attached), in seconds of the monotonic clock.
        submitted_at: When it was submitted, in UTC, if this session knows it.
        attached: True if another session submitted it; how long it took teaches nothing.
        slot: Its slot in the plan, until it has ended.
        row_id: Its row in the journal, if there is one.
        id_kept: The row has its id; False if that could not be written.
        key: The caller's own name for the effect.
        saved_as: The file that its result was saved to in an earlier run.
        status: Its state by the last answer.
        end: How it ended, once it has: an update, or the error that every watcher gets a copy of.
        followed: It is in flight here, so that somebody asks for it.
        due: When to ask next, in seconds of the monotonic clock (see `core.polling.agenda`).
        last_age: Its age at the last poll that found it running, in seconds.
        seen: The service has known it, so that one 404 says little.
        missing_since: When the first of the 404s came that have come in a row, in seconds of the monotonic clock.
        unanswered: Polls that failed in a row.
        failures: Those of them that may have reached the service.
        failing_since: When the first of these failed, in seconds of the monotonic clock.
        trouble: Why the last poll failed, if it did.
        linkless: Answers that said done but gave no link.
        watchers: Who wants to hear of it.
        watched: What the observer knows of it.
    """

    task_id: str | None
    request: SfxRequest | None
    born: float
    submitted_at: datetime | None = None
    attached: bool = False
    slot: object | None = None
    row_id: int | None = None
    id_kept: bool = True
    key: str | None = None
    saved_as: str | None = None
    status: TaskStatus = TaskStatus.UNKNOWN
    end: News | None = None
    followed: bool = False
    due: float = float("inf")
    last_age: float = 0.0
    seen: bool = False
    missing_since: float | None = None
    unanswered: int = 0
    failures: int = 0
    failing_since: float = 0.0
    trouble: Failure | None = None
    linkless: int = 0
    watchers: list[Watcher] = attrs.field(factory=list)
    watched: Watched | None = None

    @classmethod
    def of_row(cls, row: JournalRow, *, now: float, utcnow: datetime) -> Self:
        """Return the task of a row that is not queued, as old as it is; if it came to none, its end says why.

        Args:
            row: The row.
            now: The monotonic clock, in seconds.
            utcnow: The date and time.
        """
        since = row.submitted_at or row.updated_at
        record = cls(
            row.task_id,
            row.request,
            now - max((utcnow - since).total_seconds(), 0.0),
            submitted_at=row.submitted_at,
            attached=True,
            row_id=row.id,
            key=row.key,
            saved_as=row.path if row.state is EffectState.SAVED else None,
            seen=row.state is EffectState.SUBMITTED,
        )
        record.status, record.end = end_of(row)
        return record

    @property
    def is_strange(self) -> bool:
        """Whether nobody here knows more of it than its id: attached, without a row."""
        return self.attached and self.row_id is None and self.request is None

    @property
    def duration(self) -> float | None:
        """The length that was asked for: effects that last longer may take longer to make."""
        return None if self.request is None else self.request.duration

    def tell(self, news: News) -> None:
        """Tell every watcher the end, or why it hears no more; each gets a copy of an error."""
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher.tell(copy.copy(news) if isinstance(news, FineVoiceError) else news)

    def error(self, kind: type[FineVoiceError], message: str, update: TaskUpdate | None = None) -> FineVoiceError:
        """Return an error about this task; an update's code and body go with it."""
        error = kind(message, task_id=self.task_id, key=self.key, request=self.request)
        if update is not None:
            error.code, error.body, error.request_id = update.code, _as_text(update.raw), update.request_id
        return error

    def ended_by(self, update: TaskUpdate) -> News:
        """Return what watchers hear of an ended task: the update, or an error if there is no result in it."""
        if update.status is FAILED:
            words = update.reason or "the service gave no reason"
            code = f" (code {update.code})" if update.code else ""
            return self.error(TaskFailedError, sentence(f"Task {self.task_id} failed: {words}{code}"), update)
        if not update.urls:
            what = f"The service says that task {self.task_id} is done, but gives no link. attach(task_id) asks again."
            return self.error(PollError, what, update)
        return update

    def timeout_error(self) -> FineVoiceError:
        """Return the error that tells that the task did not end in time, and why its last poll failed, if it did."""
        trouble, why = self.trouble, ""
        if trouble is not None:
            why = sentence(f" Its last poll failed: {trouble.what}")
        error = self.error(
            TaskTimeoutError,
            f"Task {self.task_id} did not end in time; its state was {self.status.value!r}.{why} It runs on and keeps "
            "its slot; await it again, or attach(task_id) in another session.",
        )
        if trouble is not None:
            error.status, error.code, error.body = trouble.status, trouble.code, trouble.body
            error.request_id, error.retry_after = trouble.request_id, trouble.retry_after
        return error

    def closed_error(self) -> FineVoiceError:
        """Return the error that tells that the session was closed while the task was in flight."""
        return self.error(
            SessionClosedError,
            f"The session was closed. Task {self.task_id} runs on at the service; attach(task_id) waits on.",
        )


def _as_text(raw: Mapping[str, Any]) -> str:
    """Return an answer as JSON. Never fails: it may be nested too deeply to be written, or hold half a character."""
    try:
        text = json.dumps(raw, ensure_ascii=False)
    except (RecursionError, ValueError):
        return "an answer that cannot be shown"
    return text[:MAX_BODY].encode("utf-8", "replace").decode()


class Phase(enum.Enum):
    """How far a submission has come in this session. Its row's state says what would be true after a crash."""

    BEGINNING = "beginning"  # its row is being written or looked up
    FOLLOWED = "followed"  # another session acts for its row
    QUEUED = "queued"  # it waits for a slot
    LAUNCHED = "launched"  # it has a slot; nothing has left yet
    OUT = "out"  # its POST is under way
    HELD = "held"  # certainly not accepted so far; it waits to be sent again
    ANSWERED = "answered"  # what became of it is known and is being noted
    ENDED = "ended"  # its listeners have heard


# What every effect passes, looked up once: on Python 3.11 a look at an enum's member takes as long as two calls.
LAUNCHED: Final = Phase.LAUNCHED
OUT: Final = Phase.OUT
ANSWERED: Final = Phase.ANSWERED
ENDED: Final = Phase.ENDED
_WAITING: Final = (Phase.BEGINNING, Phase.QUEUED)
_OVER: Final = (Phase.ANSWERED, Phase.ENDED)

UNPAID = "Nothing was sent and nothing paid."
STAYS_QUEUED = "Its row stays queued in the journal: recover() sends it later."

Result = TaskRecord | FineVoiceError
"""What becomes of a submission: a task in flight (or ended already), or why there is none."""

Listener = Callable[[Result], None]


class SlotLostError(Exception):
    """A submission may not be sent: its row went on without it. Of a fleet; nobody outside the engine sees it."""


@attrs.define(eq=False)
class Submission:
    """One effect on its way from a wish to a task id, and everybody who waits for that.

    Attributes:
        request: What is asked for.
        key: The caller's own name for it.
        row: Its row in the journal, once written.
        state: What the row says by the last write that was called.
        begun: The row, while it is being written.
        left_behind: An earlier session left its row queued.
        keepers: Calls of `enqueue` that wait for its row, or have promised it.
        seen: How often the service had refused the session's key when it was wished for (see `Gate.refusal`).
        may_be_paid: An earlier POST of it may have been accepted, so it can end as unknown only, unless accepted.
        doubt: The same, if that POST was of this very submission.
        phase: How far it has come.
        slot: Its slot in the plan, from before the POST; then the task has it.
        listeners: Who waits for the result; callers of one key share one submission.
        withdrawn: It was taken back before it was sent.
        launch_watchers: Who wants to know when it has its slot, or has ended.
        result: What became of it, once known.
        note: What tells that this is on disk.
        owner: On whose behalf: waiting submissions take turns by owner.
        made_key: The key was made by this library.
        context: Its first caller's, in which its POST runs: traces of one caller must not carry another's.
        watched: What the observer knows of it.
    """

    request: SfxRequest
    key: str | None = None
    row: JournalRow | None = None
    state: EffectState = EffectState.QUEUED
    begun: asyncio.Future[Begun] | None = None
    left_behind: bool = False
    keepers: int = 0
    seen: int = 0
    may_be_paid: bool = False
    doubt: SubmitUnknownError | None = None
    phase: Phase = Phase.BEGINNING
    slot: object | None = None
    listeners: dict[Listener, None] = attrs.field(factory=dict)  # in order; one key may have thousands
    withdrawn: bool = False
    launch_watchers: tuple[asyncio.Future[None], ...] = ()  # of most there are none
    result: Result | None = None
    note: asyncio.Future[bool] | None = None
    owner: str | None = attrs.field(default=None, kw_only=True)
    made_key: bool = attrs.field(default=False, kw_only=True)
    context: contextvars.Context | None = attrs.field(factory=contextvars.copy_context, init=False)
    watched: Watched | None = attrs.field(default=None, init=False)

    @property
    def outlives(self) -> bool:
        """Whether its row is to outlive this session: if this one cannot send it, it stays queued for a later one."""
        return self.left_behind or (self.keepers > 0 and self.row is not None)

    @property
    def stays_queued(self) -> bool:
        """Whether it comes to nothing here, and its row waits on for somebody to send it."""
        return self.outlives and self.phase in _OVER and self.state is EffectState.QUEUED

    def check_same(self, request: SfxRequest) -> None:
        """Check that a request is the one that its key stands for.

        Raises:
            InvalidRequestError: It is another.
        """
        if request != self.request:
            raise InvalidRequestError(
                f"The key {self.key!r} belongs to another request. Nothing was sent.",
                key=self.key,
                request=request,
            )

    def told(self, error: FineVoiceError) -> FineVoiceError:
        """Return the error with the request, and with what becomes of the row."""
        if self.doubt is not None:
            words = f"{self.doubt.message} It was to be sent again, but: {without_advice(error.message)}"
            twin = SubmitUnknownError(
                words,
                key=self.key,
                request=self.request,
                status=error.status,
                code=error.code,
                body=error.body,
                request_id=error.request_id,
            )
            twin.__cause__ = error
            return twin
        error = copy.copy(error)
        error.request, error.key = self.request, self.key
        if self.may_be_paid:
            error.message, error.paid = without_advice(error.message), None
            error.add_words("An earlier submission of it may have been accepted and paid for: its row stays as it was.")
        elif self.outlives:
            error.add_words(STAYS_QUEUED)
        return error

    @property
    def is_waiting(self) -> bool:
        """Whether it has no slot yet, so that it can be called off."""
        return self.phase in _WAITING

    def launched(self) -> None:
        """Tell whoever waits for the launch; also when it comes to nothing."""
        for watcher in self.launch_watchers:
            if not watcher.done():
                watcher.set_result(None)
        self.launch_watchers = ()

    async def until_begun(self) -> None:
        """Wait until the journal has answered, or is given up. Only while its row is being written or looked up."""
        assert self.begun is not None  # noqa: S101 - the phase says so
        answers: tuple[asyncio.Future[Any], ...] = (self.begun, self._watch_launch())
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)

    async def until_kept(self) -> None:
        """Wait until its row is on disk, if it gets one. What comes of it then is no matter of keeping it.

        Raises:
            FineVoiceError: There is no such row.
        """
        if self.phase is Phase.BEGINNING:
            await self.until_begun()
        if self.begun is not None and self.row is None and isinstance(self.result, FineVoiceError):
            raise copy.copy(self.result)

    async def until_launched(self) -> None:
        """Wait until it has its slot, or has ended and its listeners hear. Not after that."""
        await self._watch_launch()

    def _watch_launch(self) -> asyncio.Future[None]:
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.launch_watchers += (watcher,)
        return watcher


def stay(result: Result) -> None:
    """Listen in the session's own name: what is heard by it is submitted whether anybody else waits or not."""
