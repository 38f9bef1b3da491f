"""What callers may be told, and the operations about what waits: to enqueue, to withdraw, to find again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from lives.oracle import Oracle
from lives.service import Service
from lives.wishes import Op

from finevoice_async import (
    AuthenticationError,
    BudgetExceededError,
    FineVoiceError,
    FineVoiceSession,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalRow,
    PollError,
    RateLimitError,
    RequestRejectedError,
    SessionClosedError,
    SfxTask,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
    TaskTimeoutError,
)

Kinds = tuple[type[FineVoiceError], ...]

CLOSED: Final[Kinds] = (SessionClosedError,)
SUBMIT: Final[Kinds] = (
    InvalidRequestError,
    SubmitNotSentError,
    SubmitUnknownError,
    BudgetExceededError,
    AuthenticationError,
    InsufficientCreditsError,
    RequestRejectedError,
    RateLimitError,
    PollError,
    SessionClosedError,
)
WAIT: Final[Kinds] = (
    TaskFailedError,
    TaskTimeoutError,
    TaskNotFoundError,
    PollError,
    AuthenticationError,
    SessionClosedError,
)
GENERATE: Final[Kinds] = (*SUBMIT, *WAIT)
SETTLE: Final[Kinds] = (InvalidRequestError, SessionClosedError)

KEYS: Final = ("a", "b", "c")
OWNERS: Final = (None, None, "x", "y")

Job = Callable[[Op], Awaitable[str]]


class QueueOperations:
    """Draws operations on what waits."""

    def __init__(
        self, session: FineVoiceSession, oracle: Oracle, service: Service, luck: random.Random, numbers: Any
    ) -> None:
        self._session = session
        self._oracle = oracle
        self._service = service
        self._luck = luck
        self._numbers = numbers  # of prompts; they go on from life to life
        self._rows: list[JournalRow] = []  # rows that were listed as unknown, perhaps long ago
        self._tasks: list[SfxTask] = []
        self.is_closing = False

    def _prompt_of(self, key: str) -> str:
        """Return the prompt of a key: mostly the same one."""
        effect = self._oracle.effects.get(key)
        if effect is None or self._luck.random() < 0.12:
            return f"effect {next(self._numbers)}"
        known = [prompt for prompt, owner in self._oracle.of_prompt.items() if owner is effect]
        return known[-1] if self._luck.random() < 0.8 else self._luck.choice(known)

    def _enqueue(self) -> tuple[str, Kinds, Job]:
        luck = self._luck
        key = luck.choice(KEYS) if luck.random() < 0.4 else None
        prompt = f"effect {next(self._numbers)}" if key is None else self._prompt_of(key)
        owner, retry = luck.choice(OWNERS), luck.random() < 0.2
        pause, patience = luck.choice([None, None, 0.0, 1.0, 20.0]), luck.choice([None, 3.0, 30.0])
        withdraws = luck.random() < 0.3

        async def job(op: Op) -> str:
            self._oracle.wish(op, prompt, key, retry=retry)
            try:
                task = await self._session.enqueue(prompt, key=key, owner=owner, retry_failed=retry)
                self._oracle.kept(op, prompt)
                self._tasks.append(task)
                if pause is None:
                    return f"{task!r}, nobody waits"
                await asyncio.sleep(pause)
                if withdraws:
                    return f"withdrawn: {await self._take_back(op, task)}"
                sound = await (task if patience is None else task.wait(patience))
            except FineVoiceError as error:
                self._oracle.told(op, prompt, error)
                raise
            self._oracle.given(op, prompt, sound)
            return f"{sound.task_id}"

        return f"enqueue({prompt!r}, key={key!r}, owner={owner!r}, retry_failed={retry})", GENERATE, job

    def _withdraw(self) -> tuple[str, Kinds, Job]:
        waiting = [task for task in self._tasks if task.status is TaskStatus.QUEUED] or self._tasks
        task = self._luck.choice(waiting) if waiting else None

        async def job(op: Op) -> str:
            return "nothing to withdraw" if task is None else await self._take_back(op, task)

        return f"withdraw {task!r}", CLOSED, job

    async def _take_back(self, op: Op, task: SfxTask) -> str:
        effect = self._oracle.of_prompt.get(str(task.request.prompt)) if task.request else None
        if effect is None or task.done():
            return "nothing to withdraw"
        effect.settled_in = True
        others = any(wisher.ended is None for wisher in effect.wishers if wisher is not op)
        wished = -1 if others else effect.wished
        kept = effect.kept
        effect.kept = False  # whoever is cancelled does not know
        taken_back = await task.withdraw()
        if taken_back:
            self._oracle.withdrawn(op, effect, wished)
        elif not effect.kept:
            effect.kept = kept
        return f"{taken_back}"

    def _find(self) -> tuple[str, Kinds, Job]:
        luck = self._luck
        key, ids = luck.choice(KEYS), self._oracle.ids_shown()
        task_id = luck.choice(ids) if ids and luck.random() < 0.4 else None
        made = luck.choice(self._tasks).key if self._tasks and luck.random() < 0.4 else None
        awaits = luck.random() < 0.4

        async def job(op: Op) -> str:
            name = made or key
            known = self._oracle.effects.get(name)
            must_be = task_id is None and known is not None and known.was_kept
            task = await (self._session.find(key=name) if task_id is None else self._session.find(task_id=task_id))
            if task is None:
                if must_be:
                    self._oracle.wrong(op, "what was kept is not found")
                return "None"
            if known is not None and task_id is None and task.request is not None:
                prompt = str(task.request.prompt)
                if self._oracle.of_prompt.get(prompt) is not known:
                    self._oracle.wrong(op, f"found {prompt!r}")
            self._tasks.append(task)
            return f"{(await task.wait(20)).task_id}" if awaits else f"{task!r}"

        return f"find({task_id or made or key!r}), awaits={awaits}", (*GENERATE, *SETTLE), job
