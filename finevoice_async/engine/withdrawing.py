"""Taking an effect back before it is sent, for everybody who waits for it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

from finevoice_async.core.ledger import JournalRow
from finevoice_async.engine.dispatcher import Dispatcher
from finevoice_async.engine.records import UNPAID, Phase, Submission
from finevoice_async.engine.registry import Registry
from finevoice_async.errors import FineVoiceError, SessionClosedError, SubmitNotSentError


class Withdrawing(ABC):
    """The part of `Submitter` that withdraws."""

    _registry: Registry
    _dispatcher: Dispatcher

    @abstractmethod
    def _check_open(self, row: JournalRow | None = None) -> None:
        """Check that something may be begun."""

    async def withdraw(self, submission: Submission) -> bool:
        """Take a submission back for everybody who waits for it, and return whether that was still possible.

        Raises:
            SessionClosedError: The session was closed; its row stays queued.
            FineVoiceError: The journal could not note it, so that it may be sent later.
        """
        if submission.phase in (Phase.QUEUED, Phase.HELD) and not submission.may_be_paid:
            submission.withdrawn = True
            submission.left_behind, submission.keepers = False, 0  # else its row would stay queued
            error = SubmitNotSentError(f"It was withdrawn. {UNPAID}")
            error.take_back()
            self._dispatcher.call_back(submission, error)
        if not submission.withdrawn:
            if isinstance(submission.result, SessionClosedError) and submission.outlives:
                raise copy.copy(submission.result)
            # What came to nothing here, a later session would send.
            return submission.stays_queued and submission.row is not None and await self.withdraw_row(submission.row)
        if submission.phase is not Phase.ENDED:
            await submission.until_launched()
        note, result = submission.note, submission.result
        if note is None:
            return True
        if isinstance(result, FineVoiceError) and (not note.done() or note.cancelled() or note.exception()):
            raise copy.copy(result)
        return note.result()

    async def withdraw_row(self, row: JournalRow) -> bool:
        """The same for a row that waits in the journal."""
        known = await self._of_row(row)
        if known is None:
            self._check_open(row)
            known = Submission(row.request, row.key, row, row.state, phase=Phase.QUEUED)
            self._registry.add(known)
        return await self.withdraw(known)

    async def _of_row(self, row: JournalRow) -> Submission | None:
        """Return the submission of a row, once it is known that it is this row's, and that it is not being given up."""
        while (known := self._registry.of_row(row)) is not None:
            if known.phase is Phase.BEGINNING:
                await known.until_begun()
            elif known.stays_queued:
                await known.until_launched()
            else:
                break
        return known
