"""The emulated service over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from finevoice_async.core.models import FIELDS, SfxRequest
from finevoice_async.core.wire import SUBMIT_PATH, TASK_PATH
from finevoice_async.emulator.faults import Faults
from finevoice_async.emulator.ledger import Accepted, Ledger
from finevoice_async.emulator.service import DEFAULT_DURATION, Constant, LogNormal, Service, ServiceLaw
from finevoice_async.emulator.synth import synthesise
from finevoice_async.errors import InvalidRequestError

MAX_BODY = 64 * 1024
"""Bytes of a submission at most; more is answered 413."""

_CACHE = 64 * 1024 * 1024  # bytes of audio kept, so that a resumed download finds the same
_WIRE_NAMES = {"sourceUrl": "source_url", "sourceType": "source_type", "useAsync": "use_async"}


class Emulator:
    """FineVoice on your own machine: the same two endpoints, real audio, no key and no cost.

    Use it with ``async with``, or `start` and `aclose`. All times come from the running event loop's clock.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        plan_limit: int | None = None,
        service_time: ServiceLaw | float | None = None,
        seed: int = 0,
        dialect: str = "mixed",
        credits: int | None = None,
        faults: Mapping[str, float] | None = None,
    ) -> None:
        """Set it up.

        Args:
            host: The address to listen on; keep to loopback.
            port: The port; 0 takes a free one.
            api_key: The key that it accepts; None makes one up.
            plan_limit: Tasks that may run at once; one more is answered 429. None sets no limit.
            service_time: How long tasks take: seconds, or a law such as `LogNormal(median=8)`; any function of the
                request and a `random.Random` will do.
            seed: Repeats the same service times and chances.
            dialect: `reference`, `quickstart`, or `mixed`.
            credits: Submissions that are paid for; then 402. None sets no limit.
            faults: Probabilities by the names in `finevoice_async.emulator.faults`.

        Raises:
            ValueError: The dialect or a fault does not exist.
        """
        self.api_key = f"emulator-{secrets.token_hex(8)}" if api_key is None else api_key
        law: ServiceLaw = LogNormal() if service_time is None else _as_law(service_time)
        self._faults = Faults(faults or {}, random.Random(f"{seed} faults"))  # noqa: S311 - repeatable on purpose
        self._service = Service(
            plan_limit=plan_limit, law=law, seed=seed, dialect=dialect, credits=credits, faults=self._faults
        )
        self._host = host
        self._port = port
        # All other mutable state:
        self._runner: web.AppRunner | None = None
        self._stopping: asyncio.Event = asyncio.Event()  # frees the handlers that hang
        self._audio: OrderedDict[str, bytes] = OrderedDict()  # by task id, the least used first
        self._expired: set[str] = set()  # task ids whose link was expired; the next poll gives a fresh one
        self._links: dict[str, int] = {}  # how many fresh links a task has given

    def __repr__(self) -> str:
        return f"<Emulator on port {self._port}, {len(self.ledger.accepted)} accepted>"

    @property
    def url(self) -> str:
        """The base URL, once started."""
        return f"http://{self._host}:{self._port}"

    @property
    def ledger(self) -> Ledger:
        """What happened so far."""
        return self._service.ledger

    @property
    def plan_limit(self) -> int | None:
        """Tasks that may run at once; may be changed at any time."""
        return self._service.plan_limit

    @plan_limit.setter
    def plan_limit(self, limit: int | None) -> None:
        self._service.plan_limit = limit

    @property
    def service_time(self) -> ServiceLaw:
        """How long tasks take from now on."""
        return self._service.law

    @service_time.setter
    def service_time(self, law: ServiceLaw | float) -> None:
        self._service.law = _as_law(law)

    def inject(self, fault: str, times: int = 1) -> None:
        """Let the next `times` requests of its kind meet a fault, by a name in `finevoice_async.emulator.faults`.

        Raises:
            ValueError: There is no such fault.
        """
        self._faults.order(fault, times)

    def heal(self) -> None:
        """From now on, nothing goes wrong."""
        self._faults.cancel()

    def bound(self, places: int) -> float:
        """Give the least possible makespan of what was accepted so far, in seconds, at this many places."""
        return self._service.bound(places)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Listen. Idempotent."""
        if self._runner is not None:
            return
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post(SUBMIT_PATH, self._submit)
        app.router.add_get(TASK_PATH + "{task_id}", self._poll)
        app.router.add_get("/files/{name}", self._download)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stop listening and close every connection. Idempotent."""
        self._stopping.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    # Submissions

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        self.ledger.posts += 1
        refusal = self._check_key(request)
        if refusal is not None:
            return refusal
        fault = self._faults.next("submit")
        refusal = self._fault_before(fault)
        if refusal is not None:
            return refusal
        try:
            wanted = self._read(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(413, {"detail": f"The body may have {MAX_BODY} bytes."})
        except InvalidRequestError as error:
            return self._refuse(422, _validation(error.message))
        now = asyncio.get_running_loop().time()
        if self._service.credits is not None and self._service.credits <= 0:
            return self._refuse(402, {"error": {"code": "INSUFFICIENT_CREDITS", "message": "No credits left."}})
        if self._service.is_full(now):
            return self._refuse(429, {"error": "Too many concurrent requests"}, {"Retry-After": "1"})
        task = self._service.accept(wanted, now)
        broken = await self._fault_after(fault, request)
        if broken is not None:
            return broken
        if not wanted.use_async:
            await self._until(task.ends_at)
            return web.json_response(self._tell(task))
        return web.json_response(self._service.answer(task, now))

    def _check_key(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if secrets.compare_digest(given.encode(), f"Bearer {self.api_key}".encode()):
            return None
        self.ledger.wrong_keys += 1
        return self._refuse(401, {"error": {"code": "UNAUTHORIZED", "message": "Missing or invalid API key."}})

    def _refuse(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
        self.ledger.refuse(status)
        return web.json_response(body, status=status, headers=headers)

    def _read(self, body: bytes) -> SfxRequest:
        """Read a submission as strictly as the documented service would.

        Raises:
            InvalidRequestError: It breaks a rule.
        """
        try:
            payload = json.loads(body)
        except ValueError:
            raise InvalidRequestError("body must be JSON.") from None
        if not isinstance(payload, dict):
            raise InvalidRequestError("body must be an object.")
        fields = {_WIRE_NAMES.get(name, name): value for name, value in payload.items()}
        # Plain construction, not structuring: a converter would turn a number into a prompt.
        return SfxRequest(**{"use_async": False, **{name: value for name, value in fields.items() if name in FIELDS}})

    def _fault_before(self, fault: str | None) -> web.Response | None:
        if fault == "redirect":
            self.ledger.refuse(307)
            return web.Response(status=307, headers={"Location": SUBMIT_PATH + "/elsewhere"})
        statuses = {"unavailable": 503, "rate_limit": 429, "reject": 422, "unauthorized": 401, "forbidden": 403}
        status = 402 if fault == "no_credits" else statuses.get(fault or "")
        if status is None:
            return None
        headers = {"Retry-After": "1"} if status == 429 else None
        return self._refuse(status, {"error": {"code": str(fault).upper(), "message": "An ordered fault."}}, headers)

    async def _fault_after(self, fault: str | None, request: web.Request) -> web.StreamResponse | None:
        if fault == "lose_reply":
            return _cut(request)
        if fault == "hang":
            return await self._hang(request)
        if fault == "error_500":
            return self._refuse(500, {"error": {"code": "INTERNAL", "message": "An ordered fault."}})
        if fault == "bad_gateway":
            self.ledger.refuse(502)
            page = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
            return web.Response(status=502, text=page, content_type="text/html")
        if fault == "garbage":
            return web.Response(text="not { JSON", content_type="application/json")
        return web.json_response({}) if fault == "no_task_id" else None

    async def _hang(self, request: web.Request) -> web.StreamResponse:
        await self._stopping.wait()
        return _cut(request)

    async def _until(self, when: float) -> None:
        """Wait until a time, or until the emulator stops."""
        try:
            async with asyncio.timeout_at(None if when == float("inf") else when):
                await self._stopping.wait()
        except TimeoutError:
            return

    # Polls

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        self.ledger.polls += 1
        refusal = self._check_key(request)
        if refusal is not None:
            return refusal
        task = self.ledger.accepted.get(request.match_info["task_id"])
        if task is not None:
            task.polls += 1
        fault = self._faults.next("poll")
        if fault == "hang":
            return await self._hang(request)
        if fault == "close":
            return _cut(request)
        if fault == "garbage":
            return web.Response(text="<html>busy</html>", content_type="text/html")
        statuses = {"error_500": 500, "rate_limit": 429, "unauthorized": 401, "not_found": 404}
        if task is None or fault in statuses:
            status = statuses.get(fault or "", 404)
            headers = {"Retry-After": "1"} if status == 429 else None
            return self._refuse(status, {"detail": "Task not found" if status == 404 else "An ordered fault"}, headers)
        return web.json_response(self._tell(task, with_link=fault != "no_link"))

    def _tell(self, task: Accepted, *, with_link: bool = True) -> dict[str, Any]:
        if task.task_id in self._expired:
            self._expired.discard(task.task_id)
            self._links[task.task_id] = self._links.get(task.task_id, 0) + 1
        link = f"{self.url}/files/{task.task_id}.{self._links.get(task.task_id, 0)}.wav"
        return self._service.answer(task, asyncio.get_running_loop().time(), *([link] if with_link else []))

    # Downloads

    async def _download(self, request: web.Request) -> web.StreamResponse:
        self.ledger.fetches += 1
        if "Authorization" in request.headers:
            self.ledger.leaked_keys += 1
        task_id, _, version = request.match_info["name"].removesuffix(".wav").rpartition(".")
        task = self.ledger.accepted.get(task_id)
        if task is None or task.fails or asyncio.get_running_loop().time() < task.ends_at:
            return self._refuse(404, {"detail": "No such file"})
        fault = self._faults.next("download")
        if fault == "expire":
            self._expired.add(task_id)
        if task_id in self._expired or version != str(self._links.get(task_id, 0)):
            return self._refuse(403, {"detail": "The link has expired"})
        if fault == "hang":
            return await self._hang(request)
        if fault == "error_500":
            return self._refuse(500, {"detail": "An ordered fault"})
        return await self._send(request, task, cut=fault == "cut")

    async def _send(self, request: web.Request, task: Accepted, *, cut: bool) -> web.StreamResponse:
        audio = await self._sound(task)
        etag = f'"{hashlib.sha256(audio).hexdigest()[:16]}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "audio/wav"}
        start, end, status = 0, len(audio), 200
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if match is not None and request.headers.get("If-Range", etag) == etag:
            start = int(match[1])
            end = min(int(match[2]) + 1, end) if match[2] else end
            if start >= end:
                return self._refuse(416, {"detail": "No such range"}, {"Content-Range": f"bytes */{len(audio)}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(audio)}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - start
        await response.prepare(request)
        if cut:
            await response.write(audio[start : start + (end - start) // 2])
            return _cut(request, response)
        await response.write(audio[start:end])
        await response.write_eof()
        task.fetched += 1
        return response

    async def _sound(self, task: Accepted) -> bytes:
        audio = self._audio.pop(task.task_id, None)
        if audio is None:
            wanted = task.request
            seconds = wanted.duration or DEFAULT_DURATION
            audio = await asyncio.to_thread(synthesise, wanted.prompt, wanted.negative_prompt, seconds)
        self._audio[task.task_id] = audio
        while sum(map(len, self._audio.values())) > _CACHE:
            self._audio.popitem(last=False)
        return audio


def _as_law(service_time: ServiceLaw | float) -> ServiceLaw:
    if callable(service_time):
        return service_time
    return Constant(float(service_time))


def _validation(message: str) -> dict[str, Any]:
    """Spell a broken rule as the service's web framework does."""
    field, _, rule = message.partition(" ")
    spelled = {ours: theirs for theirs, ours in _WIRE_NAMES.items()}.get(field, field)
    return {"detail": [{"loc": ["body", spelled], "msg": rule, "type": "value_error"}]}


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Close the connection without (the rest of) an answer."""
    if request.transport is not None:
        request.transport.close()
    return web.Response() if response is None else response
