"""The journal's rows: how they are spelled in the file, and every statement that reads or writes one.

All of this is synchronous and belongs on the journal's own thread, within the transaction of a batch. At most one
statement of a function changes anything, so that one that fails leaves nothing behind.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import attrs

from finevoice_async.adapters.journal_schema import FINISHED, IS_UNFINISHED
from finevoice_async.core.ledger import (
    FALLS_BACK,
    GIVES_BACK,
    KEEPS,
    MOVES,
    OF_TASK,
    SPENDS,
    EffectState,
    JournalRow,
    Move,
)
from finevoice_async.core.requests import SfxRequest
from finevoice_async.errors import JournalError
from finevoice_async.ports import Begun, TaskIdTakenError

_COLUMNS = tuple(field.name for field in attrs.fields(JournalRow))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM effects"  # noqa: S608 - names of ours

_NEW = (EffectState.QUEUED, EffectState.SENDING)
_AGAIN = (Move.QUEUE, Move.RETRY)
_AFRESH = (*_AGAIN, Move.SEND, Move.RESEND)
_FORGOTTEN: Final = {"task_id": None, "urls": "[]", "path": None, "sha256": None, "error": None, "submitted_at": None}
"""What a row keeps no longer when its effect is about to be made afresh."""
_KEPT: Final = ("state", "request", "task_id", "error", "submitted_at")
"""What it keeps apart (see `ledger.KEEPS`)."""


# Statements


def begin(
    db: sqlite3.Connection, *, request: SfxRequest, key: str | None, state: EffectState, again: Move, at: datetime
) -> Begun:
    """Write a new row, or queue the one with this key again if `again` may start from its state."""
    if state not in _NEW or again not in _AGAIN:
        raise JournalError(f"A row of the journal cannot begin as {state.value} by {again.value}. Nothing was written.")
    text, when = _spell_request(request), _stamp(at)
    cursor = db.execute(
        "INSERT INTO effects (key, state, request, created_at, updated_at, sent_at) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (key) DO NOTHING",
        (key, state.value, text, when, when, when if state is EffectState.SENDING else None),
    )
    if cursor.rowcount > 0:
        row_id, moment = cursor.lastrowid or 0, datetime.fromisoformat(when)
        new = JournalRow(id=row_id, key=key, state=state, request=request, created_at=moment, updated_at=moment)
        return Begun(new, is_mine=True)
    values = {"state": MOVES[again][1].value, "updated_at": when, **_FORGOTTEN, "request": text}
    values["earlier"] = _earlier(db, again, "key", key)
    moved = db.execute(_update(again, "key", *values), {**values, "key": key}).rowcount
    found = row(db, column="key", value=key)
    assert found is not None  # noqa: S101 - it was in the way
    return Begun(found, is_mine=moved > 0)


def move(
    db: sqlite3.Connection,
    *,
    row_id: int,
    move: Move,
    urls: Sequence[str] | None,
    fields: Mapping[str, str | None],
    at: datetime,
) -> bool:
    """Make a move if the row is in a state that it may start from, and set the fields that are not None."""
    state = MOVES[move][1]
    values: dict[str, str | None] = {"state": state.value, "updated_at": _stamp(at)}
    if move in _AFRESH:
        values |= _FORGOTTEN
    values |= {name: value for name, value in fields.items() if value is not None}
    if urls is not None:
        values["urls"] = json.dumps(urls)
    if (error := values.get("error")) is not None:
        values["error"] = error.encode(errors="replace").decode()  # what went wrong can always be noted
    if move in KEEPS:
        values["earlier"] = _earlier(db, move, "id", row_id)
    elif move in FALLS_BACK:
        values |= _fallback(db, move, row_id)
    task_id = values.get("task_id")
    if state is EffectState.SUBMITTED and not task_id:
        raise JournalError(f"Row {row_id} of the journal cannot become submitted without a task id.")
    if state is EffectState.SUBMITTED or move is Move.ANSWER:
        values["submitted_at"] = values["updated_at"]
    names = values.keys() - {"task_id"} if move in OF_TASK else values  # there it says whose row it must be
    try:
        moved = db.execute(_update(move, "id", *names), {**values, "task_id": task_id, "id": row_id}).rowcount
    except sqlite3.IntegrityError as conflict:  # of two rows about a task id: no move can meet another one
        (owner,) = db.execute("SELECT id FROM effects WHERE task_id = ?", (task_id,)).fetchone()
        words = f"Row {row_id} of the journal cannot get task {task_id}: it belongs to row {owner}."
        raise TaskIdTakenError(words, task_id=task_id) from conflict
    if moved == 0 and db.execute("SELECT 1 FROM effects WHERE id = ?", (row_id,)).fetchone() is None:
        words = f"Row {row_id} of the journal cannot become {state.value}: there is no such row."
        raise JournalError(words, task_id=task_id)
    return moved > 0


def _earlier(db: sqlite3.Connection, move: Move, by: str, value: str | int | None) -> str | None:
    """Return what a row is to keep of itself as it is begun anew, if it has come to something."""
    if move not in KEEPS:
        return None
    query = f"SELECT {', '.join(_KEPT)} FROM effects WHERE {by} = ?"  # noqa: S608 - names of ours
    found = db.execute(query, (value,)).fetchone()
    if found is None or EffectState(found[0]) not in KEEPS[move]:
        return None
    return json.dumps(dict(zip(_KEPT, found, strict=True)))


def _fallback(db: sqlite3.Connection, move: Move, row_id: int) -> dict[str, str | None]:
    """Return what a row becomes whose new try came to nothing: what it was, if it keeps that; else nothing."""
    query = "SELECT state, earlier, past_task_ids FROM effects WHERE id = ?"
    state, earlier, past = db.execute(query, (row_id,)).fetchone() or (None, None, "")
    if earlier is None or EffectState(state) not in FALLS_BACK[move]:
        return {}
    values: dict[str, str | None] = {**json.loads(earlier), "earlier": None}
    task_id = values["task_id"]
    if task_id is None:
        return values
    if db.execute("SELECT 1 FROM effects WHERE task_id = ?", (task_id,)).fetchone() is None:
        return values | {"past_task_ids": str(past).removesuffix(f"{task_id}\n")}
    is_lost = values["state"] == EffectState.LOST.value
    return values | {"task_id": None} | ({"state": EffectState.UNKNOWN.value} if is_lost else {})


@cache
def _update(move: Move, by: str, *names: str) -> str:
    """Return the one statement that moves a row and sets columns, if the row is in a state that the move starts from.

    All that stands to the right of an equals sign are the old values.
    """
    settings = [f"{name} = :{name}" for name in names]
    if "task_id" in names and "past_task_ids" not in names:  # the old one is put aside, unless it stays the same
        settings.append("past_task_ids = past_task_ids || coalesce(nullif(task_id, :task_id) || char(10), '')")
    if move in SPENDS:
        settings += ["sent_at = :updated_at", "past_sent_at = past_sent_at || coalesce(sent_at || char(10), '')"]
    elif move in GIVES_BACK:
        settings.append(f"sent_at = CASE state WHEN '{EffectState.SENDING.value}' THEN NULL ELSE sent_at END")
    starts = ", ".join(sorted(f"'{start.value}'" for start in MOVES[move][0]))
    whose = " AND (:task_id IS NULL OR task_id = :task_id)" if move in OF_TASK else ""
    return f"UPDATE effects SET {', '.join(settings)} WHERE {by} = :{by} AND state IN ({starts}){whose}"  # noqa: S608


def row(db: sqlite3.Connection, *, column: str, value: str | int | None) -> JournalRow | None:
    """Return the row that has this value in a column whose values are unique."""
    found = db.execute(f"{_SELECT} WHERE {column} = ?", (value,)).fetchone()
    return None if found is None else _read_row(found)


def row_ids(db: sqlite3.Connection, *, states: Sequence[EffectState]) -> list[int]:
    """Return the numbers of the rows in these states (none: in any), in order."""
    condition, values = _in(states)
    query = f"SELECT id FROM effects WHERE {condition} ORDER BY id"  # noqa: S608 - names of ours
    return [found for (found,) in db.execute(query, values)]


def rows(db: sqlite3.Connection, *, states: Sequence[EffectState], after: int, limit: int) -> list[JournalRow]:
    """Return the rows in these states (none: in any) with an id above `after`."""
    condition, values = _in(states)
    query = f"{_SELECT} WHERE {condition} AND id > ? ORDER BY id LIMIT ?"
    return [_read_row(found) for found in db.execute(query, (*values, after, limit))]


def sent_since(db: sqlite3.Connection, *, moment: datetime) -> list[datetime]:
    """Return when each submission left, from a moment on, that may have been accepted."""
    since = _stamp(moment)
    query = " UNION ALL ".join(
        f"SELECT sent_at, past_sent_at FROM {table} WHERE sent_at >= :since OR past_sent_at <> ''"  # noqa: S608 - ours
        for table in ("effects", "pruned")
    )
    lines = [line for last, past in db.execute(query, {"since": since}) for line in (last, *past.split())]
    return [datetime.fromisoformat(line) for line in sorted(line for line in lines if line and line >= since)]


def _in(states: Sequence[EffectState]) -> tuple[str, list[str]]:
    """Return a condition and its values."""
    if not states:
        return "true", []
    condition = f"state IN ({', '.join('?' * len(states))})"
    if not set(FINISHED).intersection(states):
        condition += f" AND {IS_UNFINISHED}"
    return condition, [state.value for state in states]


def prune(db: sqlite3.Connection, *, before: datetime) -> int:
    """Delete the rows that are settled and were written last before a time; return how many they were.

    When their submissions left stays: the schema sees to that.
    """
    states = ", ".join(f"'{state.value}'" for state in FINISHED)
    statement = f"DELETE FROM effects WHERE state IN ({states}) AND updated_at < ?"  # noqa: S608 - names of ours
    return db.execute(statement, (_stamp(before),)).rowcount


def load(db: sqlite3.Connection, *, name: str) -> str | None:
    """Return the text under a name."""
    found = db.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def store(db: sqlite3.Connection, *, name: str, text: str) -> None:
    """Keep a text under a name."""
    db.execute("INSERT OR REPLACE INTO notes (name, text) VALUES (?, ?)", (name, text))


# Spelling


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _spell_request(request: SfxRequest) -> str:
    return json.dumps(_hooks()[1](request))


def _read_row(values: Sequence[Any]) -> JournalRow:
    spelled = dict(zip(_COLUMNS, values, strict=True))
    try:
        return _hooks()[0](spelled, JournalRow)
    except Exception as wrong:
        from cattrs import transform_error

        task_id = spelled["task_id"]
        raise JournalError(
            f"Row {spelled['id']} of the journal cannot be read: {'; '.join(transform_error(wrong, '$', _describe))}.",
            task_id=task_id if isinstance(task_id, str) else None,
        ) from wrong


def _describe(wrong: BaseException, _: type | None) -> str:
    """Say in words what is wrong with a field."""
    from cattrs import ForbiddenExtraKeysError

    if isinstance(wrong, ForbiddenExtraKeysError):
        return f"unknown field {', '.join(sorted(wrong.extra_fields))}"
    return str(wrong).removesuffix(". Nothing was sent.") or type(wrong).__name__


@cache
def _hooks() -> tuple[Callable[[Mapping[str, Any], type[JournalRow]], JournalRow], Callable[[SfxRequest], Any]]:
    """Return what reads a row and what writes a request; made at the first call, not for the import."""
    from cattrs import Converter  # a third of this package's import time
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

    converter = Converter(detailed_validation=True)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _as_it_is)
    converter.register_structure_hook(float, lambda value, _: _as_it_is(value, int if type(value) is int else float))
    converter.register_structure_hook(datetime, _read_moment)
    read_request = make_dict_structure_fn(SfxRequest, converter, _cattrs_forbid_extra_keys=True)
    read_urls = converter.get_structure_hook(tuple[str, ...])
    read_row = make_dict_structure_fn(
        JournalRow,
        converter,
        request=override(struct_hook=lambda text, kind: read_request(json.loads(text), kind)),
        urls=override(struct_hook=lambda text, kind: read_urls(json.loads(text), kind)),
    )
    return read_row, make_dict_unstructure_fn(SfxRequest, converter)


def _as_it_is(value: object, kind: type) -> Any:
    """Return a value of just this type: by itself, cattrs would make a text of anything."""
    if type(value) is not kind:
        raise TypeError(f"must be {kind.__name__}, not {type(value).__name__}")
    return value


def _read_moment(value: object, _: type) -> datetime:
    moment = datetime.fromisoformat(_as_it_is(value, str))
    if moment.tzinfo is None:
        raise ValueError("must have a time zone")
    return moment
