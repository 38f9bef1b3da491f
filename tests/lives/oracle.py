"""What must never happen, by the service's own count and by what the operations were told.

An *effect* is what the caller wants once: a key, or a wish without one (its prompt then). Every submission of it that
may have been accepted is *open*, until the caller consents to another one. A submission that leaves while one is open
breaks the first rule, whether it is accepted or not.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Final

from lives.history import History
from lives.service import Made, Service
from lives.wishes import Effect, Op, Post

from finevoice_async import (
    AuthenticationError,
    Budget,
    BudgetExceededError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    RateLimitError,
    RequestRejectedError,
    SessionClosedError,
    SoundEffect,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskNotFoundError,
)

SETTLED: Final = ("done", "saved", "refused", "failed", "unknown", "lost")
SLACK: Final = 4.0
"""Seconds within which a slot that was taken, or a row that was written, becomes a submission that leaves."""

UNSENT: Final = (
    AuthenticationError,
    BudgetExceededError,
    InsufficientCreditsError,
    InvalidRequestError,
    RateLimitError,
    RequestRejectedError,
    SessionClosedError,
    SubmitNotSentError,
)
"""Errors that, without a task id, tell that nothing is sent."""

RACES: Final = ("submitted already", "withdrawn", "settled meanwhile")
"""Words of errors that only somebody who settles rows should meet."""

EXEMPT: Final = ("stays queued", "may have been accepted", "could not note", "belongs to another request")


class Oracle:
    """Hears everything, and says what must not have happened."""

    def __init__(self, service: Service, history: History) -> None:
        self._service = service
        self._history = history
        # All mutable state:
        self.effects: dict[str, Effect] = {}  # by name
        self.of_prompt: dict[str, Effect] = {}
        self.posts: list[Post] = []
        self.limit = 1  # max_concurrency of this life
        self.resend_unknown = False  # of this life
        self.budget: Budget | None = None  # of this life
        self._doubtful: set[Effect] = set()  # whose rows were found in doubt as this life began
        self._crashes: dict[int, float] = {}  # when, by life

    # What is wanted

    def wish(self, op: Op, prompt: str, key: str | None, *, retry: bool) -> None:
        """Note a wish."""
        effect = self.effects.setdefault(key or prompt, Effect(key or prompt, key))
        self.of_prompt[prompt] = effect
        op.wishes.append(effect)
        effect.wishers.append(op)
        effect.wished += 1
        if effect.key is not None:
            effect.unsent = None  # its key is free again
        if retry:
            effect.retries.append(op)

    def left(self, op: Op) -> None:
        """Note that a caller has left: what it alone wanted, and what was not sent yet, is not sent."""
        for effect in op.wishes:
            sent = bool(effect.posts) and effect.posts[-1].outcome != "refused"
            if effect.key is None and not sent and effect.unsent is None:
                effect.left_at, effect.left_in = self._history.now(), self._history.life

    def kept(self, op: Op, prompt: str) -> None:
        """Note that a wish was kept: from now on it needs nobody."""
        effect = self.of_prompt[prompt]
        effect.kept = effect.was_kept = True
        op.wishes.remove(effect)

    def withdrawn(self, op: Op, effect: Effect, wished: int) -> None:
        """Note that an effect was taken back: nothing of it leaves, unless it was wished for anew meanwhile."""
        effect.kept = False
        if effect.wished > wished:
            return
        if any(post.is_open for post in effect.posts if post.outcome == "out"):
            self.wrong(op, f"{effect.name!r} was taken back while a POST of it is out")
        effect.unsent = f"at {self._history.now():.3f} by op {op.number} that it was withdrawn"

    def effect_of(self, row: Any) -> Effect:
        """Return the effect of a row, whose key may be one that the library made."""
        return self.effects.get(row.key) or self.of_prompt[row.request.prompt]

    # Submissions

    def leaves(self, prompt: str) -> Post:
        """Note that a submission leaves, and look whether it may."""
        now, effect = self._history.now(), self.of_prompt[prompt]
        last = effect.posts[-1] if effect.posts else None
        again = ("refused", "doubt") if self.resend_unknown else ("refused",)
        goes_on = last is not None and last.outcome in again and last.life == self._history.life
        in_line = self._history.line_since(SLACK)
        since = last.slot_since if last is not None and goes_on else now if in_line is None else in_line
        post = Post(len(self.posts) + 1, prompt, self._history.life, now, since, resendable=self.resend_unknown)
        for earlier in effect.posts:
            if earlier.is_open and self._consents(effect, earlier, now):
                earlier.replaced_by = post
        left = [earlier for earlier in effect.posts if earlier.is_open]
        if left:
            which = ", ".join(f"{earlier.number} ({earlier.outcome})" for earlier in left)
            self._history.violate("1", f"POST {post.number} of {effect.name!r} leaves; open without consent: {which}")
        if effect.unsent is not None and not effect.resubmitting:
            self._history.violate(
                "7", f"POST {post.number} of {prompt!r} leaves, whose caller was told {effect.unsent}"
            )
        if effect.left_at is not None and not effect.resubmitting:
            over_at = self._crashes.get(effect.left_in, math.inf) if effect.left_in < self._history.life else now
            if over_at > effect.left_at + SLACK:
                self._history.violate(
                    "7", f"POST {post.number} of {prompt!r} leaves; its caller left at {effect.left_at:.3f}"
                )
        effect.posts.append(post)
        self.posts.append(post)
        self._check_slots(post, now)
        if self.budget is not None:
            self._check_budget(self.budget, post, now)
        return post

    def _consents(self, effect: Effect, post: Post, now: float) -> bool:
        if effect.resubmitting:
            return True
        if post.resendable and self.resend_unknown and post.life == self._history.life and post.outcome == "doubt":
            return True
        failed = self._failed_at(post)
        if failed is None or failed > now:
            return False
        return any(retry.ended is None or retry.ended >= failed for retry in effect.retries)

    def _failed_at(self, post: Post) -> float | None:
        """Return when a task that the client takes for this submission's ended without a result."""
        ids = list(post.adopted)
        if post.outcome == "known" and post.made is not None:
            if post.made.id is None:
                return post.made.failed_at()
            ids.append(post.made.id)
        ends = [self._service.by_id[task_id].failed_at() for task_id in ids if task_id in self._service.by_id]
        return min((end for end in ends if end is not None), default=None)

    def _check_slots(self, post: Post, now: float) -> None:
        known = [made for made in self._service.running(now) if self._is_known(made, post, now)]
        out = [other for other in self.posts if other.outcome == "out" and other.life == self._history.life]
        if len(known) + len(out) > self.limit:
            ids = [made.id for made in known]
            others = [other.number for other in out]
            self._history.violate(
                "3", f"with POST {post.number}, {others} are out and {ids} run on a plan of {self.limit}"
            )

    def _check_budget(self, budget: Budget, post: Post, now: float) -> None:
        """Whatever may have been accepted counts. The journal has the time at which a POST was about to leave."""
        spent = [other for other in self.posts if other.outcome != "refused"]
        if budget.per is None:
            spent = [other for other in spent if other.life == post.life]
        else:
            for other in list(spent):
                slack = 0.0 if other.life == post.life else SLACK
                if now - other.sent_at >= budget.per.total_seconds() - slack:
                    spent.remove(other)
        if len(spent) > budget.effects:
            numbers = [other.number for other in spent]
            self._history.violate("10", f"POST {post.number} leaves; {numbers} are spent of {budget}")

    def _is_known(self, made: Made, post: Post, now: float) -> bool:
        if made.known_since is None or now - made.since > 3590:
            return False
        return made.strict or made.known_since < post.slot_since - SLACK

    def learned(self, made: Made | None) -> None:
        """Note that the client has an answer with a task's id."""
        if made is not None and made.id is not None and self._service.by_id[made.id] is made:
            made.known_since, made.strict = self._history.now(), True

    def ids_shown(self) -> list[str]:
        """Return the ids that the account shows: not those whose submission's answer is still on its way."""
        hidden = {post.made.id for post in self.posts if post.outcome == "out" and post.made is not None}
        return [task_id for task_id in self._service.by_id if task_id not in hidden]

    # What operations were told

    def told(self, op: Op, prompt: str, error: FineVoiceError) -> None:
        """Note what the caller of a wish was told."""
        effect = self.of_prompt[prompt]
        if isinstance(error, TaskNotFoundError):
            made = self._service.by_id.get(error.task_id or "")
            if made is not None and not made.given_up:
                self._history.violate("9", f"op {op.number} was told too soon that task {made.id} is lost")
        words = str(error)
        if isinstance(error, SubmitUnknownError) and not self._is_doubtful(effect):
            self.wrong(op, f"told that {effect.name!r} is unknown, whose submissions are not: {error}")
        if isinstance(error, InvalidRequestError) and any(race in words for race in RACES) and not effect.settled_in:
            self.wrong(op, f"told of another's race for {effect.name!r}: {error}")
        if effect.key is not None or error.task_id is not None or not isinstance(error, UNSENT):
            return
        if not any(exempt in words for exempt in EXEMPT):
            effect.unsent = f"at {self._history.now():.3f} by op {op.number}: {type(error).__name__}: {error}"

    def _is_doubtful(self, effect: Effect) -> bool:
        """Tell whether nobody can know what became of a submission, or of a row that an earlier life left."""
        if effect in self._doubtful or effect.adopted:
            return True
        return any(post.outcome == "doubt" or self._is_odd(post.made) for post in effect.posts)

    def _is_odd(self, made: Made | None) -> bool:
        """Tell whether a task was lost sight of, or has another's id."""
        return made is not None and (made.given_up or self._service.ids[made.id] > 1)

    def given(self, op: Op, prompt: str, sound: SoundEffect) -> None:
        """Check that an effect is the one that was wanted."""
        effect = self.of_prompt[prompt]
        if sound.task_id is None:
            fits = any(post.made is not None and post.made.url == sound.url for post in effect.posts)
        else:
            prompts = {made.prompt for made in self._service.made if made.id == sound.task_id}
            fits = any(self.of_prompt.get(other) is effect for other in prompts)
            fits = fits or sound.task_id in effect.adopted
        if not fits:
            self._history.violate("9", f"op {op.number} got {sound!r} for {prompt!r}, which is another's")

    def check_error(self, op: Op, error: BaseException, allowed: tuple[type[FineVoiceError], ...]) -> None:
        """Check that an error is one of those that the operation names."""
        if "bug of the library" in str(error) or not isinstance(error, allowed):
            self.violate("4", op, f"raised {type(error).__name__}: {error}")

    def wrong(self, op: Op, text: str) -> None:
        """Note that an operation gave what it never should."""
        self.violate("9", op, text)

    def violate(self, rule: str, op: Op, text: str) -> None:
        """Note that an operation broke a rule."""
        self._history.violate(rule, f"op {op.number} {op.name}: {text}")

    def note(self, op: Op, text: str) -> None:
        """Write a line about an operation."""
        self._history.note(f"op {op.number}: {text}")

    # Lives

    def begin_life(self, path: Path, *, limit: int, resend_unknown: bool) -> None:
        """A session is about to be opened on this file: it will know what the file says to run."""
        self.limit, self.resend_unknown = limit, resend_unknown
        for effect in self.effects.values():
            effect.resubmitting = 0
            effect.settled_in = False
            effect.wishers.clear()
        for post in self.posts:
            if post.outcome == "out":
                post.outcome = "doubt"
        rows = read_rows(path)
        self._check_unsent(rows)
        self._doubtful = {self.of_prompt[row["prompt"]] for row in rows if row["state"] in ("sending", "unknown")}
        running = {row["task_id"] for row in rows if row["state"] == "submitted"}
        for made in self._service.made:
            made.seen = made.strict = made.id in running
            made.known_since = self._history.now() if made.strict else None
            made.missing_since = None

    def crashed(self) -> None:
        """Note that this life ends by a crash."""
        self._crashes[self._history.life] = self._history.now()

    def _check_unsent(self, rows: list[dict[str, Any]]) -> None:
        """Whoever was told that nothing is sent can rely on it: no row of it could be sent."""
        for row in rows:
            effect = self.of_prompt[row["prompt"]]
            # What had failed at the service before stays so where another try comes to nothing.
            failed_before = row["state"] == "failed" and any(post.outcome == "known" for post in effect.posts)
            if effect.unsent is not None and row["state"] != "refused" and not failed_before:
                words = f"row {row['id']} of {row['prompt']!r} is {row['state']}, whose caller was told {effect.unsent}"
                self._history.violate("7", words)

    def check_end(self, path: Path) -> None:
        """After the last life: everything is settled or listed, and nothing that was paid for is lost."""
        rows = read_rows(path)
        self._check_unsent(rows)
        for row in rows:
            if row["state"] not in SETTLED:
                self._history.violate("8", f"row {row['id']} (key {row['key']}) is left {row['state']}")
        for effect in self.effects.values():
            paid = [post for post in effect.posts if post.made is not None and post.is_open]
            if len(paid) > 1:
                self._history.violate("1", f"{effect.name!r} was paid for {len(paid)} times")
            self._check_known(effect, [post.made for post in paid if not post.adopted], rows)
            if effect.kept and not effect.posts and not self._listed(effect, rows):
                self._history.violate("10", f"{effect.name!r} was enqueued, and is neither sent nor listed")

    def _rows_of(self, effect: Effect, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mine = [row for row in rows if row["key"] == effect.key and effect.key is not None]
        return mine or [row for row in rows if self.of_prompt[row["prompt"]] is effect]

    def _listed(self, effect: Effect, rows: list[dict[str, Any]]) -> int:
        """Return in how many rows the caller is told that it may be paid for."""
        return sum(row["state"] in ("unknown", "lost") for row in self._rows_of(effect, rows))

    def _check_known(self, effect: Effect, paid: list[Made | None], rows: list[dict[str, Any]]) -> None:
        mine, listed = self._rows_of(effect, rows), self._listed(effect, rows)
        lost = []
        for made in paid:
            assert made is not None
            first = made.id is not None and self._service.by_id[made.id] is made
            where = rows if first else mine
            known = (
                any(made.id in row["ids"] for row in where) if made.id else any(made.url in row["urls"] for row in mine)
            )
            if not known:
                lost.append(made)
        if not listed and any(post.is_open and post.outcome == "doubt" and not post.adopted for post in effect.posts):
            self._history.violate("2", f"{effect.name!r} may be paid for, and its row is {mine}")
        if len(lost) > listed:
            ids = [made.id or made.url for made in lost]
            states = [row["state"] for row in mine]
            self._history.violate(
                "2", f"{effect.name!r}: {ids} accepted, not in the journal, {listed} listed ({states})"
            )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a journal's file that nobody has open, by way of a copy: reading would merge its log into it."""
    if not path.exists():
        return []
    look = path.with_name("look.db")
    copy_journal(path, look)
    db = sqlite3.connect(look)
    try:
        query = "SELECT id, key, state, request, task_id, past_task_ids, urls FROM effects ORDER BY id"
        has_table = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'effects'").fetchone()
        found = db.execute(query).fetchall() if has_table else []
    finally:
        db.close()
        look.unlink()
    return [
        {
            "id": number,
            "key": key,
            "state": state,
            "prompt": json.loads(request)["prompt"],
            "task_id": task_id,
            "ids": [task_id, *past.split()],
            "urls": urls,
        }
        for number, key, state, request, task_id, past, urls in found
    ]


def copy_journal(path: Path, to: Path) -> None:
    """Copy a journal's files as they are on the disk now."""
    for suffix in ("", "-wal"):
        source, target = Path(f"{path}{suffix}"), Path(f"{to}{suffix}")
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
