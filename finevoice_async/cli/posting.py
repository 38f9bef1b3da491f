"""One submission of the command, which Ctrl-C lets end: so it is known whether it is paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import attrs

from finevoice_async import FineVoiceSession, SfxTask, SubmitUnknownError
from finevoice_async.cli.talk import command, give_json, listed, say

_AT_ONCE = 0.3  # seconds in which a session closes that waits for nothing


class Posting:
    """A call of the session's that submits, on a task of its own that a cancelled caller does not cancel."""

    def __init__(self, session: FineVoiceSession, submit: Coroutine[Any, Any, SfxTask]) -> None:
        self._session = session
        self._submit = asyncio.create_task(submit, name="finevoice-posting")
        self.was_out = False  # its answer may have been due when the closing began

    async def known(self) -> SfxTask:
        """Wait for the task.

        Raises:
            FineVoiceError: There is none, as for `FineVoiceSession.submit`.
        """
        await asyncio.wait([self._submit])
        return self._submit.result()

    async def close(self) -> None:
        """After an interruption: close the session, which waits for the answer that is due, and for nothing else."""
        self.was_out = self._session.stats.submitting > 0
        closing = asyncio.create_task(self._session.aclose(), name="finevoice-closing")
        try:
            if not (await asyncio.wait([closing], timeout=_AT_ONCE))[0] and self.was_out:
                say("Stopping. The answer to the submission is due; Ctrl-C again ends without it.")
            await closing
            await asyncio.wait([self._submit])
        finally:
            self._submit.cancel()

    @property
    def task(self) -> SfxTask | None:
        """The task, once it is known."""
        if not self._submit.done() or self._submit.cancelled() or self._submit.exception() is not None:
            return None
        return self._submit.result()

    @property
    def is_in_doubt(self) -> bool:
        """Whether it may be paid for without anybody knowing its task. To be asked after `close`."""
        if not self._submit.done() or self._submit.cancelled():
            return self.was_out
        return isinstance(self._submit.exception(), SubmitUnknownError)


@attrs.frozen(kw_only=True)
class Interruption:
    """What is open when the command is stopped.

    Attributes:
        emulated: It ran on an embedded emulator.
        running: The ids of tasks that the service goes on with, or whose results were not fetched.
        asked_for: The id of a task of another run that was asked for, of which the service has said nothing yet.
        in_doubt: How many submissions were not answered.
        advice: What the command line that follows does.
        again: The command line to go on with.
    """

    emulated: bool
    running: list[str] = attrs.field(factory=list)
    asked_for: str | None = None
    in_doubt: int = 0
    advice: str
    again: str

    @property
    def paid(self) -> bool | None:
        """Whether something is paid for; None if nobody knows."""
        if self.emulated:
            return False
        if not self.running and (self.in_doubt or self.asked_for is not None):
            return None
        return bool(self.running)

    def tell(self, *, as_json: bool) -> None:
        """Say it, for a person or a program."""
        if as_json:
            told: dict[str, Any] = {
                "interrupted": True,
                "paid": self.paid,
                "task_ids": self.running if self.asked_for is None else [*self.running, self.asked_for],
                "perhaps_paid": 0 if self.emulated else self.in_doubt,
                "continue": self.again,
            }
            give_json(told)
            return
        say("", *self._words(), self.advice, f"  {self.again}")

    def _words(self) -> list[str]:
        if self.emulated:
            return ["Interrupted. It ran on an emulator, which is gone now: nothing was paid."]
        if self.asked_for is not None:
            return [
                "Interrupted. Nothing was sent and nothing was fetched; the service has not said yet whether it knows",
                f"  {self.asked_for}",
            ]
        words = []
        if self.running:
            words += ["Interrupted. Paid for, and kept at the service:", *listed(self.running)]
        if self.in_doubt:
            what = "One submission was" if self.in_doubt == 1 else f"{self.in_doubt} submissions were"
            start = "" if words else "Interrupted. "
            words += [
                f"{start}{what} sent and not answered: perhaps paid.",
                "Look at your account before you send again.",
            ]
        return words or ["Interrupted. Nothing was submitted and nothing was paid."]


def look_at(journal: object) -> str:
    """Return the command that shows what a journal holds in doubt."""
    return command("journal", str(journal), state="perhaps-paid")
