"""Tests of a bot that makes sounds: without a key, without cost, and with all that can go wrong.

    pip install finevoice-async pytest
    pytest testing_your_bot.py         # the fixtures come with the package; nothing else is to be set up

`finevoice_emulator` is the service on this machine, where effects take 50 ms. Every session finds it by itself.
`inject` orders faults (`finevoice_async/emulator/faults.py` lists them), and `ledger` says what was asked and paid.
"""

import asyncio
from pathlib import Path

import pytest

from finevoice_async import FineVoiceError, FineVoiceSession, SubmitUnknownError
from finevoice_async.testing import EmulatedService

# The bot. In your project it stands in a module of its own, and the tests import it.


async def answer(session: FineVoiceSession, user: str, message: int, prompt: str) -> bytes | str:
    """Return the sound that a message asks for, or what to say to its author."""
    try:
        effect = await session.generate(prompt, duration=3, key=f"message {message}", owner=user)
        return await effect.read()
    except FineVoiceError as error:
        return error.user_message


# Its tests. They are plain functions, and so need no plugin for pytest; with pytest-asyncio or anyio write `async def`.


def ask(service: EmulatedService, *prompts: str, journal: Path | None = None) -> list[bytes | str]:
    """Run the bot: one message for each prompt, all at once, each from another user."""

    async def run() -> list[bytes | str]:
        async with service.session(journal=journal) as session:  # polls every 10 ms, and gives up soon
            calls = [answer(session, f"user {number}", number, prompt) for number, prompt in enumerate(prompts)]
            return await asyncio.gather(*calls)

    return asyncio.run(run())


def test_a_sound(finevoice_emulator: EmulatedService) -> None:
    """Somebody asks for a sound, and gets it."""
    (sound,) = ask(finevoice_emulator, "bell")
    assert isinstance(sound, bytes)
    assert sound[:4] == b"RIFF"
    (paid,) = finevoice_emulator.ledger.accepted.values()
    assert (paid.request.prompt, paid.request.duration, paid.fetched) == ("bell", 3, 1)


def test_many(finevoice_emulator: EmulatedService) -> None:
    """Twenty ask at once: all are served, and the plan's five slots are kept full but never overdrawn."""
    assert all(isinstance(sound, bytes) for sound in ask(finevoice_emulator, *["bell"] * 20))
    assert finevoice_emulator.ledger.most_running == 5
    assert finevoice_emulator.ledger.rate_limited == 0


def test_the_same_message_again(finevoice_emulator: EmulatedService, tmp_path: Path) -> None:
    """The bot is restarted and sees the message again: with a journal nobody pays twice."""
    journal = tmp_path / "effects.db"
    assert ask(finevoice_emulator, "bell", journal=journal) == ask(finevoice_emulator, "bell", journal=journal)
    assert len(finevoice_emulator.ledger.accepted) == 1


def test_a_lost_answer(finevoice_emulator: EmulatedService) -> None:
    """The answer to a submission is lost: it may be paid for, so it is not sent again, and the user is told."""
    finevoice_emulator.inject("submit.lose_reply")
    (words,) = ask(finevoice_emulator, "bell")
    assert isinstance(words, str)
    assert "not certain" in words
    assert len(finevoice_emulator.ledger.accepted) == 1


@pytest.mark.parametrize("fault", ["poll.error_500", "poll.reset", "download.cut", "submit.rate_limit"])
def test_what_the_library_bears(finevoice_emulator: EmulatedService, fault: str) -> None:
    """Polls that fail, a download that is cut, a plan that is full for a moment: nobody notices."""
    finevoice_emulator.inject(fault)  # type: ignore[arg-type]  # a checker cannot see that the list holds fault names
    (sound,) = ask(finevoice_emulator, "bell")
    assert isinstance(sound, bytes)
    assert finevoice_emulator.ledger.faults == {fault: 1}


def test_no_credits(finevoice_emulator: EmulatedService) -> None:
    """The credits last for two sounds of three: two are paid for and come, the third is refused in plain words."""
    finevoice_emulator.credits = 2
    answers = ask(finevoice_emulator, "bell", "rain", "wind")
    assert sum(isinstance(sound, bytes) for sound in answers) == 2
    assert "The credits for making sounds are used up, so your sound was not ordered." in answers


def test_an_error_in_a_program(finevoice_emulator: EmulatedService) -> None:
    """What the log gets is the error itself: `paid` is None where nobody knows."""
    finevoice_emulator.inject("submit.reset")

    async def run() -> None:
        async with finevoice_emulator.session() as session:
            await session.generate("bell", key="my bell")

    with pytest.raises(SubmitUnknownError) as caught:
        asyncio.run(run())
    assert caught.value.paid is None
    assert caught.value.key == "my bell"
