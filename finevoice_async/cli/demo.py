"""`finevoice demo`: the main job on the embedded emulator."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rich.console import Console

from finevoice_async import FineVoiceSession, SfxRequest
from finevoice_async.cli import exits
from finevoice_async.cli.memory import Memory
from finevoice_async.cli.place import Place
from finevoice_async.cli.posting import Interruption
from finevoice_async.cli.progress import ManyProgress
from finevoice_async.cli.talk import forget_stdout, give_json, this_command
from finevoice_async.config import API_KEY_VARIABLE, BASE_URL_VARIABLE
from finevoice_async.emulator import Emulator, LogNormal

REQUESTS = (
    SfxRequest("Thunderstorm with heavy rain", negative_prompt="music, voices", duration=5),
    SfxRequest("Wooden door creaks open slowly", duration=3),
    SfxRequest("Footsteps on gravel", duration=4),
    SfxRequest("Church bell in the distance", duration=5),
    SfxRequest("Laser gun in an arcade", duration=2),
    SfxRequest("Old car engine idling", duration=4),
    SfxRequest("Birds at dawn in a forest", duration=5),
    SfxRequest("Ocean waves on a beach", duration=6),
    SfxRequest("Explosion far away", duration=3),
    SfxRequest("Coin dropped into a glass", duration=2),
    SfxRequest("Cold wind around a house", duration=5),
    SfxRequest("Spaceship door, retro robot voice", duration=3),
)
PLACES = 5
"""What the smallest plan allows at once."""
PORT = 8642
"""Of the emulator that is shown next: a number that the two lines for the program can name."""


class _Patient(Console):
    """Goes on in silence when its reader has gone, such as `head`: the files are still to come."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from here on."""
        forget_stdout()


async def run_demo(folder: Path, *, as_json: bool) -> int:
    """Make a dozen effects at once, and say where they are and what to type next."""
    console = _Patient(quiet=as_json)
    Place(f"{folder}/", overwrite=True).prepare()
    memory = Memory(None, emulator=True)
    console.print(f"An emulated FineVoice runs on this machine; {len(REQUESTS)} effects, {PLACES} at once.")
    try:
        async with (
            Emulator(plan_limit=PLACES, service_time=LogNormal(median=2.0)) as emulator,
            FineVoiceSession(
                emulator.api_key, base_url=emulator.url, max_concurrency=PLACES, polling=memory.polling()
            ) as session,
        ):
            began = time.monotonic()
            failed = await _make_all(session, folder, console, as_json=as_json)
            took = time.monotonic() - began
            one_by_one = sum(task.service_time for task in emulator.ledger.accepted.values())
            stats = session.stats
    except asyncio.CancelledError:
        told = Interruption(emulated=True, advice="Begin again with:", again=this_command())
        told.tell(as_json=as_json)
        raise
    memory.keep(session.polling_state())
    if as_json:
        give_json(
            {
                "effects": stats.completed,
                "failed": failed,
                "seconds": round(took, 3),
                "seconds_one_by_one": round(one_by_one, 3),
                "polls": stats.polls,
                "folder": str(folder.resolve()),
            }
        )
        return 1 if failed else 0
    console.print()
    console.print(f"{stats.completed} effects in {took:.1f} s; one after another they take {one_by_one:.1f} s.")
    console.print(f"{stats.polls} polls, {stats.polls / max(stats.completed, 1):.1f} an effect.")
    console.print(f"The files are in {folder.resolve()}", soft_wrap=True)
    console.print(
        "\nNext: one effect of your own, still free:\n"
        '  finevoice generate "Rain on a tin roof" -o rain.wav --emulator\n'
        "\nAn emulator for your program, in a terminal of its own:\n"
        f"  finevoice emulator --port {PORT} --api-key demo\n"
        "and where your program runs, so that FineVoiceSession() finds it:\n"
        f"  export {BASE_URL_VARIABLE}=http://127.0.0.1:{PORT}\n"
        f"  export {API_KEY_VARIABLE}=demo\n"
        "\nThe real service, which you pay for each effect:\n"
        f"  unset {BASE_URL_VARIABLE}\n"
        f"  export {API_KEY_VARIABLE}=...  # the key of your account",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 1 if failed else 0


async def _make_all(session: FineVoiceSession, folder: Path, console: Console, *, as_json: bool) -> int:
    """Make and save all; return how many came to nothing."""
    failed = 0
    with ManyProgress(len(REQUESTS), console) as progress:
        async for outcome in session.generate_many(REQUESTS, save_to=folder):
            prompt = outcome.request.prompt if outcome.request else None
            path, error = outcome.path, outcome.error
            failed += error is not None
            if as_json:
                words = None if error is None else exits.words(error)
                file = None if path is None else str(path)
                give_json({"prompt": prompt, "task_id": outcome.task_id, "path": file, "error": words})
            elif path is None:
                progress.say(f"  failed  {prompt}: {error and exits.words(error)}")
            else:
                progress.say(f"  saved   {path.name}")
            progress.advance(_remaining(session))
    return failed


def _remaining(session: FineVoiceSession) -> str:
    """Say how long those that run will take, by what was learned; the first few say little."""
    estimates = [estimate.median for task in session.tasks if (estimate := task.estimate()) is not None]
    return f"about {max(*estimates, 1):.0f} s more" if estimates and session.stats.completed >= PLACES else ""
