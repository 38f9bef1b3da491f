"""A bare HTTP client for the emulator: what the library sends is tested elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import attrs
import pytest

from finevoice_async.core.requests import SUBMIT_PATH
from finevoice_async.core.tasks import TaskUpdate
from finevoice_async.core.wire import decode_update
from finevoice_async.emulator import Emulator


@attrs.frozen
class Answered:
    """An answer that was read."""

    status: int
    headers: Any
    body: bytes

    @property
    def update(self) -> TaskUpdate:
        """What it says about its task, as the library reads it."""
        return decode_update(self.body)


@attrs.frozen
class Caller:
    """Calls an emulator as a program without the library would."""

    emulator: Emulator
    http: aiohttp.ClientSession

    async def ask(self, method: str, url: str, *, key: str | None = None, **options: Any) -> Answered:
        """Ask for a path or a link."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        url = url if url.startswith("http") else self.emulator.url + url
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **options) as response:
            return Answered(response.status, response.headers, await response.read())

    async def submit(self, **body: Any) -> Answered:
        """Submit a sound; asynchronously unless told otherwise."""
        body = {"prompt": "rain", "useAsync": True} | body
        return await self.ask("POST", SUBMIT_PATH, key=self.emulator.api_key, json=body)

    async def submit_id(self, **body: Any) -> str:
        """Submit a sound and return its task id."""
        answered = await self.submit(**body)
        assert answered.status == 200
        return str(answered.update.task_id)

    async def poll(self, task_id: str) -> Answered:
        """Ask for a task."""
        return await self.ask("GET", f"/v1/task/{task_id}", key=self.emulator.api_key)

    async def link(self, **body: Any) -> str:
        """Submit a sound that is done at once and return its link."""
        self.emulator.service_time = 0
        return (await self.poll(await self.submit_id(**body))).update.urls[0]


@pytest.fixture
async def http(no_leaks: object) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP session."""
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
async def caller(emulator: Emulator, http: aiohttp.ClientSession) -> Caller:
    """A caller of the emulator."""
    return Caller(emulator, http)
