"""What callers ask of a session, each with what it may answer; every answer goes to the oracle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from lives.queue_operations import CLOSED, GENERATE, KEYS, OWNERS, SETTLE, SUBMIT, WAIT, Job, Kinds, QueueOperations
from lives.wishes import Effect, Op

from finevoice_async import FineVoiceError, InvalidRequestError, JournalRow, Outcome, SessionClosedError


class Operations(QueueOperations):
    """Draws operations on a session. Each is a name, the errors that it may raise, and what it does."""

    def draw(self) -> tuple[str, Kinds, Job]:
        """Draw an operation."""
        draws = {
            self._one_keyed: 6,
            self._one: 4,
            self._enqueue: 5,
            self._withdraw: 3,
            self._find: 2,
            self._many: 3,
            self._recover: 2,
            self._settle: 5,
            self._attach: 2,
            self._wait: 1,
            self._look: 1,
        }
        return self._luck.choices(list(draws), list(draws.values()))[0]()

    # One effect

    def _one_keyed(self) -> tuple[str, Kinds, Job]:
        key = self._luck.choice(KEYS)
        return self._generate(self._prompt_of(key), key)

    def _one(self) -> tuple[str, Kinds, Job]:
        return self._generate(f"effect {next(self._numbers)}", None)

    def _generate(self, prompt: str, key: str | None) -> tuple[str, Kinds, Job]:
        retry = self._luck.random() < 0.25
        halves = self._luck.random() < 0.4
        patience = self._luck.choice([None, 3.0, 30.0])
        owner = self._luck.choice(OWNERS)

        async def job(op: Op) -> str:
            self._oracle.wish(op, prompt, key, retry=retry)
            try:
                if halves:
                    task = await self._session.submit(prompt, key=key, owner=owner, retry_failed=retry)
                    self._tasks.append(task)
                    sound = await (task if patience is None else task.wait(patience))
                else:
                    sound = await self._session.generate(prompt, key=key, owner=owner, retry_failed=retry)
            except FineVoiceError as error:
                self._oracle.told(op, prompt, error)
                raise
            self._oracle.given(op, prompt, sound)
            return f"{sound.task_id}"

        name = f"{'submit' if halves else 'generate'}({prompt!r}, key={key!r}, retry_failed={retry})"
        return name, GENERATE, job

    # Many

    def _many(self) -> tuple[str, Kinds, Job]:
        luck = self._luck
        items: list[Any] = []
        prompts: list[tuple[str, str | None] | None] = []
        for _ in range(luck.choice([1, 3, 6])):
            key = luck.choice(KEYS) if luck.random() < 0.3 else None
            prompt = self._prompt_of(key) if key is not None else f"effect {next(self._numbers)}"
            odd = luck.random() < 0.05
            fields = {"prompt": prompt, "key": key, "owner": luck.choice(OWNERS)}
            items.append("  " if odd else fields if key is not None else prompt)
            prompts.append(None if odd else (prompt, key))
        ordered, retry = luck.random() < 0.4, luck.random() < 0.2
        leave_after = luck.choice([None, None, None, 1, 2])
        pause = luck.choice([None, 0.0, 0.5])
        dropped = luck.random() < 0.3

        async def source() -> AsyncIterator[Any]:
            for item in items:
                await asyncio.sleep(pause or 0.0)
                yield item

        async def job(op: Op) -> str:
            for wanted in prompts:
                if wanted is not None:
                    self._oracle.wish(op, *wanted, retry=retry)
            seen: list[int] = []
            outcomes = self._session.generate_many(
                items if pause is None else source(), ordered=ordered, retry_failed=retry
            )
            async for outcome in _left_after(outcomes, leave_after, dropped):
                seen.append(outcome.index)
                wanted = prompts[outcome.index]
                self._outcome(op, outcome, None if wanted is None else wanted[0])
            self._oracle.left(op)
            if len(set(seen)) < len(seen) or (ordered and seen != sorted(seen)):
                self._oracle.wrong(op, f"the outcomes came as {seen}")
            if leave_after is None and not self.is_closing and len(seen) < len(items):
                self._oracle.wrong(op, f"{len(seen)} outcomes of {len(items)}")
            return f"outcomes {seen}"

        shown = ", ".join("odd" if wanted is None else f"{wanted[0]}/{wanted[1]}" for wanted in prompts)
        name = f"generate_many([{shown}], ordered={ordered}, retry_failed={retry}), left after {leave_after}"
        return name, CLOSED, job

    def _outcome(self, op: Op, outcome: Outcome, prompt: str | None) -> None:
        self._oracle.note(op, f"outcome {outcome.index}: {outcome.task_id} {outcome.error!r}")
        if outcome.error is not None:
            self._oracle.check_error(op, outcome.error, GENERATE)
            if prompt is not None:
                self._oracle.told(op, prompt, outcome.error)
        elif outcome.effect is None:
            self._oracle.wrong(op, "an outcome is empty")
        elif prompt is None:
            self._oracle.wrong(op, "an odd item came to an effect")
        else:
            self._oracle.given(op, prompt, outcome.effect)

    def _recover(self) -> tuple[str, Kinds, Job]:
        leave_after = self._luck.choice([None, None, 1, 3])
        dropped = self._luck.random() < 0.3

        async def job(op: Op) -> str:
            return await self.recover(op, leave_after, dropped=dropped)

        return f"recover(), left after {leave_after}", CLOSED, job

    async def recover(self, op: Op, leave_after: int | None, *, dropped: bool) -> str:
        """Recover, and look that nothing is given twice."""
        given: set[str] = set()
        async for outcome in _left_after(self._session.recover(), leave_after, dropped):
            assert outcome.request is not None
            prompt = str(outcome.request.prompt)
            effect = self._oracle.of_prompt[prompt]
            if effect.name in given:
                self._oracle.violate("6", op, f"{effect.name!r} is given twice")
            given.add(effect.name)
            self._outcome(op, outcome, prompt)
        return f"{len(given)} outcomes"

    # What is unknown

    def _settle(self) -> tuple[str, Kinds, Job]:
        how = self._luck.choice(["resubmit", "resubmit", "resubmit without consent", "adopt", "adopt", "discard"])
        stale = self._luck.random() < 0.2

        async def job(op: Op) -> str:
            rows = list(self._rows) if stale else await self._listed(how)
            if not rows:
                return "nothing to settle"
            row = self._luck.choice(rows)
            self._oracle.note(op, f"settles row {row.id}, {row.request.prompt}, key {row.key}, {row.state.value}")
            effect = self._oracle.effect_of(row)
            effect.settled_in, effect.kept = True, False  # from here on it is as its caller wants it
            if how == "resubmit":
                return await self._resubmit(row, effect)
            if how == "discard":
                return await self._discard(row, effect)
            if how == "adopt":
                return await self._adopt(row, effect)
            task = await self._session.resubmit(row)
            self._oracle.wrong(op, f"resubmit() without consent gave {task!r}")
            return ""

        return how, SUBMIT, job

    async def _listed(self, how: str) -> list[JournalRow]:
        rows = await self._session.unknown()
        self._rows += rows
        if how == "discard" and self._luck.random() < 0.2:
            rows = [row async for row in self._session.rows()]
        return rows

    async def _resubmit(self, row: JournalRow, effect: Effect) -> str:
        effect.resubmitting += 1
        effect.unsent = None
        try:
            task = await self._session.resubmit(row, accept_double_charge=True)
        except FineVoiceError:
            effect.resubmitting -= 1
            raise  # a cancelled call may have sent it, and may still do so
        effect.resubmitting -= 1
        self._tasks.append(task)
        return f"{task.id}"

    async def _discard(self, row: JournalRow, effect: Effect) -> str:
        open_ones = [post for post in effect.posts if post.is_open and post.outcome != "out"]
        forgiven = True  # also if nobody knows whether it came to pass
        try:
            await self._session.discard(row)
        except (InvalidRequestError, SessionClosedError):
            forgiven = False
            raise
        finally:
            effect.kept = effect.kept and not forgiven
            for post in open_ones:
                post.forgiven |= forgiven
        return "given up"

    async def _adopt(self, row: JournalRow, effect: Effect) -> str:
        shown = self._oracle.ids_shown()
        own = [
            task_id for task_id in shown if self._oracle.of_prompt.get(self._service.by_id[task_id].prompt) is effect
        ]
        foreign = [task_id for task_id in shown if task_id not in own]
        task_id = self._luck.choice((own * 8 or foreign) + foreign[-1:] + ["p1-nobody", "."])
        doubtful = [post for post in effect.posts if post.is_open and post.outcome != "out"]
        effect.adopted.append(task_id)
        effect.unsent = None
        for post in doubtful:
            post.adopted.append(task_id)
        try:
            task = await self._session.adopt(row, task_id=task_id)
        except InvalidRequestError:  # after any other error nobody knows
            effect.adopted.remove(task_id)
            for post in doubtful:
                post.adopted.remove(task_id)
            raise
        return f"{task.id}"

    # Looking

    def _attach(self) -> tuple[str, Kinds, Job]:
        known = self._oracle.ids_shown()
        task_id = self._luck.choice([*known[-5:] * 3, *known[:3], "p1-garbage", "p1-nonsense", "", "x" * 600])
        patience = self._luck.choice([0.5, 5.0, 60.0])

        async def job(op: Op) -> str:
            task = await self._session.attach(task_id)
            self._tasks.append(task)
            if patience == 0.5:
                return "not waited for"
            return f"{(await task.wait(patience)).task_id}"

        return f"attach({task_id[:20]!r})", (*SETTLE, *WAIT), job

    def _wait(self) -> tuple[str, Kinds, Job]:
        task = self._luck.choice(self._tasks) if self._tasks else None
        changes = self._luck.random() < 0.5

        async def job(op: Op) -> str:
            if task is None:
                return "no task"
            if changes:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(20):
                        return " ".join([update.status.value async for update in task.updates()])
            return f"{(await task.wait(20)).task_id}"

        return f"wait for {task!r}, changes={changes}", GENERATE, job

    def _look(self) -> tuple[str, Kinds, Job]:
        async def job(op: Op) -> str:
            return " ".join([f"{row.id}:{row.state.value}" async for row in self._session.rows()])

        return "rows()", CLOSED, job


async def _left_after(outcomes: AsyncIterator[Outcome], count: int | None, dropped: bool) -> AsyncIterator[Outcome]:
    """Yield some outcomes, and leave: properly, or by just dropping the rest."""
    left = -1 if count is None else count
    async with contextlib.AsyncExitStack() as stack:
        if not dropped:
            await stack.enter_async_context(aclosing(outcomes))  # type: ignore[type-var]  # it is a generator
        async for outcome in outcomes:
            yield outcome
            left -= 1
            if left == 0:
                return
