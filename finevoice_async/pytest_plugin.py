"""The pytest fixtures, for who names them: ``-p finevoice_async.pytest_plugin``. pytest finds them by itself, too."""

from _finevoice_async_pytest import finevoice_emulator, finevoice_session

__all__ = ["finevoice_emulator", "finevoice_session"]
