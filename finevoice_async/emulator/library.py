"""The emulated service's files: made when somebody asks for one, and kept while there is room."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable

import attrs

from finevoice_async.core.requests import SfxRequest
from finevoice_async.emulator.laws import DEFAULT_DURATION
from finevoice_async.emulator.synth import hum, synthesise

MAX_BYTES = 64 * 1024 * 1024
"""What the library keeps at most: some fifty of the longest effects."""


@attrs.frozen
class AudioFile:
    """A WAV file.

    Attributes:
        content: Its bytes.
        etag: The strong tag of its content.
    """

    content: bytes
    etag: str


Synthesiser = Callable[[str | None, str | None, float], bytes]
"""Makes a WAV file of a prompt, a negative prompt, and a duration in seconds: the same each time."""


def make_file(
    prompt: str | None, negative_prompt: str | None, duration: float, play: Synthesiser = synthesise
) -> AudioFile:
    """Make the file of a request: the same each time."""
    content = play(prompt, negative_prompt, duration)
    return AudioFile(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class Library:
    """Files by what they were asked as: 10,000 tasks that nobody fetches cost nothing."""

    def __init__(self, max_bytes: int = MAX_BYTES, *, quick: bool = False) -> None:
        self._max_bytes = max_bytes
        self._play: Synthesiser = hum if quick else synthesise
        # All mutable state:
        self._files: OrderedDict[tuple[str | None, str | None, float], AudioFile] = OrderedDict()  # least used first
        self._bytes = 0
        self._making = asyncio.Lock()  # one at a time: more threads of pure Python would only starve the event loop

    @property
    def size(self) -> int:
        """The bytes kept."""
        return self._bytes

    async def get(self, request: SfxRequest) -> AudioFile:
        """Return the file of a request; a thread makes it if it is not there."""
        key = (request.prompt or request.source_url, request.negative_prompt, request.duration or DEFAULT_DURATION)
        if key not in self._files:
            async with self._making:
                if key not in self._files:  # another request for it may have been first
                    self._keep(key, await asyncio.to_thread(make_file, *key, self._play))
        self._files.move_to_end(key)
        return self._files[key]

    def _keep(self, key: tuple[str | None, str | None, float], file: AudioFile) -> None:
        self._files[key] = file
        self._bytes += len(file.content)
        while self._bytes > self._max_bytes and len(self._files) > 1:
            _, dropped = self._files.popitem(last=False)
            self._bytes -= len(dropped.content)
