"""FineVoice on your own machine: real HTTP, real audio, no key.

`Emulator` runs on the event loop that starts it, `EmulatorThread` beside any, for tests.
"""

from finevoice_async.emulator.faults import FAULTS, Fault, FaultKind, FaultName, Probabilities, as_fault_name
from finevoice_async.emulator.laws import Constant, LogNormal, ServiceLaw, greedy_bound
from finevoice_async.emulator.ledger import Accepted, Ledger
from finevoice_async.emulator.server import Emulator
from finevoice_async.emulator.spelling import Dialect
from finevoice_async.emulator.thread import EmulatorThread

__all__ = [
    "FAULTS",
    "Accepted",
    "Constant",
    "Dialect",
    "Emulator",
    "EmulatorThread",
    "Fault",
    "FaultKind",
    "FaultName",
    "Ledger",
    "LogNormal",
    "Probabilities",
    "ServiceLaw",
    "as_fault_name",
    "greedy_bound",
]
