"""What the oracle keeps of each operation, each submission and each effect."""

from __future__ import annotations

import asyncio

import attrs
from lives.service import Made

from finevoice_async import FineVoiceError


@attrs.define(eq=False)
class Op:
    """Something that was asked of a session.

    Attributes:
        number: Its number among the operations of the seed.
        name: What it is, for people.
        allowed: The errors that its docstring names.
        began: When it began.
        ended: When it ended; None if it has not, or if a crash came before.
        stopped: The test cancelled it, or its time was up.
        task: What runs it.
        wishes: The effects that it asked for.
    """

    number: int
    name: str
    allowed: tuple[type[FineVoiceError], ...]
    began: float
    ended: float | None = None
    stopped: bool = False
    task: asyncio.Task[None] | None = None
    wishes: list[Effect] = attrs.field(factory=list)


@attrs.define(eq=False)
class Post:
    """A submission that left the client.

    Attributes:
        number: Its number.
        prompt: What it asked for.
        life: In which life it left.
        sent_at: When.
        slot_since: When its slot was taken, at the latest: when the first of a row of refused ones left, or, if it
            waited in line, when the line began.
        outcome: What the client can know: `out`, `refused`, `doubt`, `known`.
        made: What the service accepted.
        forgiven: The caller gave it up.
        replaced_by: The caller consented to this one in its place; if it is refused, nothing was replaced.
        adopted: The tasks that the caller said it became.
        resendable: The session may send it again (`Retry.resend_unknown`).
    """

    number: int
    prompt: str
    life: int
    sent_at: float
    slot_since: float
    outcome: str = "out"
    made: Made | None = None
    forgiven: bool = False
    replaced_by: Post | None = None
    adopted: list[str] = attrs.field(factory=list)
    resendable: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it may have been accepted, and nobody has consented to another one."""
        replaced = self.replaced_by is not None and self.replaced_by.outcome != "refused"
        return self.outcome != "refused" and not self.forgiven and not replaced


@attrs.define(eq=False)
class Effect:
    """What the caller wants once.

    Attributes:
        name: The key, or the prompt.
        key: The key, if it has one.
        posts: All its submissions.
        resubmitting: Calls of `resubmit` that may still send.
        retries: Operations with `retry_failed=True`.
        unsent: When and how a caller of a wish without a key was told that nothing is sent.
        adopted: The tasks that the caller said it became.
        settled_in: Somebody has tried to settle its row, in this life.
        left_at: When its only caller left before anything was sent, if that was a wish without a key.
        left_in: In which life.
        wishers: The operations of this life that wished for it, and may do so later still.
        wished: How often it was wished for.
        kept: `enqueue` has returned, and nobody has taken the wish back or given it up since.
        was_kept: The same, whatever came afterwards.
    """

    name: str
    key: str | None
    posts: list[Post] = attrs.field(factory=list)
    resubmitting: int = 0
    retries: list[Op] = attrs.field(factory=list)
    unsent: str | None = None
    adopted: list[str] = attrs.field(factory=list)
    settled_in: bool = False
    left_at: float | None = None
    left_in: int = 0
    wishers: list[Op] = attrs.field(factory=list)
    wished: int = 0
    kept: bool = False
    was_kept: bool = False
