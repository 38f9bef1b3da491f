"""Sounds for a web app with FastAPI, and a page that makes them: ask, watch, listen.

    pip install finevoice-async "fastapi>=0.135" uvicorn
    export FINEVOICE_API_KEY=...       # or the two lines that `finevoice emulator` prints in a second terminal
    python fastapi_app.py              # then open http://localhost:8080

Its journal is the file sounds.db: keys answer after a restart, and what was waiting is made then.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any
from urllib.parse import quote

import anyio
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict, Field

from finevoice_async import (
    FineVoiceError,
    FineVoiceSession,
    InvalidRequestError,
    QueueFullError,
    SessionClosedError,
    SfxTask,
    SoundEffect,
    TaskTimeoutError,
)

log = logging.getLogger("sounds")

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Sounds</title>
<link rel="icon" href="data:,">
<h1>Sounds</h1>
<form id="form"><input id="prompt" size="40" value="Rain on a tin roof" required> <button>Make it</button></form>
<ol id="sounds"></ol>
<script>
document.getElementById("form").onsubmit = async (event) => {
  event.preventDefault();
  const prompt = document.getElementById("prompt").value;
  const line = document.getElementById("sounds").appendChild(document.createElement("li"));
  const answer = await fetch("sounds", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({prompt, duration: 3}),
  });
  if (!answer.ok) {
    line.textContent = `${prompt}: this cannot be asked for`;
    return;
  }
  const {key} = await answer.json();
  const events = new EventSource(`sounds/${key}/events`);
  events.onmessage = (message) => {
    const sound = JSON.parse(message.data);
    const place = sound.position ? `, number ${sound.position} in line` : "";
    const wait = sound.seconds === null ? "" : `, about ${sound.seconds} s`;
    line.textContent = `${prompt}: ${sound.error ?? sound.status + place + wait}`;
    if (sound.ended) events.close();
    if (sound.status === "completed") {
      const player = line.appendChild(new Audio(`sounds/${key}/audio`));
      player.controls = true;
      player.play().catch(() => {});  // a browser may want a click first
    }
  };
};
</script>
</html>"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the session with the app, and go on with what an earlier run left."""
    async with FineVoiceSession(journal=os.environ.get("SOUNDS_JOURNAL", "sounds.db")) as session:
        app.state.session = session
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


app = FastAPI(title="Sounds", lifespan=lifespan)


class Wish(BaseModel):
    """What a client may ask for, and no more: neither the key nor the owner, and no link that the service follows."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=1000)
    duration: float = Field(default=5, gt=0, le=30)


async def the_session(request: Request) -> FineVoiceSession:
    """Return the app's session."""
    session: FineVoiceSession = request.app.state.session
    return session


Session = Annotated[FineVoiceSession, Depends(the_session)]


async def the_sound(key: Annotated[str, Path(pattern="^[0-9a-f]{32}$")], session: Session) -> SfxTask:
    """Return the sound that the address names: by a key as `enqueue` makes them, nothing else gets any further."""
    task = await session.find(key=key)
    if task is None:
        raise HTTPException(404)
    return task


Sound = Annotated[SfxTask, Depends(the_sound)]


async def the_audio(sound: Sound) -> AsyncIterator[tuple[SoundEffect, AsyncIterator[bytes]]]:
    """Wait for a sound, and open it: its first piece is here before any header leaves, so a failure is still a 502."""
    effect = await sound
    async with aclosing(effect.stream()) as pieces:
        first = await anext(pieces)

        async def whole() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:  # what goes wrong now cuts the answer, so that nobody takes it for whole
                yield piece
            await effect.acknowledge()

        yield effect, whole()  # FastAPI comes back here once the answer has ended, or its client has left


Audio = Annotated[tuple[SoundEffect, AsyncIterator[bytes]], Depends(the_audio)]


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Give the page."""
    return PAGE


@app.post("/sounds", status_code=202)
async def order(wish: Wish, session: Session, request: Request, response: Response) -> dict[str, Any]:
    """Keep the wish for a sound, and give its key at once."""
    client = request.client.host if request.client else None
    with anyio.CancelScope(shield=True):  # a middleware may cancel for a client who leaves: it is kept, or it is not
        task = await session.enqueue(wish.prompt, duration=wish.duration, owner=client)  # clients take turns
    response.headers["Location"] = f"/sounds/{task.key}"
    return view(task)


@app.get("/sounds/{key}")
async def look(sound: Sound) -> dict[str, Any]:
    """Tell how a sound is doing."""
    async with aclosing(life(sound)) as events:
        return await anext(events)


@app.get("/sounds/{key}/events", response_class=EventSourceResponse)
async def watch(sound: Sound) -> AsyncIterator[dict[str, Any]]:
    """Send how a sound is doing, each second and at its end, as server-sent events."""
    with suppress(SessionClosedError):  # the server stops: the browser asks again, and the next one knows the key
        async with aclosing(life(sound)) as events:
            async for event in events:
                yield event


@app.get("/sounds/{key}/audio")
async def listen(audio: Audio) -> StreamingResponse:
    """Pass a sound on while it comes."""
    effect, pieces = audio
    return StreamingResponse(
        pieces,
        media_type=effect.media_type or "application/octet-stream",
        headers={
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(effect.file_name)}",
            "X-Content-Type-Options": "nosniff",  # it comes from elsewhere, and must never be taken for a page
        },
    )


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


@app.exception_handler(RequestValidationError)
async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong with a request, without repeating it: FastAPI's own answer fails for half a character."""
    return JSONResponse({"error": f"This cannot be asked for: {error.errors()[0]['msg']}"}, 422)


@app.exception_handler(FineVoiceError)
async def failed(request: Request, error: FineVoiceError) -> JSONResponse:
    """Answer what went wrong with words for people; the log gets all of it."""
    log.warning("%s: %s", request.url.path, error)
    if isinstance(error, InvalidRequestError):
        status = 400
    else:
        status = 503 if isinstance(error, QueueFullError | SessionClosedError) else 502
    return JSONResponse({"error": error.user_message}, status)


class Server(uvicorn.Server):
    """Closes the session before it waits for open streams, which end now, not when the last client has gone."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        await app.state.session.aclose()
        await super().shutdown(sockets)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Server(uvicorn.Config(app, host="localhost", port=int(os.environ.get("PORT", "8080")))).run()
