"""A fast local service to measure clients against: a process of its own, a bare asyncio protocol, no framework.

    python benchmarks/fast_server.py [--port 0]      prints its address, serves until its standard input ends

It speaks four dialects of "submit, then ask until it is done", each as its own client expects it:

    FineVoice   POST /v1/audio/sfx-generation   GET /v1/task/{id}
    fal         POST /bench/sfx                 GET /fal/{id}/status, GET /fal/{id}
    replicate   POST /v1/predictions            GET /v1/predictions/{id}
    runwayml    POST /v1/sound_effect           GET /v1/tasks/{id}

`POST /reset` with a `Law` as JSON forgets all tasks; `GET /stats` tells what happened since. The k-th submission takes
the k-th time drawn from the law's seed, whoever the client is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from typing import Any

import attrs

CREATED = "2026-01-01T00:00:00Z"
AUDIO = "https://cdn.example/effect.mp3"


@attrs.define(kw_only=True)
class Law:
    """How long tasks take.

    Attributes:
        seconds: The time, or its median.
        sigma: The spread of its logarithm; 0 makes all alike.
        seed: Of the draws.
        instant_first: So many first tasks take no time.
    """

    seconds: float = 0.0
    sigma: float = 0.0
    seed: int = 1
    instant_first: int = 0


@attrs.define
class Counts:
    """What happened since the last reset; times in seconds of the monotonic clock.

    Attributes:
        posts: Submissions.
        gets: Polls, and fetches of results.
        ended: Tasks whose end was told.
        lag: Sum of the times between a task's end and the answer that told it.
        first: The first submission.
        last: The last end that was told.
        opened: Connections opened.
        peak: Of these, open at once, at most.
        peak_running: Tasks submitted and not told as ended, at most.
    """

    posts: int = 0
    gets: int = 0
    ended: int = 0
    lag: float = 0.0
    first: float = 0.0
    last: float = 0.0
    opened: int = 0
    peak: int = 0
    peak_running: int = 0


class Service:
    """The state: tasks by number, with the time of their end."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()  # opened since the last reset, and still open
        self.reset(Law())

    def reset(self, law: Law) -> None:
        """Forget everything; tasks take as long as `law` says from now on."""
        self.law = law
        self.counts = Counts()
        self.connections = set()
        self._rng = random.Random(law.seed)
        self._ends: dict[str, float] = {}
        self._told: set[str] = set()

    def submit(self) -> str:
        """Start a task."""
        counts, law, now = self.counts, self.law, time.monotonic()
        if not counts.posts:
            counts.first = now
        seconds = 0.0 if counts.posts < law.instant_first else law.seconds
        if seconds and law.sigma:
            seconds *= self._rng.lognormvariate(0.0, law.sigma)
        counts.posts += 1
        task_id = f"p1-{counts.posts:08d}"
        self._ends[task_id] = now + seconds
        counts.peak_running = max(counts.peak_running, counts.posts - counts.ended)
        return task_id

    def is_done(self, task_id: str) -> bool:
        """Tell whether a task has ended."""
        counts, now = self.counts, time.monotonic()
        end = self._ends.get(task_id, now)
        if now < end:
            return False
        if task_id not in self._told:
            self._told.add(task_id)
            counts.ended += 1
            counts.lag += now - end
            counts.last = now
        return True

    def answer(self, method: bytes, target: str, body: bytes, base: str) -> bytes:
        """Give the answer to a request."""
        path = target.partition("?")[0]
        if path in ("/reset", "/stats"):
            if path == "/reset":
                self.reset(Law(**json.loads(body)))
            return json.dumps(attrs.asdict(self.counts)).encode()
        if method == b"POST":
            return self._accept(path, base)
        self.counts.gets += 1
        return self._tell(path)

    def _accept(self, path: str, base: str) -> bytes:
        task_id = self.submit()
        if path == "/v1/audio/sfx-generation":
            return b'{"task_id":"%b","status":"pending"}' % task_id.encode()
        if path == "/v1/predictions":
            return _encode(_prediction(task_id, done=False))
        if path == "/v1/sound_effect":
            return b'{"id":"%b"}' % task_id.encode()
        url = f"{base}/fal/{task_id}"
        urls = {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}
        return _encode({"request_id": task_id, "status": "IN_QUEUE", "queue_position": 0, **urls})

    def _tell(self, path: str) -> bytes:
        if path.startswith("/v1/task/"):
            task_id = path[9:]
            if self.is_done(task_id):
                return b'{"task_id":"%b","status":"completed","url":"%b"}' % (task_id.encode(), AUDIO.encode())
            return b'{"task_id":"%b","status":"processing"}' % task_id.encode()
        if path.startswith("/v1/predictions/"):
            task_id = path[16:]
            return _encode(_prediction(task_id, done=self.is_done(task_id)))
        if path.startswith("/v1/tasks/"):
            task_id = path[10:]
            return _encode(_runway_task(task_id, done=self.is_done(task_id)))
        task_id = path.split("/")[2]
        if path.endswith("/status"):
            done = self.is_done(task_id)
            return _encode({"status": "COMPLETED" if done else "IN_PROGRESS", "logs": None, "metrics": {}})
        return _encode({"audio": {"url": AUDIO}})


def _encode(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()


def _prediction(task_id: str, *, done: bool) -> dict[str, Any]:
    return {
        "id": task_id,
        "model": "bench/sfx",
        "version": "1",
        "status": "succeeded" if done else "processing",
        "input": {"prompt": "thunder"},
        "output": AUDIO if done else None,
        "logs": "",
        "error": None,
        "metrics": {},
        "created_at": CREATED,
        "started_at": CREATED,
        "completed_at": CREATED if done else None,
        "urls": {},
    }


def _runway_task(task_id: str, *, done: bool) -> dict[str, Any]:
    task: dict[str, Any] = {"id": task_id, "createdAt": CREATED}
    if done:
        return task | {"status": "SUCCEEDED", "cost": {"credits": 1}, "output": [AUDIO]}
    return task | {"status": "RUNNING", "estimatedCost": {"credits": 1}, "progress": 0.5}


class Connection(asyncio.Protocol):
    """One keep-alive connection: just enough HTTP for well-behaved clients."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        service = self._service
        service.connections.add(self)
        service.counts.opened += 1
        service.counts.peak = max(service.counts.peak, len(service.connections))

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the signature of a protocol
        """Forget it."""
        self._service.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = buffer[:end]
            length = _content_length(head)
            if len(buffer) < end + 4 + length:
                break
            self._answer(head, buffer[end + 4 : end + 4 + length])
            buffer = buffer[end + 4 + length :]
        self._buffer = buffer

    def _answer(self, head: bytes, body: bytes) -> None:
        transport = self._transport
        assert transport is not None
        method, target, _ = head.split(b" ", 2)
        host, port = transport.get_extra_info("sockname")[:2]
        content = self._service.answer(method, target.decode(), body, f"http://{host}:{port}")
        transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(content), content)
        )


def _content_length(head: bytes) -> int:
    lower = head.lower()
    start = lower.find(b"\r\ncontent-length:")
    if start < 0:
        return 0
    return int(lower[start + 17 :].split(b"\r\n", 1)[0])


async def _serve(port: int) -> None:
    service = Service()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # the parent ended, or has enough
    server.close()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description="A fast local service for benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
