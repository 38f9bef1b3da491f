"""Many sound effects at once from FineVoice: none paid for twice, none lost."""

import logging
from typing import TYPE_CHECKING

from finevoice_async.config import Budget, Downloads, Fleet, Polling, Retry, Timeouts
from finevoice_async.core.fields import SfxDict, SfxFields, SfxItem, SourceType
from finevoice_async.core.ledger import EffectState, JournalRow
from finevoice_async.core.polling.schedule import Estimate
from finevoice_async.core.requests import SfxRequest
from finevoice_async.core.tasks import TaskStatus, TaskUpdate
from finevoice_async.effect import Outcome, SoundEffect
from finevoice_async.engine.stats import Stats
from finevoice_async.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    DownloadError,
    FineVoiceError,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    ManifestError,
    PollError,
    QueueFullError,
    RateLimitError,
    RequestRejectedError,
    SessionClosedError,
    SubmitNotSentError,
    SubmitUnknownError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)
from finevoice_async.ports import Observer
from finevoice_async.session import FineVoiceSession
from finevoice_async.task import SfxTask

if TYPE_CHECKING:
    from finevoice_async.events import SfxEvent
    from finevoice_async.shared_ports import FleetStats
else:  # checkers would take any name to be here

    def __getattr__(name: str) -> object:
        """Import what is for who has a fleet or an observer: all others start without what it brings."""
        if name == "FleetStats":
            from finevoice_async.shared_ports import FleetStats

            return FleetStats
        if name == "SfxEvent":
            from finevoice_async.events import SfxEvent

            return SfxEvent
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AuthenticationError",
    "Budget",
    "BudgetExceededError",
    "ConfigurationError",
    "DownloadError",
    "Downloads",
    "EffectState",
    "Estimate",
    "FineVoiceError",
    "FineVoiceSession",
    "Fleet",
    "FleetStats",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "JournalError",
    "JournalRow",
    "ManifestError",
    "Observer",
    "Outcome",
    "PollError",
    "Polling",
    "QueueFullError",
    "RateLimitError",
    "RequestRejectedError",
    "Retry",
    "SessionClosedError",
    "SfxDict",
    "SfxEvent",
    "SfxFields",
    "SfxItem",
    "SfxRequest",
    "SfxTask",
    "SoundEffect",
    "SourceType",
    "Stats",
    "SubmitNotSentError",
    "SubmitUnknownError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskStatus",
    "TaskTimeoutError",
    "TaskUpdate",
    "Timeouts",
]

# Else a program that has not set up logging gets every warning on stderr, from logging's last resort.
logging.getLogger("finevoice_async").addHandler(logging.NullHandler())
