"""What is to be done, from what lock, journal and folder say: a table, and laws that hold for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevoice_async import EffectState, SfxRequest
from finevoice_async.batch import Manifest, ManifestRow, Plan, PlanState
from finevoice_async.batch.lock import LockRecord
from finevoice_async.batch.manifest import PackedRows
from finevoice_async.batch.places import folded
from finevoice_async.batch.plan import JournalTake, Known, make_plan
from finevoice_async.batch.rows import hash_request, journal_key, split_key

RAIN, SNOW = SfxRequest("rain"), SfxRequest("snow")
NOW, OLD = hash_request(RAIN), hash_request(SNOW)
S = PlanState


def manifest(takes: int = 1) -> Manifest:
    """Return a manifest of one sound."""
    rows = PackedRows()
    rows.add(ManifestRow(number=1, line=1, key="a", request=RAIN, takes=takes))
    return Manifest("m", None, rows, frozenset(hash(folded(f"a-{n}" if n > 1 else "a")) for n in range(1, takes + 1)))


def locked(request: str = NOW, *, there: str | None = "00", silent: bool | None = None) -> Known:
    """Return a take that the lock knows."""
    record = LockRecord(key="a", take=1, request=request, task_id="t", file="a.wav", sha256="00", silent=silent)
    return Known(record=record, sha256=there)


def noted(state: EffectState, request: str = NOW, **more: Any) -> Known:
    """Return a take that the journal knows."""
    return Known(row=JournalTake(state=state, request=request, **more))


def plan(takes: dict[int, Known], *, want: int = 1, held: tuple[str, ...] = (), silent: int = 0) -> Plan:
    """Plan the sound."""
    return make_plan(manifest(want), {"a": takes}, lambda stem: stem if stem in held else None, want_silent=silent)


TABLE: list[tuple[str, dict[int, Known], dict[str, Any], list[tuple[PlanState, int]]]] = [
    ("nothing is known", {}, {}, [(S.NEW, 1)]),
    ("three are wanted", {1: locked()}, {"want": 3}, [(S.DONE, 1), (S.NEW, 2), (S.NEW, 3)]),
    ("it is there", {1: locked()}, {}, [(S.DONE, 1)]),
    ("its file is gone", {1: locked(there=None)}, {}, [(S.MISSING, 1)]),
    ("its file was changed", {1: locked(there="11")}, {}, [(S.EDITED, 1)]),
    ("a strange file is there", {}, {"held": ("a",)}, [(S.EDITED, 1)]),
    ("its request changed", {1: locked(OLD)}, {}, [(S.CHANGED, 2)]),
    ("the name of the new take is taken", {1: locked(OLD)}, {"held": ("a-2",)}, [(S.CHANGED, 3)]),
    ("it changed and was made again", {1: locked(OLD), 2: locked()}, {}, [(S.DONE, 2)]),
    ("making it again has begun", {1: locked(OLD), 2: locked()}, {"want": 2}, [(S.DONE, 2), (S.NEW, 3)]),
    ("it waits", {1: noted(EffectState.QUEUED, same=RAIN)}, {}, [(S.NEW, 1)]),
    ("it was refused", {1: noted(EffectState.REFUSED)}, {}, [(S.NEW, 1)]),
    ("another was refused", {1: noted(EffectState.REFUSED, OLD)}, {}, [(S.NEW, 1)]),
    ("it runs", {1: noted(EffectState.SUBMITTED)}, {}, [(S.UNSAVED, 1)]),
    ("it is made", {1: noted(EffectState.DONE)}, {}, [(S.UNSAVED, 1)]),
    ("somebody has it", {1: noted(EffectState.SAVED)}, {}, [(S.UNSAVED, 1)]),
    ("it failed", {1: noted(EffectState.FAILED)}, {}, [(S.FAILED, 1)]),
    ("another failed", {1: noted(EffectState.FAILED, OLD)}, {}, [(S.NEW, 1)]),
    ("it is in doubt", {1: noted(EffectState.UNKNOWN)}, {}, [(S.UNKNOWN, 1)]),
    ("it is being sent", {1: noted(EffectState.SENDING)}, {}, [(S.UNKNOWN, 1)]),
    ("it is lost", {1: noted(EffectState.LOST)}, {}, [(S.UNKNOWN, 1)]),
    ("another is in doubt", {1: noted(EffectState.UNKNOWN, OLD)}, {}, [(S.UNKNOWN, 1), (S.CHANGED, 2)]),
    ("another runs", {1: noted(EffectState.SUBMITTED, OLD)}, {}, [(S.UNSAVED, 1), (S.CHANGED, 2)]),
    ("it is silent", {1: locked(silent=True)}, {}, [(S.DONE, 1)]),
    ("silent ones are replaced", {1: locked(silent=True)}, {"silent": 1}, [(S.DONE, 1), (S.NEW, 2)]),
    (
        "so many and no more",
        {1: locked(silent=True), 2: locked(silent=True)},
        {"silent": 1},
        [(S.DONE, 1), (S.DONE, 2)],
    ),
    ("one that is heard is enough", {1: locked(silent=True), 2: locked()}, {"silent": 3}, [(S.DONE, 1), (S.DONE, 2)]),
]


@pytest.mark.parametrize(("takes", "options", "wanted"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(takes: dict[int, Known], options: dict[str, Any], wanted: list[tuple[PlanState, int]]) -> None:
    """How a sound stands follows from what is known of its takes."""
    assert [(entry.state, entry.take) for entry in plan(takes, **options).entries] == wanted


@pytest.mark.parametrize(
    ("row", "frees", "retries"),
    [
        (noted(EffectState.QUEUED, same=RAIN), False, False),
        (noted(EffectState.QUEUED, OLD, same=SNOW), True, False),
        (noted(EffectState.QUEUED, same=SfxRequest("rain", use_async=False)), True, False),
        (noted(EffectState.REFUSED, OLD), False, False),
        (noted(EffectState.FAILED, OLD), False, True),
        (noted(EffectState.FAILED), False, True),
    ],
)
def test_what_has_to_be_done_first(row: Known, frees: bool, retries: bool) -> None:
    """Another wish under the key has to go, and a failure has to be tried again."""
    (entry,) = plan({1: row}).entries
    assert (entry.frees, entry.retries) == (frees, retries)


def test_what_is_orphaned() -> None:
    """What the manifest does not name is listed, with what is known; what was never sent is nobody's loss."""
    known = {"z": {1: locked(), 2: noted(EffectState.UNKNOWN), 3: noted(EffectState.QUEUED)}}
    entries = make_plan(manifest(), known, lambda _: None).entries
    assert [(entry.state, entry.key, entry.take, entry.note) for entry in entries[1:]] == [
        (S.ORPHANED, "z", 1, None),
        (S.ORPHANED, "z", 2, "perhaps paid"),
    ]


def test_a_new_take_takes_nobodys_name() -> None:
    """The file of another sound is no place for a new take, also where it is not made yet."""
    rows = PackedRows()
    rows.add(ManifestRow(number=1, line=1, key="a", request=RAIN))
    rows.add(ManifestRow(number=2, line=2, key="b", request=RAIN, file="A-2.wav"))
    both = Manifest("m", None, rows, frozenset(hash(name) for name in ("a", "a-2")))
    entries = make_plan(both, {"a": {1: locked(OLD)}}, lambda _: None).entries
    assert [(entry.state, entry.key, entry.stem) for entry in entries] == [(S.CHANGED, "a", "a-3"), (S.NEW, "b", "A-2")]


KNOWN = st.one_of(
    st.builds(
        locked,
        st.sampled_from([NOW, OLD]),
        there=st.sampled_from(["00", "11", None]),
        silent=st.sampled_from([None, True]),
    ),
    st.builds(noted, st.sampled_from(EffectState), st.sampled_from([NOW, OLD])),
)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 5), KNOWN, max_size=5),
    st.integers(1, 4),
    st.sets(st.sampled_from(["a", "a-2", "a-3", "a-6"])),
)
def test_laws(takes: dict[int, Known], want: int, held: set[str]) -> None:
    """No take is planned twice; what is paid for has a free name; nothing that may be paid for is paid for again."""
    made = plan(takes, want=want, held=tuple(held))
    numbers = [entry.take for entry in made.entries]
    assert len(numbers) == len(set(numbers))
    for entry in made.to_pay(remake=True):
        known = takes.get(entry.take)
        assert entry.stem not in held
        assert known is None or known.record is None
        free = (EffectState.QUEUED, EffectState.REFUSED, EffectState.FAILED)
        assert known is None or known.row is None or known.row.state in free
    current = [entry for entry in made.entries if entry.request_hash == NOW]
    assert len(current) >= want
    doubtful = (EffectState.UNKNOWN, EffectState.LOST, EffectState.SENDING)
    for take, known in takes.items():
        if known.row is not None and known.row.state in doubtful:
            assert (S.UNKNOWN, take) in [(entry.state, entry.take) for entry in made.entries]


@given(st.text(min_size=1, max_size=12).filter(lambda key: key.strip() and split_key(key)[1] == 1), st.integers(1, 200))
def test_keys_of_takes(key: str, take: int) -> None:
    """A take is found again by its name in the journal."""
    assert split_key(journal_key(key, take)) == (key, take)
