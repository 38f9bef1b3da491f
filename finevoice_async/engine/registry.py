"""Which effects this session is submitting, by key and by row; without a journal, also what became of keys."""

from __future__ import annotations

import copy
from weakref import WeakValueDictionary

import attrs

from finevoice_async.core.ledger import JournalRow
from finevoice_async.core.requests import SfxRequest
from finevoice_async.engine.records import Submission, TaskRecord
from finevoice_async.errors import FineVoiceError, SubmitUnknownError, TaskFailedError

MADE_KEYS = 10_000
"""Settled submissions that are kept by a key which this library made: as many as may wait. Each costs about 1 KB."""


@attrs.define(eq=False)
class FoundRow:
    """A row that waits in the journal, as handles on it share it.

    Attributes:
        row: The row.
        submission: Who has taken it up last in this session.
    """

    row: JournalRow
    submission: Submission | None = None


class Registry:
    """Finds the submission of a key or a row, so that nobody begins a second one beside it."""

    def __init__(self, *, remembers: bool) -> None:
        """Set it up.

        Args:
            remembers: Keep what became of keys: no journal does.
        """
        self._remembers = remembers
        # All mutable state:
        self._by_key: dict[str, Submission] = {}  # from the first look at the journal to the result
        self._by_row: dict[int, Submission] = {}  # from the moment when the row is known
        self._settled: dict[str, Submission] = {}  # with a result, by the callers' keys
        self._settled_made: dict[str, Submission] = {}  # the same by keys that were made; the oldest leave
        self._found: WeakValueDictionary[int, FoundRow] = WeakValueDictionary()  # rows that handles are on

    def find(self, key: str) -> Submission | None:
        """Return the submission of a key."""
        return self._by_key.get(key)

    def of_row(self, row: JournalRow) -> Submission | None:
        """Return the submission of a row."""
        return self._by_row.get(row.id) or (None if row.key is None else self._by_key.get(row.key))

    def settled(self, key: str) -> Submission | None:
        """Return the last submission of a key that has a result, if this session keeps that itself."""
        return self._settled.get(key) or self._settled_made.get(key)

    def settled_task(self, task_id: str | None) -> Submission | None:
        """Return the submission that came to a task, by the same rule. Rare, so it is looked for among all."""
        settled = [*self._settled.values(), *self._settled_made.values()]
        return next((each for each in settled if each.result and each.result.task_id == task_id), None)

    def remembered(self, key: str, request: SfxRequest, *, retry_failed: bool) -> TaskRecord | None:
        """Return the task that a key has already, by the same rule; None if it is to begin anew.

        Raises:
            InvalidRequestError: The key belongs to another request.
            SubmitUnknownError: An earlier submission of the key may have been paid for.
        """
        known = self.settled(key)
        result = None if known is None else known.result
        if known is None or not isinstance(result, TaskRecord | SubmitUnknownError):
            return None
        if isinstance(result, TaskRecord) and isinstance(result.end, TaskFailedError) and retry_failed:
            return None
        known.check_same(request)
        if isinstance(result, SubmitUnknownError):
            raise copy.copy(result)
        return result

    def found(self, row: JournalRow) -> FoundRow:
        """Return what all handles on a row share that waits in the journal."""
        found = self._found.get(row.id)
        if found is None:
            found = self._found[row.id] = FoundRow(row, self._by_row.get(row.id))
        return found

    def holds(self, row: JournalRow) -> bool:
        """Tell whether a row is being submitted, or its key is being looked up to do so."""
        return self.of_row(row) is not None

    def add(self, submission: Submission) -> None:
        """Note a submission; again once its row is known."""
        if submission.key is not None:
            self._by_key[submission.key] = submission
        if submission.row is not None:
            self._by_row[submission.row.id] = submission
            if (found := self._found.get(submission.row.id)) is not None:
                found.submission = submission

    def free_key(self, submission: Submission) -> None:
        """Let the next caller of its key begin anew, once its last write was called: theirs comes after it."""
        if submission.key is not None and self._by_key.get(submission.key) is submission:
            del self._by_key[submission.key]

    def discard(self, submission: Submission) -> None:
        """Forget it, once its last write is done: until then, whoever reads its row reads what is past. Idempotent."""
        self.free_key(submission)
        if submission.row is not None and self._by_row.get(submission.row.id) is submission:
            del self._by_row[submission.row.id]

    def settle(self, submission: Submission) -> None:
        """Forget a submission that has its result; remember that by its key, if that is this session's to do.

        A new try that came to nothing leaves what failed before it: the next one needs a consent of its own.
        """
        self.discard(submission)
        if submission.key is None or not self._remembers:
            return
        before, result = self.settled(submission.key), submission.result
        if (
            isinstance(result, FineVoiceError)
            and not isinstance(result, SubmitUnknownError)
            and result.task_id is None
            and before is not None
            and isinstance(before.result, TaskRecord)
        ):
            return
        kept = self._settled_made if submission.made_key else self._settled
        kept[submission.key] = submission
        if len(self._settled_made) > MADE_KEYS:
            del self._settled_made[next(iter(self._settled_made))]
