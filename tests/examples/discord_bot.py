"""A Discord bot that makes sounds, on /sound prompt:"rain on a tin roof" seconds:5 and the like.

    pip install finevoice-async discord.py
    export FINEVOICE_API_KEY=...       # or the two lines that `finevoice emulator` prints in a second terminal
    export DISCORD_TOKEN=...           # of your application, https://discord.com/developers/applications
    python discord_bot.py

Its journal is the file sounds.db: what was paid for as the bot stopped is found there (`finevoice journal sounds.db`).
"""

import asyncio
import io
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from finevoice_async import FineVoiceError, FineVoiceSession, SfxTask, TaskTimeoutError

log = logging.getLogger("sounds")
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class Sounds(commands.Cog):
    """The command /sound."""

    def __init__(self, session: FineVoiceSession) -> None:
        """Make sounds with this session."""
        self.session = session
        self.answering: set[asyncio.Task[Any]] = set()

    @app_commands.command(description="Make a sound effect")
    @app_commands.describe(prompt="What should be heard", seconds="How long it is, up to 30")
    @app_commands.checks.cooldown(5, 600, key=lambda interaction: interaction.user.id)  # each user's own quota
    async def sound(
        self,
        interaction: discord.Interaction,
        prompt: app_commands.Range[str, 1, 500],
        seconds: app_commands.Range[float, 1, 30] = 5.0,
    ) -> None:
        """Make a sound for a user."""
        await interaction.response.defer(thinking=True)  # at once: Discord waits for 3 s. From now on, 15 minutes
        answering = asyncio.current_task()
        assert answering is not None
        self.answering.add(answering)
        try:
            await self.answer(interaction, prompt, seconds)
        finally:
            self.answering.discard(answering)

    async def answer(self, interaction: discord.Interaction, prompt: str, seconds: float) -> None:
        """Send the sound, or what went wrong in words for people; the log gets all of it."""
        send: Callable[..., Awaitable[Any]] = interaction.followup.send
        try:
            task = await self.session.enqueue(
                prompt,
                duration=seconds,
                owner=f"discord {interaction.user.id}",  # users take turns, however much one of them asks for
                key=f"discord {interaction.id}",
            )
            await send(in_line(task))
            left = interaction.expires_at - discord.utils.utcnow()
            try:
                effect = await task.wait(timeout=left.total_seconds() - 60)  # a minute to fetch and to send it
            except TaskTimeoutError as late:
                await send(f"{late.user_message} You will get it in a direct message.")
                send = interaction.user.send
                effect = await task.wait(timeout=None)
            sound = await effect.read()
            if len(sound) > interaction.filesize_limit:
                await send("Your sound is ready, but it is larger than a file may be here.")
                return  # its row in the journal stays as it is: whoever runs the bot can still save it
            await send(file=discord.File(io.BytesIO(sound), filename=effect.file_name))
            await effect.acknowledge()
        except FineVoiceError as error:
            log.warning("for user %s: %s", interaction.user.id, error)
            await send(error.user_message)

    async def cog_app_command_error(
        self, interaction: discord.Interaction, error: app_commands.AppCommandError
    ) -> None:
        """Tell a user whose quota is used up."""
        if not isinstance(error, app_commands.CommandOnCooldown):
            log.error("/sound failed", exc_info=error)
            return
        words = f"You have asked for all the sounds you may for now; the next one in {error.retry_after:.0f} s."
        await interaction.response.send_message(words, ephemeral=True)

    async def stop(self) -> None:
        """Stop what waits, and let it say so: the sounds are not lost."""
        await self.session.aclose()
        if self.answering:
            await asyncio.wait(self.answering, timeout=5)


def in_line(task: SfxTask) -> str:
    """Say how long it will take."""
    place, estimate = task.position, task.estimate()
    about = f", about {max(estimate.median, 1):.0f} s" if estimate is not None else ""
    if place is None:
        return f"Your sound is being made{about}."
    return f"Your sound is {PLACES[place - 1] if place <= len(PLACES) else f'number {place}'} in line{about}."


class Bot(commands.Bot):
    """A bot with that one command."""

    def __init__(self, session: FineVoiceSession) -> None:
        """Make the bot; it needs to read nothing that people write."""
        super().__init__(commands.when_mentioned, intents=discord.Intents(guilds=True))
        self.sounds = Sounds(session)

    async def setup_hook(self) -> None:
        """Tell Discord of the command."""
        await self.add_cog(self.sounds)
        await self.tree.sync()

    async def close(self) -> None:
        """Stop."""
        await self.sounds.stop()
        await super().close()


async def main() -> None:
    """Run until SIGTERM or Ctrl-C."""
    async with FineVoiceSession(journal="sounds.db") as session, Bot(session) as bot:
        running = asyncio.create_task(bot.start(os.environ["DISCORD_TOKEN"]))
        for sign in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sign, running.cancel)
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()  # it did not come up, or fell: say why


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
