"""Telegram's Bot API as far as a bot with one command sees it, on this machine."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from forms import read_form

TOKEN = "42:TEST"

REDIRECTED = """
import runpy, sys
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
here = TelegramAPIServer.from_base(sys.argv[2])
for part in ("base", "file"):
    object.__setattr__(PRODUCTION, part, getattr(here, part))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs a program as it is printed, with aiogram's default server led here: given the program and this address."""


class FakeTelegram:
    """Answers one bot.

    Attributes:
        sent: What was sent, in order: the method, the fields, and the files by name.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, str], dict[str, bytes]]] = []
        self.asked = asyncio.Event()
        self._updates: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._count = 0

    def make_app(self) -> web.Application:
        """Return it as an app."""
        app = web.Application(client_max_size=16 * 1024**2)
        app.router.add_post(f"/bot{TOKEN}/{{method}}", self._answer)
        return app

    def message(self, user: int, text: str, *, number: int | None = None) -> None:
        """Let a user write to the bot."""
        self._count += 1
        author = {"id": user, "is_bot": False, "first_name": f"User {user}"}
        entity = {"type": "bot_command", "offset": 0, "length": len(text.split()[0])}
        message = _message(user) | {
            "message_id": number or self._count,
            "from": author,
            "text": text,
            "entities": [entity],
        }
        self._updates.put_nowait({"update_id": self._count, "message": message})

    async def _answer(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        fields, files = await read_form(request)
        result: Any = True
        if method == "getMe":
            result = {"id": 42, "is_bot": True, "first_name": "Sounds", "username": "sounds_bot"}
        elif method == "getUpdates":
            self.asked.set()
            result = await self._news()
        else:
            self.sent.append((method, fields, files))
            result = _message(int(fields["chat_id"]))
        return web.Response(text=json.dumps({"ok": True, "result": result}), content_type="application/json")

    async def _news(self) -> list[dict[str, Any]]:
        try:
            return [await asyncio.wait_for(self._updates.get(), 1)]
        except TimeoutError:
            return []


def _message(user: int) -> dict[str, Any]:
    return {"message_id": 9, "date": 1_700_000_000, "chat": {"id": user, "type": "private"}}
