"""A submission's POST in a fleet: its row may go on without it."""

from __future__ import annotations

from finevoice_async.core.ledger import EffectState
from finevoice_async.engine.fleet.books import SharedBookkeeper
from finevoice_async.engine.gate import Place
from finevoice_async.engine.inflight import InFlight
from finevoice_async.engine.records import SlotLostError, Submission, TaskRecord
from finevoice_async.engine.sender import Sender
from finevoice_async.shared_ports import RowSlots


class SharedSender(Sender):
    """Sends submissions whose rows have a slot."""

    async def _turn(self, submission: Submission, place: Place, *, again: bool) -> bool:
        if submission.state is EffectState.SENDING:  # as it began: a crash would make it unknown
            await self._bookkeeper.held(submission, "the service cannot take it now")
        return await super()._turn(submission, place, again=again)

    async def _read_anew(self, submission: Submission) -> TaskRecord:  # noqa: ARG002 - its row says it all
        """Its session was taken for dead, or somebody withdrew it: what becomes of it is found out without a slot."""
        raise SlotLostError


class SharedInFlight(InFlight):
    """Owns the tasks of this session that are not known to have ended; their slots are those of their rows."""

    def __init__(self, slots: RowSlots, bookkeeper: SharedBookkeeper) -> None:
        super().__init__(slots, bookkeeper)
        self._row_slots = slots
        self._shared_books = bookkeeper

    def hold_slot(self, record: TaskRecord) -> None:
        """See to it that a task that runs at the service has a slot: its row's, or one of its own."""
        if record.slot is None and self._broken is None:
            record.slot = self._row_slots.occupy(row_id=record.row_id, task_id=record.task_id)

    def break_down(self, why: str) -> None:
        """The poller died: every watcher hears, and other sessions may follow the tasks."""
        super().break_down(why)
        self._shared_books.give_away()
