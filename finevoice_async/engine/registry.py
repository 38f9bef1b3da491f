"""Which effects this session is submitting right now, by key and by row."""

from __future__ import annotations

from finevoice_async.core.ledger import JournalRow
from finevoice_async.engine.records import Submission


class Registry:
    """Finds the submission of a key or a row, so that nobody begins a second one beside it."""

    def __init__(self) -> None:
        # All mutable state:
        self._by_key: dict[str, Submission] = {}  # from the first look at the journal to the result
        self._by_row: dict[int, Submission] = {}  # from the moment when the row is known

    def find(self, key: str) -> Submission | None:
        """Return the submission of a key."""
        return self._by_key.get(key)

    def holds(self, row: JournalRow) -> bool:
        """Tell whether a row is being submitted, or its key is being looked up to do so."""
        return row.id in self._by_row or (row.key is not None and row.key in self._by_key)

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
