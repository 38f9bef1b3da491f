"""Whether the service knows a task of another run: asked until it says so, for a short time."""

from __future__ import annotations

import asyncio

from finevoice_async import FineVoiceSession, PollError, TaskNotFoundError, TaskStatus
from finevoice_async.cli.service import PATIENCE

GRACE = 4.0
"""Seconds for which a task that the service does not know is asked for. It was submitted long ago: half a minute, as
for one that was submitted just now, looks like a hang to whoever has mistyped an id."""

_PAUSE = 1.0  # seconds between two questions
_PASSING = (408, 409, 429)  # statuses that say "not now"
_MIN_ASKED = 3  # times, before a service that does not say counts as not reached


class Search:
    """The search for a task."""

    def __init__(self, task_id: str, host: str) -> None:
        self.task_id = task_id
        self.host = host
        # All mutable state:
        self.found = False  # the service has answered for it, or a journal has it
        self.status: TaskStatus | None = None  # what the service said
        self._trouble = ""  # why it is not found yet
        self._began: float | None = None

    @property
    def _waited(self) -> float:
        """Seconds since the service was asked first."""
        return 0.0 if self._began is None else asyncio.get_running_loop().time() - self._began

    def describe(self) -> str:
        """Say what is waited for."""
        return f"{self._trouble or f'Asking {self.host} for the task'}, {self._waited:.0f} s so far"

    async def run(self, session: FineVoiceSession) -> None:
        """Ask until the service knows it; not at all if the journal does, which says when it was submitted.

        Raises:
            TaskNotFoundError: The service does not know it.
            PollError: The service was not reached, or does not say.
            FineVoiceError: As for `FineVoiceSession.status` and `FineVoiceSession.find`.
        """
        if await session.find(task_id=self.task_id) is not None:
            self.found = True
            return
        self._began, asked = asyncio.get_running_loop().time(), 0
        while self.status is None:
            asked += 1
            try:
                self.status = (await session.status(self.task_id)).status
            except (TaskNotFoundError, PollError) as error:
                if self._is_over(error, asked):
                    raise
            if self.status is None:
                await asyncio.sleep(_PAUSE)
        self.found = True

    def _is_over(self, error: TaskNotFoundError | PollError, asked: int) -> bool:
        if isinstance(error, TaskNotFoundError):
            self._trouble = f"{self.host} does not know this task yet"
            return self._waited >= GRACE
        self._trouble = f"{self.host} cannot be reached" if error.status is None else f"{self.host} does not say"
        stays = error.status is not None and 300 <= error.status < 500 and error.status not in _PASSING
        return stays or (self._waited >= PATIENCE and asked >= _MIN_ASKED)
