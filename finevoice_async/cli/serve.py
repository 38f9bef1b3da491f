"""`finevoice emulator`: the emulated service, until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import shlex
from collections.abc import Iterable
from typing import Any

from finevoice_async.config import API_KEY_VARIABLE, BASE_URL_VARIABLE
from finevoice_async.emulator import Emulator, Fault, FaultName
from finevoice_async.emulator.faults import as_fault_name
from finevoice_async.errors import ConfigurationError


def read_faults(texts: Iterable[str]) -> dict[FaultName | Fault, float]:
    """Read faults and their probabilities, each as NAME=PROB.

    Raises:
        ValueError: One is something else, or given twice.
    """
    faults: dict[FaultName | Fault, float] = {}
    for text in texts:
        name, _, probability = text.partition("=")
        fault = as_fault_name(name.strip())
        if fault in faults:
            raise ValueError(f"the fault {fault} is given twice")
        try:
            faults[fault] = float(probability)
        except ValueError:
            raise ValueError(f"--fault takes NAME=PROB, as in {fault}=0.1, not {text!r}") from None
    return faults


def make_emulator(options: dict[str, Any], faults: Iterable[str]) -> Emulator:
    """Return the emulator that the command line asks for.

    Raises:
        ConfigurationError: An option makes no sense.
    """
    try:
        return Emulator(**options, faults=read_faults(faults))
    except ValueError as error:
        raise ConfigurationError(f"The emulator was not started: {error}.") from None


async def _start(emulator: Emulator, port: int) -> None:
    """Start it.

    Raises:
        ConfigurationError: The port is not free, or not for everybody.
    """
    try:
        await emulator.start()
    except OSError as error:
        why = error.strerror or "the system refused it"
        if error.errno == errno.EADDRINUSE:
            why = f"port {port} is taken. Name another with --port, or none for a free one"
        elif error.errno == errno.EACCES:
            why = f"port {port} is not for everybody. Name one above 1023 with --port, or none for a free one"
        raise ConfigurationError(f"The emulator was not started: {why}.") from error


async def serve(options: dict[str, Any], faults: Iterable[str]) -> int:
    """Serve, and print the two lines that point the library to it.

    Raises:
        ConfigurationError: It cannot be served so.
    """
    emulator = make_emulator(options, faults)
    await _start(emulator, options.get("port", 0))
    async with emulator:
        print(f"export {BASE_URL_VARIABLE}={emulator.url}")
        print(f"export {API_KEY_VARIABLE}={shlex.quote(emulator.api_key)}", flush=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ledger = emulator.ledger
            print(f"\n{len(ledger.accepted)} accepted, {ledger.polls} polls, {ledger.fetches} downloads")
            raise
    return 0
