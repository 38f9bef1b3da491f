"""What carries the calls of one life to the service: late, twice as late, or not at all. No sockets."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from urllib.parse import unquote

import attrs
from lives.history import History
from lives.oracle import Oracle
from lives.service import REFUSALS, Made, Service
from lives.wishes import Post

from finevoice_async.config import Timeouts
from finevoice_async.core.failures import Failure, FailureKind
from finevoice_async.core.tasks import TASK_PATH
from finevoice_async.core.wire import Reply, find_task_id


@attrs.define(eq=False)
class Network:
    """The network of one life. When the life is over, nothing passes any more.

    Attributes:
        service: Where calls go.
        oracle: Hears what leaves the client, and what it is told.
        history: Gets a line for each call that matters.
        luck: Draws delays.
        grace: `Polling.grace` of this life.
        over: The life is over.
        out: Submissions that have left and not arrived, with what will become of them.
    """

    service: Service
    oracle: Oracle
    history: History
    luck: random.Random
    grace: float
    over: bool = False
    out: dict[Post, str] = attrs.field(factory=dict)

    def delay(self) -> float:
        """Return how long one way takes, in seconds."""
        return self.luck.choice([0.0, 0.005, 0.02, 0.1]) + (2.0 if self.luck.random() < 0.02 else 0.0)

    def crash(self) -> None:
        """Nothing passes any more; what has left may arrive, or not."""
        for post in list(self.out):
            if self.luck.random() < 0.5:
                self.arrive(post)
        self.over = True

    def arrive(self, post: Post) -> Reply | None:
        """A submission reaches the service; None if it was lost on the way."""
        fate = self.out.pop(post, None)
        if self.over or fate is None:
            return None
        before = len(self.service.made)
        reply = self.service.receive(post.prompt, fate, self.history.now())
        if len(self.service.made) > before:
            post.made = self.service.made[-1]
        return reply


class FakeTransport:
    """Fulfils `ports.Transport`; made as the real one is."""

    def __init__(
        self,
        network: Network,
        base_url: str,
        api_key: str | None,
        timeouts: Timeouts,
        http: object,
        *,
        deadline: AbstractContextManager[None],
    ) -> None:
        self.base_url = base_url
        self._network = network
        self._deadline = deadline

    def post(self, path: str, body: bytes, *, deadline: AbstractContextManager[None] | None = None) -> Awaitable[Reply]:
        """Send a submission."""
        return self._post(json.loads(body)["prompt"], self._deadline if deadline is None else deadline)

    def get(self, path: str) -> Awaitable[Reply]:
        """Ask for a task."""
        return self._get(unquote(path.removeprefix(TASK_PATH)))

    def conceal(self, body: bytes) -> bytes:
        """There is nothing to conceal."""
        return body

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def _post(self, prompt: str, deadline: AbstractContextManager[None]) -> Reply:
        network = self._network
        if network.over:
            raise Failure(FailureKind.NOT_SENT, "this life is over")
        fate = network.service.draw()
        post = network.oracle.leaves(prompt)
        network.history.note(f"   POST {post.number} of {prompt} leaves; its fate: {fate}")
        how, told = "doubt", "cut off"
        try:
            with deadline:
                reply = await self._carry(post, fate)
            how, told = _read(reply), f"{reply.status} {reply.body[:60]!r}"
            if how == "known":
                network.oracle.learned(post.made)
        except TimeoutError:
            told = "time is up"
            raise Failure(FailureKind.LOST, "TimeoutError") from None
        except Failure as failure:
            told = failure.what
            if failure.kind is not FailureKind.LOST:
                how = "refused"
            raise
        finally:
            if not network.over:
                post.outcome = how
                network.history.note(f"   POST {post.number} of {prompt}: the client hears {told} ({how})")
        return reply

    async def _carry(self, post: Post, fate: str) -> Reply:
        network = self._network
        if fate == "not sent":
            await asyncio.sleep(network.delay())
            raise Failure(FailureKind.NOT_SENT, "connection refused")
        if fate == "certificate":
            await asyncio.sleep(network.delay())
            raise Failure(FailureKind.CERTIFICATE, "the server's certificate is not trusted")
        answer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        network.out[post] = fate

        def arrive() -> None:  # also if nobody waits for the answer any more
            reply = network.arrive(post)
            if not answer.done():
                answer.set_result(reply)

        if fate in ("lost before", "silent before"):
            del network.out[post]
        asyncio.get_running_loop().call_later(network.delay(), arrive)
        reply = await answer
        await asyncio.sleep(network.delay())
        if fate.startswith("silent"):
            await asyncio.sleep(1e9)
        if fate.startswith("lost") or reply is None:
            raise Failure(FailureKind.LOST, "ServerDisconnectedError")
        return reply

    async def _get(self, task_id: str) -> Reply:
        network = self._network
        if network.over:
            raise Failure(FailureKind.NOT_SENT, "this life is over")
        try:
            with self._deadline:
                await asyncio.sleep(network.delay())
                reply = network.service.tell(task_id, network.history.now())
                await asyncio.sleep(network.delay())
        except TimeoutError:
            raise Failure(FailureKind.LOST, "TimeoutError") from None
        if network.luck.random() < network.service.weather.poll_faults / 3:
            raise Failure(network.luck.choice([FailureKind.LOST, FailureKind.NOT_SENT]), "no luck")
        made = network.service.by_id.get(task_id)
        if made is not None and not network.over:
            self._shown(made, reply)
        elif reply.status != 404 and not network.over:
            network.history.note(f"   GET {task_id}: {reply.status}")
        return reply

    def _shown(self, made: Made, reply: Reply) -> None:
        """Note what the client learns of a task; it can take it for lost after 404s for a whole grace."""
        now = self._network.history.now()
        if reply.status in (404, 410):
            if made.missing_since is None:
                made.missing_since = now
            since = made.missing_since if made.seen else made.since
            if now - since >= self._network.grace - 1e-6 or now - made.missing_since >= self._network.grace - 1e-6:
                made.given_up, made.known_since, made.strict = True, None, False
        elif reply.status == 200 and reply.body[:1] == b"{":
            made.missing_since, made.seen = None, True
            if made.known_since is None:
                made.known_since = now
        if reply.status != 200 or (b'"status": 202' not in reply.body and b"pro" not in reply.body):
            self._network.history.note(f"   GET {made.id}: {reply.status} {reply.body[:50]!r}")


def _read(reply: Reply) -> str:
    """Return what the client can know of a submission by its answer: `known`, `refused` or `doubt`."""
    if reply.status in REFUSALS:
        return "refused"
    if reply.status not in (200, 201):
        return "doubt"
    if find_task_id(reply.body) is not None or b'"url"' in reply.body:
        return "known"
    return "refused" if b'"failed"' in reply.body else "doubt"
