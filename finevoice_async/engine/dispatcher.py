"""From the queue to the service: who gets a free slot, and the POSTs under way.

What waits costs no coroutine of its own. A POST runs in a task that the session owns, so the task id that it brings is
kept whether anybody still waits or not.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable

from finevoice_async.core.failures import Failure
from finevoice_async.engine.endings import Endings
from finevoice_async.engine.gate import Gate
from finevoice_async.engine.records import LAUNCHED, UNPAID, Phase, Result, SlotLostError, Submission
from finevoice_async.engine.sender import Sender
from finevoice_async.engine.slot_queue import SlotQueue
from finevoice_async.errors import FineVoiceError, SubmitNotSentError
from finevoice_async.ports import Slots

log = logging.getLogger("finevoice_async")


class Dispatcher:
    """Matches submissions that wait with slots, and owns their POSTs."""

    def __init__(self, sender: Sender, queue: SlotQueue, endings: Endings, *, gate: Gate, slots: Slots) -> None:
        self._sender = sender
        self._queue = queue
        self._endings = endings
        self._gate = gate
        self._slots = slots
        self._nobodys = contextvars.Context()  # empty: what is done in it is done for nobody
        # All mutable state:
        self.posts: dict[asyncio.Task[None], Submission] = {}
        self._coroutine: asyncio.Task[None] | None = None  # made when a slot must be waited for
        self._idle: asyncio.Future[None] | None = None  # what it sleeps on when there is nothing to do
        self._held_back = False  # somebody waits because as many POSTs are under way as may be
        self.on_lost: Callable[[Submission], None] | None = None  # hears of submissions whose rows went on elsewhere
        self._closed = False
        gate.on_refusal(self._send_home)

    def __repr__(self) -> str:
        return f"<Dispatcher: {self._queue.count} waiting, {len(self.posts)} submitting>"

    @property
    def jobs(self) -> list[asyncio.Task[None]]:
        """What runs, and must end before the session has closed."""
        return [*self.posts] if self._coroutine is None else [*self.posts, self._coroutine]

    def enqueue(self, submission: Submission) -> None:
        """Let a submission wait for a slot, or go at once if one is free."""
        refusal = self._gate.refusal(submission.seen)
        if refusal is not None:
            self._endings.retire(submission, self._sender.turned_away(refusal, submission))
            return
        self._queue.add(submission)
        self._pump()

    def may_launch(self, submission: Submission) -> bool:
        """Tell whether it could leave now, had it a slot."""
        gate = self._gate
        return not self._queue.count and gate.lets_out(len(self.posts)) and submission.seen == gate.refusals

    def launch(self, submission: Submission, slot: object) -> None:
        """Launch what has its slot already."""
        self._launch(submission, slot)

    def launch_at_once(self, submission: Submission) -> bool:
        """Launch it, if a slot is free and nobody waits. It has no row yet: its first one will say SENDING.

        True also if slots of the caller's own failed, and it has ended.
        """
        gate = self._gate
        if self._queue.count or not gate.lets_out(len(self.posts)) or submission.seen != gate.refusals:
            return False
        try:
            slot = self._slots.try_acquire()
        except FineVoiceError as error:
            self._endings.retire(submission, error)
            return True
        if slot is None:
            return False
        self._launch(submission, slot)
        return True

    def _pump(self) -> None:
        """Launch what can be launched now, and have the coroutine wait for the rest's slots."""
        while self._queue.count and not self._gate.is_full(len(self.posts)):
            try:
                matched = self._queue.match()
            except FineVoiceError as error:
                self._fail_first(error)
                continue
            if matched is None:
                break
            self._launch(*matched)
        self._held_back = self._queue.count > 0 and self._gate.is_full(len(self.posts))
        if not self._queue.count or self._held_back or self._closed:
            return
        if self._coroutine is None:
            self._coroutine = asyncio.create_task(self._dispatch(), name="finevoice-dispatcher", context=self._nobodys)
            self._coroutine.add_done_callback(self._dispatched)
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _dispatch(self) -> None:
        """Wait for slots, one after another, while submissions queue up."""
        while True:
            self._held_back = self._queue.count > 0 and self._gate.is_full(len(self.posts))
            if not self._queue.count or self._held_back:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
                continue
            try:
                matched = await self._queue.wait()
            except FineVoiceError as error:
                self._fail_first(error)
            else:
                if matched is not None:
                    self._launch(*matched)

    def _dispatched(self, dispatcher: asyncio.Task[None]) -> None:
        """The coroutine ended: at closing, or by a fault from outside; then those who wait must hear."""
        self._coroutine = None
        if not self._closed:
            reason = "cancelled" if dispatcher.cancelled() else repr(dispatcher.exception())
            log.error("what hands out slots ended (%s); who waited for one was told", reason)
        while self._queue.count and not self._closed:
            self._fail_first(SubmitNotSentError(f"The wait for a slot was ended from outside. {UNPAID}"))

    def _fail_first(self, error: FineVoiceError) -> None:
        submission = self._queue.first()
        if submission is not None:
            self._endings.retire(submission, error)

    def _send_home(self, refusal: Failure) -> None:
        """The service refuses all of this key's: who waits for a slot need not ask."""
        for submission in self._queue.all():
            self._endings.retire(submission, self._sender.turned_away(refusal, submission))

    # The POSTs

    def _launch(self, submission: Submission, slot: object) -> None:
        """Start the POST, in a task which owns the slot from here on."""
        submission.slot = slot
        submission.phase = LAUNCHED
        post = asyncio.create_task(self._post(submission), context=submission.context)
        submission.context = None
        self.posts[post] = submission
        post.add_done_callback(self._posted, context=self._nobodys)  # it may launch another's
        if submission.launch_watchers:
            submission.launched()

    def _posted(self, post: asyncio.Task[None]) -> None:
        submission = self.posts.pop(post)
        if submission.phase is LAUNCHED:  # cancelled before it began
            self._endings.cut_off(submission)
        if self._held_back:  # by POSTs, not by slots: those are what the coroutine waits for
            self._pump()

    async def _post(self, submission: Submission) -> None:
        result: Result
        try:
            result = await self._sender.send(submission)
        except asyncio.CancelledError:
            self._endings.cut_off(submission)
            raise
        except SlotLostError:
            self._endings.release(submission)
            if self.on_lost is not None:  # as always where rows can be lost
                self.on_lost(submission)
            return
        except FineVoiceError as error:
            if submission.phase in (Phase.LAUNCHED, Phase.HELD):  # the journal failed before it could be sent
                self._endings.release(submission)
                self._endings.retire(submission, error)
                return
            result = error
        except Exception as error:
            log.exception("an unexpected error in a submission")
            try:
                result = await self._sender.stopped_by(submission, error)
            except asyncio.CancelledError:
                self._endings.cut_off(submission)
                raise
        self._endings.release(submission)
        self._endings.finish(submission, result)

    def call_back(self, submission: Submission, error: FineVoiceError) -> None:
        """End a submission that has not been sent, or is held to be sent again."""
        is_held = submission.phase is Phase.HELD
        self._endings.release(submission)
        self._endings.retire(submission, error)
        if is_held:
            next(post for post, held in self.posts.items() if held is submission).cancel()

    # Closing

    def close(self) -> None:
        """Launch nothing more; what is held is called off."""
        self._closed = True
        self._gate.close()
        if self._coroutine is not None:
            self._coroutine.cancel()
        for post, submission in self.posts.items():
            if submission.phase is Phase.HELD:
                post.cancel()

    async def settle(self, timeout: float) -> None:
        """Give the POSTs under way `timeout` seconds, then cut them off."""
        if self.posts:
            await asyncio.wait(self.posts, timeout=timeout)
        for post in self.posts:
            post.cancel()
