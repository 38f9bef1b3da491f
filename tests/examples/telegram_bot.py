"""A Telegram bot that makes sounds, on `/sound rain on a tin roof` and the like.

    pip install finevoice-async "aiogram>=3.31"
    export FINEVOICE_API_KEY=...       # or the two lines that `finevoice emulator` prints in a second terminal
    export TELEGRAM_TOKEN=...          # from https://t.me/BotFather
    python telegram_bot.py

Its journal is the file sounds.db: a message that Telegram delivers again after a crash is not paid for again.
"""

import asyncio
import logging
import os
from collections import Counter
from typing import Any

from aiogram import Bot, Dispatcher, Router
from aiogram.filters import Command, CommandObject
from aiogram.types import BufferedInputFile, Message

from finevoice_async import FineVoiceError, FineVoiceSession, SfxTask

log = logging.getLogger("sounds")
QUOTA = 3  # sounds of one user under way at once
MAX_PROMPT = 500
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

router = Router()
under_way: Counter[int] = Counter()  # by user
answering: set[asyncio.Task[Any]] = set()


@router.message(Command("sound"))
async def sound(message: Message, command: CommandObject, session: FineVoiceSession) -> None:
    """Make a sound for a user."""
    if message.from_user is None:  # a channel's own message
        return
    user, prompt = message.from_user.id, (command.args or "").strip()
    if not 0 < len(prompt) <= MAX_PROMPT:
        await message.answer(f"Say what should be heard, in up to {MAX_PROMPT} characters: /sound rain on a tin roof")
        return
    if under_way[user] >= QUOTA:
        await message.answer(f"{QUOTA} sounds of yours are being made already; ask again when one of them is there.")
        return
    handler = asyncio.current_task()
    assert handler is not None
    answering.add(handler)
    under_way[user] += 1
    try:
        await answer(message, user, prompt, session)
    finally:
        answering.discard(handler)
        under_way[user] -= 1
        if not under_way[user]:
            del under_way[user]


async def answer(message: Message, user: int, prompt: str, session: FineVoiceSession) -> None:
    """Send the sound, or what went wrong in words for people; the log gets all of it."""
    try:
        task = await session.enqueue(
            prompt,
            duration=5,
            owner=f"telegram {user}",  # users take turns, however much one of them asks for
            key=f"telegram {message.chat.id} {message.message_id}",
        )
        await message.answer(in_line(task))
        effect = await task
        file = BufferedInputFile(await effect.read(), filename=effect.file_name)
        if effect.suffix in (".mp3", ".m4a"):  # what Telegram takes for audio
            await message.reply_audio(file)
        else:
            await message.reply_document(file)
        await effect.acknowledge()
    except FineVoiceError as error:
        log.warning("for user %s: %s", user, error)
        await message.reply(error.user_message)


@router.shutdown()
async def stop(session: FineVoiceSession) -> None:
    """Stop what waits, and let it say so: the sounds are not lost."""
    await session.aclose()
    if answering:
        await asyncio.wait(answering, timeout=5)


def in_line(task: SfxTask) -> str:
    """Say how long it will take."""
    place, estimate = task.position, task.estimate()
    about = f", about {max(estimate.median, 1):.0f} s" if estimate is not None else ""
    if place is None:
        return f"Your sound is being made{about}."
    return f"Your sound is {PLACES[place - 1] if place <= len(PLACES) else f'number {place}'} in line{about}."


async def main() -> None:
    """Run until SIGTERM or Ctrl-C, which aiogram hears by itself."""
    dispatcher = Dispatcher()
    dispatcher.include_router(router)
    async with FineVoiceSession(journal="sounds.db") as session, Bot(os.environ["TELEGRAM_TOKEN"]) as bot:
        await dispatcher.start_polling(bot, session=session)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
