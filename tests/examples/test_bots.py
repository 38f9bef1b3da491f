"""The bots, with their real libraries: only the other end of the network is ours."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fake_discord
import fake_telegram
import pytest
from aiohttp import web
from fake_discord import FakeDiscord
from fake_telegram import FakeTelegram
from programs import EXAMPLES, PATIENCE, Program, environment, running

from finevoice_async.testing import EmulatedService

pytestmark = pytest.mark.real_time
AUDIOOP = ("-W", "ignore:'audioop' is deprecated:DeprecationWarning")  # discord.py's own, for voice


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve an app; give its address."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def discord_bot(folder: Path, service: EmulatedService) -> AsyncIterator[tuple[Program, FakeDiscord]]:
    """Run the Discord bot until it is ready; at the end it must stop cleanly."""
    discord = FakeDiscord()
    async with served(discord.make_app()) as url:
        command = [*AUDIOOP, "-c", fake_discord.REDIRECTED, str(EXAMPLES / "discord_bot.py"), url]
        with running(command, folder, environment(service, DISCORD_TOKEN="x.y.z")) as program:
            await until(discord.ready.is_set, program)
            yield program, discord
            await stop(program)


@asynccontextmanager
async def telegram_bot(folder: Path, service: EmulatedService) -> AsyncIterator[tuple[Program, FakeTelegram]]:
    """Run the Telegram bot until it asks for news; at the end it must stop cleanly."""
    telegram = FakeTelegram()
    async with served(telegram.make_app()) as url:
        command = ["-c", fake_telegram.REDIRECTED, str(EXAMPLES / "telegram_bot.py"), url]
        with running(command, folder, environment(service, TELEGRAM_TOKEN=fake_telegram.TOKEN)) as program:
            await until(telegram.asked.is_set, program)
            yield program, telegram
            await stop(program)


async def stop(program: Program) -> None:
    """Stop a bot, if it was not; it ends soon, and without a traceback."""
    if program.process.poll() is None:
        code, seconds = await asyncio.to_thread(program.stop)
        assert code in (0, -signal.SIGTERM), program.said
        assert seconds < 10, program.said
    assert "Traceback" not in program.said, program.said


async def until(reached: Callable[[], bool], program: Program) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not reached():
            assert program.process.poll() is None, program.said
            await asyncio.sleep(0.02)


async def test_discord(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """It defers at once, says how long it takes, and sends the sound under a name for people; each user has turns."""
    finevoice_emulator.service_time = 0.3
    async with discord_bot(tmp_path, finevoice_emulator) as (program, discord):
        assert [each["name"] for each in discord.commands] == ["sound"]
        for number in range(7):  # five run at once; the owners of the last two have none running
            await discord.call(number // 3, f"t{number}", prompt="Rain on a tin roof", seconds=1.0)
        await until(lambda: sum(bool(files) for _, _, files in discord.sent) == 7, program)
        assert {token: answer["type"] for token, answer in discord.callbacks.items()} == {f"t{n}": 5 for n in range(7)}
        words = {place: fields["content"] for place, fields, files in discord.sent if not files}
        assert words["t0"] == "Your sound is being made."
        assert {words["t5"], words["t6"]} == {"Your sound is first in line.", "Your sound is second in line."}
        for _, _, files in discord.sent:
            for name, sound in files.items():
                assert name == "rain-on-a-tin-roof.wav"
                assert sound[:4] == b"RIFF"
        for number in range(10, 18):  # how long it takes is known by now
            await discord.call(number, f"t{number}", prompt="Rain", seconds=1.0)
        await until(lambda: sum(bool(files) for _, _, files in discord.sent) == 15, program)
        later = [fields["content"] for _, fields, files in discord.sent[-16:] if not files]
        assert any(re.fullmatch(r"Your sound is third in line, about \d+ s\.", words) for words in later), later
    assert len(finevoice_emulator.ledger.accepted) == 15
    assert finevoice_emulator.ledger.most_running <= 5


def words_for(discord: FakeDiscord, place: str) -> str:
    """Return what was said last in a place."""
    return next(
        (fields["content"] for sent, fields, _ in reversed(discord.sent) if sent == place and "content" in fields), ""
    )


async def test_discord_quota_and_failure(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """A sound that fails is told in words for people; one user's quota leaves another's alone."""
    async with discord_bot(tmp_path, finevoice_emulator) as (program, discord):
        finevoice_emulator.inject("task.fail")
        await discord.call(1, "bad", prompt="Rain", seconds=1.0)
        await until(lambda: words_for(discord, "bad") == "The sound service could not make this sound.", program)
        for number in range(5):
            await discord.call(1, f"t{number}", prompt="Rain", seconds=1.0)
        await discord.call(2, "other", prompt="Rain", seconds=1.0)
        await until(lambda: sum(bool(files) for _, _, files in discord.sent) == 5, program)
        refused = discord.callbacks["t4"]
        assert refused["type"] == 4
        assert "asked for all the sounds" in refused["data"]["content"]
        assert any(place == "other" and files for place, _, files in discord.sent)
    assert len(finevoice_emulator.ledger.accepted) == 6


async def test_discord_after_its_15_minutes(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """When Discord takes no more answers, the sound comes as a direct message."""
    finevoice_emulator.service_time = 2.0
    async with discord_bot(tmp_path, finevoice_emulator) as (program, discord):
        long_ago = datetime.now(UTC) - timedelta(minutes=13, seconds=59)
        await discord.call(1, "late", created=long_ago, prompt="Rain", seconds=1.0)
        await until(lambda: bool(discord.sent and discord.sent[-1][2]), program)
        assert [place for place, _, _ in discord.sent] == ["late", "late", "77"]
        assert "in a direct message" in words_for(discord, "late")


async def test_discord_stops(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """Whoever waits as it stops is told; what it was is in the journal."""
    finevoice_emulator.service_time = 60
    async with discord_bot(tmp_path, finevoice_emulator) as (program, discord):
        await discord.call(1, "t", prompt="Rain", seconds=1.0)
        await until(lambda: len(finevoice_emulator.ledger.accepted) == 1, program)
        await until(lambda: len(discord.sent) == 1, program)
        await stop(program)
        assert words_for(discord, "t").endswith("the sound is not lost.")
    assert (tmp_path / "sounds.db").exists()


async def test_telegram(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """It says how long it takes, sends the file named for people, and pays once for a message that comes twice."""
    async with telegram_bot(tmp_path, finevoice_emulator) as (program, telegram):
        telegram.message(7, "/sound Rain on a tin roof", number=100)
        await until(lambda: len(telegram.sent) == 2, program)
        (first, fields, _), (second, _, files) = telegram.sent
        assert (first, fields["text"]) == ("sendMessage", "Your sound is being made.")
        assert second == "sendDocument"
        assert files["rain-on-a-tin-roof.wav"][:4] == b"RIFF"
        telegram.message(7, "/sound Rain on a tin roof", number=100)  # delivered again
        await until(lambda: len(telegram.sent) == 4, program)
        assert telegram.sent[3][2] == files
        telegram.message(7, "/sound")
        await until(lambda: len(telegram.sent) == 5, program)
        assert telegram.sent[4][1]["text"].startswith("Say what should be heard")
        finevoice_emulator.credits = 0
        telegram.message(7, "/sound Rain")
        await until(lambda: len(telegram.sent) == 7, program)
        assert telegram.sent[6][1]["text"].startswith("The credits for making sounds are used up")
    assert len(finevoice_emulator.ledger.accepted) == 1


async def test_telegram_quota_and_stop(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """Three of one user at once, and another's all the same; who waits as it stops is told."""
    finevoice_emulator.service_time = 60
    async with telegram_bot(tmp_path, finevoice_emulator) as (program, telegram):
        for _ in range(4):
            telegram.message(1, "/sound Rain")
        telegram.message(2, "/sound Wind")
        await until(lambda: len(finevoice_emulator.ledger.accepted) == 4, program)
        await until(lambda: len(telegram.sent) == 5, program)
        assert sum("ask again when one of them is there" in fields["text"] for _, fields, _ in telegram.sent) == 1
        await stop(program)
        assert sum(fields["text"].endswith("the sound is not lost.") for _, fields, _ in telegram.sent) == 4
