"""What is to be done for a manifest: pure, from its rows, and what lock, journal and folder say of them.

A row wants so many takes of its request. Takes that were made for that request count, wherever they stand; takes
for an earlier request never do, and stay. So a row of which there are only earlier ones has *changed*: it is paid for
where the caller says so. Once one take of the new request has begun, the caller has said so.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

from finevoice_async.batch.lock import LockRecord
from finevoice_async.batch.manifest import Manifest
from finevoice_async.batch.rows import ManifestRow, journal_key
from finevoice_async.batch.templates import stem_of_file
from finevoice_async.core.ledger import MAY_BE_PAID, EffectState
from finevoice_async.core.requests import SfxRequest
from finevoice_async.reprs import with_safe_repr


class PlanState(enum.Enum):
    """How a sound stands."""

    NEW = "new"  # to be paid for
    CHANGED = "changed"  # its request changed since it was made: paid for with `remake`
    DONE = "done"  # its file is there, and is what the lock says
    MISSING = "missing"  # it was made, its file is not there: fetched, not paid for
    UNSAVED = "unsaved"  # it is paid for, and being made or not fetched yet
    UNKNOWN = "perhaps paid"  # only a person can settle it
    FAILED = "failed"  # the service could not make it: paid for again with `retry_failed`
    EDITED = "edited"  # a file is in its place that is not what the lock says: kept, nothing is paid
    ORPHANED = "orphaned"  # the manifest does not name it any more


IN_DOUBT: Final = (EffectState.SENDING, *MAY_BE_PAID)
FREE: Final = (EffectState.QUEUED, EffectState.REFUSED)
"""Rows of the journal that certainly were not accepted: their keys may be used for whatever is wanted now."""

_PAID: Final = (EffectState.SUBMITTED, EffectState.DONE)


@attrs.frozen(kw_only=True)
class JournalTake:
    """What the journal says of a take.

    Attributes:
        state: How far it has come.
        request: The hash of what was asked for.
        task_id: The service's id.
        same: What was asked for, to the letter; only of what waits, where it matters.
    """

    state: EffectState
    request: str
    task_id: str | None = None
    same: SfxRequest | None = None


@attrs.define(kw_only=True)
class Known:
    """What is known of one take.

    Attributes:
        record: What the lock says, or would say of what the journal has saved.
        sha256: The hash of the file that the record names, None if it is not there.
        row: What the journal says.
    """

    record: LockRecord | None = None
    sha256: str | None = None
    row: JournalTake | None = None


@with_safe_repr
@attrs.frozen(kw_only=True)
class PlanEntry:
    """One sound of the plan.

    Attributes:
        state: How it stands.
        key: The row's key.
        take: Which take of it.
        stem: Where its file goes, below the folder, without its suffix.
        row: The manifest's row; None of what is orphaned.
        request_hash: What it is, or was, made for, as the lock tells it.
        file: The file that is concerned, if there is one.
        task_id: The service's id, once known.
        record: What the lock says of it.
        note: What a person should know.
        frees: The journal holds another wish under its key that was never sent, and that has to go.
        retries: The journal holds a failure under its key.
    """

    state: PlanState
    key: str
    take: int
    stem: str
    row: ManifestRow | None = None
    request_hash: str = ""
    file: str | None = None
    task_id: str | None = None
    record: LockRecord | None = None
    note: str | None = None
    frees: bool = False
    retries: bool = False

    @property
    def journal_key(self) -> str:
        """What it is called in the journal."""
        return journal_key(self.key, self.take)

    @property
    def request(self) -> SfxRequest | None:
        """What is asked for."""
        return None if self.row is None else self.row.request


@attrs.frozen
class Plan:
    """All sounds of a manifest, in its order; behind them what is orphaned.

    Attributes:
        entries: The sounds.
    """

    entries: list[PlanEntry]

    @property
    def counts(self) -> dict[PlanState, int]:
        """How many stand how."""
        counts = Counter(entry.state for entry in self.entries)
        return {state: counts[state] for state in PlanState}

    def to_pay(self, *, remake: bool = False, retry_failed: bool = False) -> list[PlanEntry]:
        """Return what would be paid for."""
        return [entry for entry in self.entries if pays(entry, remake=remake, retry_failed=retry_failed)]

    def to_fetch(self) -> list[PlanEntry]:
        """Return what is paid for already and has to be fetched."""
        return [entry for entry in self.entries if entry.state in (PlanState.UNSAVED, PlanState.MISSING)]


def pays(entry: PlanEntry, *, remake: bool, retry_failed: bool) -> bool:
    """Tell whether a sound would be paid for."""
    return (
        entry.state is PlanState.NEW
        or (remake and entry.state is PlanState.CHANGED)
        or (retry_failed and entry.state is PlanState.FAILED)
    )


def make_plan(
    manifest: Manifest,
    known: Mapping[str, Mapping[int, Known]],
    holds: Callable[[str], str | None],
    *,
    want_silent: int = 0,
) -> Plan:
    """Plan a manifest.

    Args:
        manifest: The rows.
        known: For each key its takes by number.
        holds: Tells which file lies at a stem already.
        want_silent: How many more takes a sound gets in place of silent ones, at most.
    """
    entries: list[PlanEntry] = []
    named: set[str] = set()
    for row in manifest:
        takes = known.get(row.key, {})
        if takes:
            named.add(row.key)
        entries += _RowPlan(row, takes, manifest, holds, want_silent).entries()
    entries += _orphans(known, named)
    return Plan(entries)


class _RowPlan:
    """The plan of one row."""

    def __init__(
        self,
        row: ManifestRow,
        takes: Mapping[int, Known],
        manifest: Manifest,
        holds: Callable[[str], str | None],
        want_silent: int,
    ) -> None:
        self._row = row
        self._takes = takes
        self._manifest = manifest
        self._holds = holds
        self._want_silent = want_silent
        self._hash = row.request_hash

    def entries(self) -> list[PlanEntry]:
        """Return the takes that are known, then those that are to be made."""
        made: list[PlanEntry] = []
        current = earlier = silent = 0
        for take, known in sorted(self._takes.items()):
            entry = self._made(take, known)
            if entry is None:
                continue
            if entry.request_hash == self._hash:
                current += 1
                silent += entry.record is not None and entry.record.silent is True
                made.append(entry)
            elif entry.state is not PlanState.FAILED:
                earlier += 1
                if entry.state in (PlanState.UNKNOWN, PlanState.UNSAVED):
                    made.append(entry)
        missing = max(self._row.takes - current, 0)
        heard = current - silent + missing
        more = min(self._row.takes - heard, self._want_silent - max(current - self._row.takes, 0))
        missing += max(more, 0)
        state = PlanState.CHANGED if earlier and not current else PlanState.NEW
        return made + self._wanted(missing, state)

    def _made(self, take: int, known: Known) -> PlanEntry | None:
        """Return how a take stands of which something is known; None if it is free."""
        row, record = known.row, known.record
        state, request, note = PlanState.DONE, "", None
        file, task_id = None, None
        if record is not None:
            request, file, task_id = record.request, record.file, record.task_id
            if known.sha256 is None:
                state = PlanState.MISSING
            elif known.sha256 != record.sha256:
                state, note = PlanState.EDITED, "changed by hand; kept"
        if row is not None and (record is None or state is PlanState.MISSING):
            task_id = row.task_id or task_id
            if row.state in IN_DOUBT:
                state, request = PlanState.UNKNOWN, row.request
            elif row.state in _PAID or (record is None and row.state is EffectState.SAVED):
                state, request = PlanState.UNSAVED, row.request
            elif row.state is EffectState.FAILED and record is None:
                state, request = PlanState.FAILED, row.request
            elif record is None:
                return None
        elif record is None:
            return None
        stem = self._row.stem(take) if record is None else stem_of_file(record.file)
        entry = self._entry(state, take, stem, note=note, file=file, task_id=task_id, record=record)
        return attrs.evolve(entry, request_hash=request, retries=state is PlanState.FAILED)

    def _wanted(self, count: int, state: PlanState) -> list[PlanEntry]:
        """Return so many takes that are to be made."""
        wanted: list[PlanEntry] = []
        take = 0
        while len(wanted) < count:
            take += 1
            known = self._takes.get(take)
            row = None if known is None else known.row
            if known is not None and (known.record is not None or not self._is_free(row)):
                continue
            stem = self._row.stem(take)
            held = self._holds(stem)
            is_own = take <= self._row.takes  # else another row may have this name, or a file of somebody's
            if not is_own and (held is not None or self._manifest.names(stem)):
                continue
            if held is not None:
                note = "a file is in its place that the lock does not know; kept"
                wanted.append(self._entry(PlanState.EDITED, take, stem, file=held, note=note))
                continue
            entry = self._entry(state, take, stem)
            frees = row is not None and row.state is EffectState.QUEUED and row.same != self._row.request
            retries = row is not None and row.state is EffectState.FAILED
            wanted.append(attrs.evolve(entry, frees=frees, retries=retries))
        return wanted

    def _is_free(self, row: JournalTake | None) -> bool:
        if row is None or row.state in FREE:
            return True
        return row.state is EffectState.FAILED and row.request != self._hash

    def _entry(
        self,
        state: PlanState,
        take: int,
        stem: str,
        *,
        note: str | None = None,
        file: str | None = None,
        task_id: str | None = None,
        record: LockRecord | None = None,
    ) -> PlanEntry:
        row = self._row
        return PlanEntry(
            state=state,
            key=row.key,
            take=take,
            stem=stem,
            row=row,
            request_hash=self._hash,
            file=file,
            task_id=task_id,
            record=record,
            note=note,
        )


def _orphans(known: Mapping[str, Mapping[int, Known]], named: Iterable[str]) -> list[PlanEntry]:
    there = set(named)
    return [
        _orphan(key, take, each)
        for key, takes in known.items()
        if key not in there
        for take, each in sorted(takes.items())
        if each.record is not None or (each.row is not None and each.row.state not in FREE)
    ]


def _orphan(key: str, take: int, known: Known) -> PlanEntry:
    row, record = known.row, known.record
    doubt = row is not None and row.state in IN_DOUBT
    return PlanEntry(
        state=PlanState.ORPHANED,
        key=key,
        take=take,
        stem="" if record is None else stem_of_file(record.file),
        request_hash=record.request if record is not None else "" if row is None else row.request,
        file=None if record is None else record.file,
        task_id=record.task_id if record is not None else None if row is None else row.task_id,
        record=record,
        note="perhaps paid" if doubt else None,
    )
