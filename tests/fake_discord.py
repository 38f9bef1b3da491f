"""Discord as far as a bot with one command sees it: REST and the gateway, on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import WSMsgType, web
from forms import read_form

APPLICATION = "1000"
ME = {"id": "1001", "username": "sounds", "discriminator": "0000", "avatar": None, "bot": True}
EPOCH = 1420070400000  # Discord's ids count milliseconds since 2015

REDIRECTED = """
import runpy, sys
import discord.gateway, discord.http, yarl
discord.http.Route.BASE = sys.argv[2] + "/api/v10"
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(sys.argv[2] + "/gateway")
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs a program as it is printed, with discord.py's two addresses led here: given the program and this address."""


class FakeDiscord:
    """Answers one bot.

    Attributes:
        commands: The commands that the bot has told of.
        callbacks: The first answers to interactions, by token.
        sent: What was sent, in order: the token or the channel, the fields, and the files by name.
    """

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.callbacks: dict[str, dict[str, Any]] = {}
        self.sent: list[tuple[str, dict[str, Any], dict[str, bytes]]] = []
        self.ready = asyncio.Event()
        self._socket: web.WebSocketResponse | None = None
        self._count = 0

    def make_app(self) -> web.Application:
        """Return it as an app."""
        app, api = web.Application(client_max_size=16 * 1024**2), "/api/v10"
        app.add_routes(
            [
                web.get("/gateway", self._gateway),
                web.get(f"{api}/users/@me", _always(ME)),
                web.get(f"{api}/oauth2/applications/@me", _always(_APPLICATION)),
                web.put(f"{api}/applications/{APPLICATION}/commands", self._sync),
                web.post(api + "/interactions/{id}/{token}/callback", self._callback),
                web.post(f"{api}/webhooks/{APPLICATION}/{{place}}", self._message),
                web.post(api + "/users/@me/channels", _always(_DIRECT)),
                web.post(api + "/channels/{place}/messages", self._message),
            ]
        )
        return app

    async def call(self, user: int, token: str, *, created: datetime | None = None, **options: Any) -> None:
        """Let a user call /sound."""
        assert self._socket is not None
        self._count += 1
        at = created or datetime.now(UTC)
        kinds = {str: 3, float: 10}
        data = {
            "id": "5",
            "name": "sound",
            "type": 1,
            "options": [{"name": name, "type": kinds[type(value)], "value": value} for name, value in options.items()],
        }
        interaction = {
            "id": str((int(at.timestamp() * 1000) - EPOCH << 22) + self._count),
            "application_id": APPLICATION,
            "type": 2,
            "token": token,
            "version": 1,
            "attachment_size_limit": 10 * 1024 * 1024,
            "channel": _DIRECT,
            "user": {"id": str(user), "username": f"user{user}", "discriminator": "0000", "avatar": None},
            "data": data,
        }
        await self._socket.send_json({"op": 0, "t": "INTERACTION_CREATE", "s": self._count + 1, "d": interaction})

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        self._socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 41250}})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            told = json.loads(message.data)
            if told["op"] == 1:
                await socket.send_json({"op": 11})
            elif told["op"] == 2:
                user = {"user": ME, "application": {"id": APPLICATION, "flags": 0}}
                ready = {"v": 10, "guilds": [], "session_id": "s", "resume_gateway_url": str(request.url), **user}
                await socket.send_json({"op": 0, "t": "READY", "s": 1, "d": ready})
                self.ready.set()
        return socket

    async def _sync(self, request: web.Request) -> web.Response:
        self.commands = await request.json()
        return _json([{**each, "id": "5", "application_id": APPLICATION, "version": "1"} for each in self.commands])

    async def _callback(self, request: web.Request) -> web.Response:
        self.callbacks[request.match_info["token"]] = await request.json()
        return _json({"interaction": {"id": request.match_info["id"], "type": 2}})

    async def _message(self, request: web.Request) -> web.Response:
        fields: dict[str, Any]
        files: dict[str, bytes] = {}
        if request.content_type == "application/json":
            fields = await request.json()
        else:
            form, files = await read_form(request)
            fields = json.loads(form["payload_json"])
        self.sent.append((request.match_info["place"], fields, files))
        return _json(_MESSAGE | {"content": fields.get("content") or ""})


def _json(data: object) -> web.Response:
    return web.Response(body=json.dumps(data).encode(), content_type="application/json")  # as there, without a charset


def _always(data: dict[str, Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return _json(data)

    return answer


_DIRECT = {"id": "77", "type": 1, "recipients": []}
_APPLICATION = {
    "id": APPLICATION,
    "name": "sounds",
    "description": "",
    "icon": None,
    "bot_public": True,
    "bot_require_code_grant": False,
    "owner": ME,
    "verify_key": "",
}
_MESSAGE: dict[str, Any] = {
    "id": "9",
    "channel_id": "77",
    "type": 0,
    "author": ME,
    "content": "",
    "timestamp": "2026-01-01T00:00:00+00:00",
    "edited_timestamp": None,
    "tts": False,
    "pinned": False,
    "mention_everyone": False,
    "mentions": [],
    "mention_roles": [],
    "attachments": [],
    "embeds": [],
}
