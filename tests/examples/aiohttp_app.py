"""Sounds for a web app with aiohttp: ask, watch, listen.

    pip install finevoice-async
    export FINEVOICE_API_KEY=...       # or the two lines that `finevoice emulator` prints in a second terminal
    python aiohttp_app.py              # on http://localhost:8080

    curl -d '{"prompt": "Rain on a tin roof", "duration": 3}' localhost:8080/sounds    # gives the key
    curl localhost:8080/sounds/KEY             # status, place in line, seconds to go
    curl -N localhost:8080/sounds/KEY/events   # the same, as it changes
    curl -o rain.wav localhost:8080/sounds/KEY/audio

Its journal is the file sounds.db: keys answer after a restart, and what was waiting is made then.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import quote

from aiohttp import web

from finevoice_async import (
    FineVoiceError,
    FineVoiceSession,
    InvalidRequestError,
    QueueFullError,
    SessionClosedError,
    SfxRequest,
    SfxTask,
    TaskTimeoutError,
)

log = logging.getLogger("sounds")
SESSION = web.AppKey("SESSION", FineVoiceSession)
ONE = "/sounds/{key:[0-9a-f]{32}}"  # a key as enqueue() makes them: nothing else from outside gets any further
MAX_PROMPT = 1000
routes = web.RouteTableDef()


@routes.post("/sounds")
async def order(request: web.Request) -> web.Response:
    """Keep the wish for a sound, and give its key at once."""
    wish = read_wish(await request.text())
    if wish is None:
        words = f"This cannot be asked for: prompt is a text of up to {MAX_PROMPT} characters, duration up to 30 s."
        return web.json_response({"error": words}, status=400)
    task = await request.app[SESSION].enqueue(wish, owner=request.remote)  # clients take turns
    place = str(request.app.router["sound"].url_for(key=str(task.key)))
    return web.json_response(view(task), status=202, headers={"Location": place})


@routes.get(ONE, name="sound")
async def look(request: web.Request) -> web.Response:
    """Tell how a sound is doing."""
    async with aclosing(life(await find(request))) as events:
        return web.json_response(await anext(events))


@routes.get(ONE + "/events")
async def watch(request: web.Request) -> web.StreamResponse:
    """Send how a sound is doing, each second and at its end, as server-sent events."""
    task = await find(request)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    # Closed: the server stops; the browser asks again, and the next one knows the key. Reset: the client has left.
    with suppress(SessionClosedError, ConnectionResetError):
        async with aclosing(life(task)) as events:
            async for event in events:
                await response.write(f"data: {json.dumps(event)}\n\n".encode())
    return response


@routes.get(ONE + "/audio")
async def listen(request: web.Request) -> web.StreamResponse:
    """Wait for a sound, and pass it on while it comes."""
    effect = await (await find(request))  # a client who leaves stops this wait; the sound is made all the same
    async with aclosing(effect.stream()) as pieces:
        first = await anext(pieces)  # what goes wrong until here is still an answer of its own: 502
        response = web.StreamResponse(
            headers={
                "Content-Type": effect.media_type or "application/octet-stream",
                "Content-Disposition": f"inline; filename*=UTF-8''{quote(effect.file_name)}",
                "X-Content-Type-Options": "nosniff",  # it comes from elsewhere, and must never be taken for a page
            }
        )
        await response.prepare(request)
        try:
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
            await effect.acknowledge()
        except ConnectionResetError:
            log.info("a client left before it had all of %s", effect.file_name)
        except FineVoiceError as error:  # too late for a status: cut off, so that nobody takes it for whole
            log.warning("%s: %s", request.rel_url, error)
            if request.transport is not None:
                request.transport.abort()
    return response


def read_wish(body: str) -> SfxRequest | None:
    """Return what a stranger asks for, field by field; None if it cannot be.

    Never `enqueue(**body)`: a body would set the key, the owner, and a link that the service follows.
    """
    try:
        fields = json.loads(body)
        wish = SfxRequest(fields["prompt"], duration=fields.get("duration", 5))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # InvalidRequestError is a ValueError
        return None
    return wish if wish.prompt is not None and len(wish.prompt) <= MAX_PROMPT else None


async def find(request: web.Request) -> SfxTask:
    """Return the sound that the address names; 404 if there is none."""
    task = await request.app[SESSION].find(key=request.match_info["key"])
    if task is None:
        raise web.HTTPNotFound
    return task


async def life(task: SfxTask) -> AsyncGenerator[dict[str, Any], None]:
    """Yield how a sound is doing: each second until its end, and then what came of it."""
    try:
        while not task.done():
            yield view(task)
            with suppress(TaskTimeoutError):
                await task.wait(timeout=1)
        await task
    except SessionClosedError:
        raise
    except FineVoiceError as error:
        yield view(task) | {"ended": True, "error": error.user_message}
    else:
        yield view(task) | {"ended": True}


def view(task: SfxTask) -> dict[str, Any]:
    """Return what a client may know of a sound."""
    seconds = task.estimate()
    return {
        "key": task.key,
        "status": task.status.value,
        "position": task.position,
        "seconds": None if seconds is None else round(seconds.median),
    }


@web.middleware
async def failures(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer what went wrong with words for people; the log gets all of it."""
    try:
        response: web.StreamResponse = await handler(request)
    except FineVoiceError as error:
        log.warning("%s: %s", request.rel_url, error)
        if isinstance(error, InvalidRequestError):
            status = 400
        else:
            status = 503 if isinstance(error, QueueFullError | SessionClosedError) else 502
        return web.json_response({"error": error.user_message}, status=status)
    return response


async def sessions(app: web.Application) -> AsyncIterator[None]:
    """Open the session with the app, and go on with what an earlier run left."""
    async with FineVoiceSession(journal=os.environ.get("SOUNDS_JOURNAL", "sounds.db")) as session:
        app[SESSION] = session
        going_on = asyncio.create_task(go_on(session))
        yield
        going_on.cancel()
        await asyncio.wait([going_on])


async def go_on(session: FineVoiceSession) -> None:
    """Make what an earlier run left waiting; log what only a person can settle."""
    with suppress(SessionClosedError):
        async for outcome in session.recover():
            if outcome.error is not None:
                log.warning("left by an earlier run: %s", outcome.error)


async def stop(app: web.Application) -> None:
    """Close the session before the server waits for its open streams: they end now, not after a minute."""
    await app[SESSION].aclose()


def make_app() -> web.Application:
    """Return the app."""
    app = web.Application(middlewares=[failures], client_max_size=64 * 1024)
    app.add_routes(routes)
    app.cleanup_ctx.append(sessions)
    app.on_shutdown.append(stop)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    port = int(os.environ.get("PORT", "8080"))
    web.run_app(make_app(), host="localhost", port=port, handler_cancellation=True)  # who leaves waits no more
