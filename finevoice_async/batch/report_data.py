"""What a report shows, as plain values: nothing of journals, locks or files is known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import attrs

from finevoice_async.core.ledger import MAY_BE_PAID, EffectState

IN_DOUBT: Final = frozenset({EffectState.SENDING, *MAY_BE_PAID})
"""What may be paid for and is not there; only its owner can settle it."""

_GOES_WRONG: Final = IN_DOUBT | {EffectState.FAILED, EffectState.REFUSED}

Outline = Sequence[tuple[float, float]]


@attrs.frozen(kw_only=True)
class TakeReport:
    """One take of an effect.

    Attributes:
        number: Which, from 1.
        state: How far it has come.
        rejected: It was replaced by a later take, and kept.
        file: Where its file is, relative to the page, with slashes; None if there is none to play.
        finished: Where its finished copy is, likewise.
        seconds: How long it is.
        peak: Its loudest sample, 1.0 at full scale.
        waveform: The lowest and highest sample of equal stretches.
        task_id: The service's id.
        reason: What went wrong with making it, in words.
        problems: What is wrong with its file, in words.
        note: What else there is to say.
        queued_at: When it was wished for.
        submitted_at: When the service accepted it.
        ended_at: When it was made and saved, or failed.
    """

    number: int = 1
    state: EffectState
    rejected: bool = False
    file: str | None = None
    finished: str | None = None
    seconds: float | None = None
    peak: float | None = None
    waveform: Outline = ()
    task_id: str | None = None
    reason: str | None = None
    problems: Sequence[str] = ()
    note: str | None = None
    queued_at: datetime | None = None
    submitted_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def needs_care(self) -> bool:
        """Whether somebody should look at it. What was rejected already has a take in its place."""
        return not self.rejected and (self.state in _GOES_WRONG or bool(self.problems))

    @property
    def is_in_doubt(self) -> bool:
        """Whether it may be paid for without being there."""
        return self.state in IN_DOUBT


@attrs.frozen(kw_only=True)
class EffectReport:
    """One effect, with all its takes.

    Attributes:
        key: What it is called.
        prompt: What should be heard.
        negative_prompt: What should not.
        source: The image or video that it was made for.
        asked_seconds: How long it was asked to be.
        takes: What came of it; nothing yet, if there are none.
    """

    key: str
    prompt: str | None = None
    negative_prompt: str | None = None
    source: str | None = None
    asked_seconds: float | None = None
    takes: Sequence[TakeReport]

    @property
    def needs_care(self) -> bool:
        """Whether somebody should look at it."""
        return any(take.needs_care for take in self.takes)

    @property
    def states(self) -> list[EffectState]:
        """The states of its takes, each once; none if nothing was begun."""
        return list(dict.fromkeys(take.state for take in self.takes))


@attrs.frozen(kw_only=True)
class ReportData:
    """All that a page shows.

    Attributes:
        title: Its heading.
        made_at: The moment that it shows.
        effects: The effects, in any order.
        paid: Submissions that the service accepted, earlier ones of the same effect included.
        perhaps_paid: Submissions of which nobody knows whether it did.
        command: The command line to go on with.
        settle_command: The command line that shows what may be paid for.
        notes: What there is to say about the whole.
    """

    title: str
    made_at: datetime
    effects: Sequence[EffectReport]
    paid: int = 0
    perhaps_paid: int = 0
    command: str | None = None
    settle_command: str | None = None
    notes: Sequence[str] = ()

    @property
    def takes(self) -> list[TakeReport]:
        """All takes of all effects."""
        return [take for effect in self.effects for take in effect.takes]

    @property
    def counts(self) -> dict[EffectState, int]:
        """How many effects have a take in each state that there is, in the order of an effect's life."""
        found = Counter(state for effect in self.effects for state in effect.states)
        return {state: found[state] for state in EffectState if found[state]}

    @property
    def not_begun(self) -> int:
        """How many effects have no take yet."""
        return sum(not effect.takes for effect in self.effects)

    @property
    def needing_care(self) -> int:
        """How many effects somebody should look at."""
        return sum(effect.needs_care for effect in self.effects)

    @property
    def seconds(self) -> float:
        """How much sound there is."""
        return sum(take.seconds or 0.0 for take in self.takes)
