"""FineVoice on your own machine: real HTTP, real audio, no key. See `Emulator`."""

from finevoice_async.emulator.ledger import Accepted, Ledger
from finevoice_async.emulator.server import Emulator
from finevoice_async.emulator.service import Constant, LogNormal, ServiceLaw, greedy_bound

__all__ = ["Accepted", "Constant", "Emulator", "Ledger", "LogNormal", "ServiceLaw", "greedy_bound"]
