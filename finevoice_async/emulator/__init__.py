"""FineVoice on your own machine: real HTTP, real audio, no key. See `Emulator`."""

from finevoice_async.emulator.faults import FAULTS, Fault, FaultKind
from finevoice_async.emulator.laws import Constant, LogNormal, ServiceLaw, greedy_bound
from finevoice_async.emulator.ledger import Accepted, Ledger
from finevoice_async.emulator.server import Emulator

__all__ = [
    "FAULTS",
    "Accepted",
    "Constant",
    "Emulator",
    "Fault",
    "FaultKind",
    "Ledger",
    "LogNormal",
    "ServiceLaw",
    "greedy_bound",
]
