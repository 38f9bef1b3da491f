"""`finevoice journal` with `--adopt`, `--discard`, `--resend` and `--prune`: what an owner of the journal does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta

import attrs
import typer

from finevoice_async import FineVoiceSession, InvalidRequestError, JournalRow
from finevoice_async.adapters.loop_clock import LoopClock
from finevoice_async.cli.kept import JournalPlace, Settled, check_exists, settling
from finevoice_async.cli.posting import Interruption, Posting, look_at
from finevoice_async.cli.progress import Waiting, accepting
from finevoice_async.cli.service import connected, host_of
from finevoice_async.cli.talk import command, count, give, give_json
from finevoice_async.core.ledger import MOVES, Move, given_up
from finevoice_async.core.tasks import check_task_id


@attrs.frozen(kw_only=True)
class Settlement:
    """What is to be done.

    Attributes:
        adopt: Rows and the tasks that they are given.
        discard: Rows to give up.
        resend: Rows to send again.
        accept_double_charge: That may be paid for a second time.
        prune: Settled rows that are older are removed.
    """

    adopt: Sequence[tuple[int, str]] = ()
    discard: Sequence[int] = ()
    resend: Sequence[int] = ()
    accept_double_charge: bool = False
    prune: timedelta | None = None

    def __bool__(self) -> bool:
        return bool(self.adopt or self.discard or self.resend or self.accept_double_charge) or self.prune is not None


def parse_adoption(text: str) -> tuple[int, str]:
    """Return the row and the task of `ROW=TASK`.

    Raises:
        typer.BadParameter: It is spelled otherwise.
    """
    row, _, task_id = text.partition("=")
    wrong = f"{text!r} is not ROW=TASK, such as 3=p1-c3d4e5f6."
    if not (row.isascii() and row.isdecimal()) or len(row) > 18:  # SQLite's integers have 19 digits
        raise typer.BadParameter(wrong)
    try:
        return int(row), check_task_id(task_id)
    except InvalidRequestError as error:
        raise typer.BadParameter(f"{wrong} {error}") from None


async def settle(place: JournalPlace, wanted: Settlement, *, base_url: str | None, as_json: bool) -> int:
    """Do it. Only sending again needs the key."""
    if wanted.accept_double_charge and not wanted.resend:
        raise InvalidRequestError("--accept-double-charge goes with --resend ROW. Nothing was sent.")
    if wanted.resend and not wanted.accept_double_charge:
        raise InvalidRequestError(
            "What is sent again may be paid for a second time: give --accept-double-charge, too. Nothing was sent."
        )
    check_exists(place)
    if wanted.adopt or wanted.discard or wanted.prune is not None:
        async with settling(place) as journal:
            for row_id, task_id in wanted.adopt:
                await _move(journal, row_id, Move.ADOPT, task_id=task_id)
                _tell(row_id, "adopted", task_id, as_json=as_json, then=_fetched_by(place))
            for row_id in wanted.discard:
                await _move(journal, row_id, Move.DISCARD)
                _tell(row_id, "discarded", None, as_json=as_json, then="its key is free again")
            if wanted.prune is not None:
                await _prune(journal, wanted.prune, as_json=as_json)
    if wanted.resend:
        await _resend(place, wanted.resend, base_url=base_url, as_json=as_json)
    return 0


async def _move(journal: Settled, row_id: int, move: Move, *, task_id: str | None = None) -> None:
    """Make a move that a person decides on.

    Raises:
        InvalidRequestError: There is no such row, or it is in no state that the move starts from.
        JournalError: It could not be written, or the task belongs to another row.
    """
    row = await journal.row(row_id=row_id)
    if row is None:
        raise InvalidRequestError(f"There is no row {row_id} in the journal. It was not changed.")
    if row.state in MOVES[move][0] and (found := await journal.whose(row_id)) is not None and found.elsewhere:
        raise InvalidRequestError(f"Row {row_id} is being submitted, by a session that runs. It was not changed.")
    why = given_up(row) if move is Move.DISCARD else None
    if not await journal.move(row_id, move, task_id=task_id, error=why):
        states = " or ".join(sorted(state.value for state in MOVES[move][0]))
        raise InvalidRequestError(
            f"Row {row_id} is {row.state.value}: only what is {states} can be settled so. It was not changed."
        )


async def _prune(journal: Settled, age: timedelta, *, as_json: bool) -> None:
    pruned = await journal.prune(LoopClock().utcnow() - age)
    if as_json:
        give_json({"pruned": pruned})
    else:
        kept = " Their keys are free: with one of them, an effect is paid for anew." if pruned else ""
        give(f"{count(pruned, 'row')} removed: saved, refused or failed, and unchanged for that long.{kept}")


async def _resend(place: JournalPlace, row_ids: Sequence[int], *, base_url: str | None, as_json: bool) -> None:
    """Send rows again, one after another."""
    posting: Posting | None = None
    sent: list[str] = []
    host = host_of(base_url)
    try:
        async with connected(base_url=base_url, journal=place) as session:
            for row in await _rows(session, row_ids):
                posting = Posting(session, session.resubmit(row, accept_double_charge=True))
                try:
                    async with nullcontext() if as_json else Waiting(accepting(host), line=f"Waiting for {host}."):
                        task = await posting.known()
                except asyncio.CancelledError:
                    await posting.close()
                    raise
                sent += [] if task.id is None else [task.id]
                _tell(row.id, "sent again", task.id, as_json=as_json, then=_fetched_by(place))
    except asyncio.CancelledError:
        in_doubt = posting is not None and posting.is_in_doubt
        known = None if posting is None or posting.task is None else posting.task.id
        sent += [known] if known is not None and known not in sent else []
        advice, again = "Go on with:", command("resume", str(place))
        if in_doubt:
            advice, again = "Its row is kept. See it, and settle it, with:", look_at(place)
        told = Interruption(emulated=False, running=sent, in_doubt=int(in_doubt), advice=advice, again=again)
        told.tell(as_json=as_json)
        raise


async def _rows(session: FineVoiceSession, row_ids: Sequence[int]) -> list[JournalRow]:
    """Return the rows that can be sent again, in the order in which they were named.

    Raises:
        InvalidRequestError: One of them cannot.
    """
    found = {row.id: row for row in await session.unknown()}
    for row_id in row_ids:
        if row_id not in found:
            raise InvalidRequestError(
                f"Row {row_id} is not among those that are perhaps paid and can be sent again. Nothing was sent."
            )
    return [found[row_id] for row_id in dict.fromkeys(row_ids)]


def _fetched_by(place: JournalPlace) -> str:
    return f"{command('resume', str(place))} fetches it"


def _tell(row_id: int, done: str, task_id: str | None, *, as_json: bool, then: str) -> None:
    if as_json:
        give_json({"row": row_id, "done": done, "task_id": task_id})
    else:
        task = "" if task_id is None else f" as task {task_id}"
        give(f"Row {row_id} {done}{task}; {then}.")
