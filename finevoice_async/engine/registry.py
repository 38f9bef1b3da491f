"""Which effects this session is submitting, by key and by row; without a journal, also what became of keys."""

from __future__ import annotations

from finevoice_async.core.ledger import JournalRow
from finevoice_async.engine.records import Submission

MADE_KEYS = 10_000
"""Settled submissions that are kept by a key which this library made: as many as may wait. Each costs about 1 KB."""


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

    def find(self, key: str) -> Submission | None:
        """Return the submission of a key."""
        return self._by_key.get(key)

    def of_row(self, row: JournalRow) -> Submission | None:
        """Return the submission of a row."""
        return self._by_row.get(row.id) or (None if row.key is None else self._by_key.get(row.key))

    def settled(self, key: str) -> Submission | None:
        """Return the last submission of a key that has a result, if this session keeps that itself."""
        return self._settled.get(key) or self._settled_made.get(key)

    def holds(self, row: JournalRow) -> bool:
        """Tell whether a row is being submitted, or its key is being looked up to do so."""
        return self.of_row(row) is not None

    def add(self, submission: Submission) -> None:
        """Note a submission; again once its row is known."""
        if submission.key is not None:
            self._by_key[submission.key] = submission
        if submission.row is not None:
            self._by_row[submission.row.id] = submission

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
        """Forget a submission that has its result; remember that by its key, if that is this session's to do."""
        self.discard(submission)
        if submission.key is None or not self._remembers:
            return
        kept = self._settled_made if submission.made_key else self._settled
        kept[submission.key] = submission
        if len(self._settled_made) > MADE_KEYS:
            del self._settled_made[next(iter(self._settled_made))]
