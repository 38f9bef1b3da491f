"""The two endpoints over HTTP."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from aiohttp import web

from finevoice_async.core.requests import SfxRequest
from finevoice_async.emulator.faults import Fault, FaultPlan
from finevoice_async.emulator.handlers import Handlers, cut, now, reset
from finevoice_async.emulator.ledger import Accepted
from finevoice_async.emulator.service import Service
from finevoice_async.emulator.submissions import InvalidSubmissionError, read_submission

MAX_BODY = 64 * 1024
"""Bytes of a submission at most; more is answered 413."""

_NOT_ACCEPTED = {
    "submit.unavailable": 503,
    "submit.rate_limit": 429,
    "submit.reject": 422,
    "submit.unauthorized": 401,
    "submit.forbidden": 403,
    "submit.no_credits": 402,
}
_POLL_ERRORS = {
    "poll.not_found": 404,
    "poll.error_500": 500,
    "poll.unauthorized": 401,
    "poll.rate_limit": 429,
}
_BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


class ApiHandlers(Handlers):
    """Answers submissions and polls."""

    def __init__(
        self,
        service: Service,
        faults: FaultPlan,
        stopping: asyncio.Event,
        base_url: Callable[[], str],
        *,
        api_key: str,
    ) -> None:
        super().__init__(service, faults, stopping, base_url)
        self._api_key = api_key

    def _check_key(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        # Any bytes may come; compared as bytes, in constant time out of habit.
        if secrets.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {self._api_key}".encode()):
            return None
        self._ledger.wrong_keys += 1
        return self._refuse(401, {"error": {"code": "UNAUTHORIZED", "message": "Missing or invalid API key."}})

    async def stray(self, request: web.Request) -> web.StreamResponse:
        """Answer what goes to no endpoint."""
        self._ledger.stray(f"{request.method} {request.rel_url.raw_path}")
        return self._refuse(404, {"detail": "Not Found"})

    # Submissions

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Answer a submission."""
        self._ledger.posts += 1
        refusal = self._check_key(request)
        if refusal is not None:
            return refusal
        try:
            wanted = read_submission(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(413, {"detail": f"The body may have {MAX_BODY} bytes."})
        except InvalidSubmissionError as error:
            return self._refuse(422, error.detail)
        refusal = self._check_account()
        if refusal is not None:
            return refusal
        fault = self._meet("submit")
        if fault is not None:
            refusal = self._refuse_before(fault)
            if refusal is not None:
                return refusal
        task = self._service.accept(wanted, now(), self._faults)
        broken = None if fault is None else await self._break_after(fault, request)
        return broken or await self._answer(request, wanted, task)

    def _check_account(self) -> web.Response | None:
        if not self._service.has_credit():
            return self._refuse(402, {"error": {"code": "INSUFFICIENT_CREDITS", "message": "No credits left."}})
        if self._service.is_full(now()):
            return self._refuse(429, {"error": "Too many concurrent requests"}, {"Retry-After": "1"})
        return None

    def _refuse_before(self, fault: Fault) -> web.Response | None:
        if fault.name == "submit.redirect":
            return self._redirect(307, fault.text)
        status = int(fault.number) if fault.name == "submit.refuse" else _NOT_ACCEPTED.get(fault.name)
        return None if status is None else self._refuse_by_order(fault, status)

    async def _break_after(self, fault: Fault, request: web.Request) -> web.StreamResponse | None:
        match fault.name:
            case "submit.lose_reply":
                return cut(request)
            case "submit.reset":
                return reset(request)
            case "submit.hang":
                return await self._hang(request)
            case "submit.slow":
                await self._until(now() + fault.number)
                return None
            case "submit.error_500":
                return self._refuse_by_order(fault, 500)
            case "submit.bad_gateway":
                self._ledger.refuse(502)
                return web.Response(status=502, text=_BAD_GATEWAY, content_type="text/html")
            case "submit.garbage":
                return web.Response(text=fault.text, content_type="application/json")
            case _:
                return web.json_response({})  # submit.no_task_id

    async def _answer(self, request: web.Request, wanted: SfxRequest, task: Accepted) -> web.StreamResponse:
        if not wanted.use_async:
            await self._until(task.ends_at)
            if self._stopping.is_set():
                return cut(request)
        return web.json_response(self._service.answer(task, now(), self._base_url(), to_submission=True))

    # Polls

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Answer how a task is doing."""
        self._ledger.polls += 1
        refusal = self._check_key(request)
        if refusal is not None:
            return refusal
        task = self._ledger.find(request.match_info["task_id"])
        if task is None:
            return self._refuse(404, {"detail": "Task not found"})
        task.polls += 1
        links = self._service.tells_link(task, now())
        fault = self._meet("poll", without=() if links else ("poll.no_link",))
        broken = None if fault is None else await self._break_poll(fault, request)
        if broken is not None:
            return broken
        with_link = fault is None or fault.name != "poll.no_link"
        return web.json_response(self._service.answer(task, now(), self._base_url(), with_link=with_link))

    async def _break_poll(self, fault: Fault, request: web.Request) -> web.StreamResponse | None:
        status = int(fault.number) if fault.name == "poll.refuse" else _POLL_ERRORS.get(fault.name)
        if status is not None:
            return self._refuse_by_order(fault, status)
        match fault.name:
            case "poll.hang":
                return await self._hang(request)
            case "poll.close":
                return cut(request)
            case "poll.reset":
                return reset(request)
            case "poll.redirect":
                return self._redirect(302, fault.text)
            case "poll.garbage":
                return web.Response(text=fault.text, content_type="application/json")
            case "poll.slow":
                await self._until(now() + fault.number)
        return None  # poll.no_link, and slow ones after a while
