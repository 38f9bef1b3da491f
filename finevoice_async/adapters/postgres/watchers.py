"""Who wants to know when a row changes, whoever changes it."""

from __future__ import annotations

from collections.abc import Callable

Told = Callable[[], None]


class Watchers:
    """Owns them, by row."""

    def __init__(self) -> None:
        # All mutable state:
        self._of_row: dict[int, dict[object, Told]] = {}
        self._looks: dict[int, object] = {}  # how a row was at the last look

    def __len__(self) -> int:
        return len(self._of_row)

    @property
    def row_ids(self) -> list[int]:
        """The rows that are watched."""
        return list(self._of_row)

    def add(self, row_id: int, told: Told) -> Callable[[], None]:
        """Tell somebody whenever a row may have changed; return what ends that."""
        watcher = object()
        self._of_row.setdefault(row_id, {})[watcher] = told

        def end() -> None:
            of_row = self._of_row.get(row_id, {})
            of_row.pop(watcher, None)
            if not of_row:
                self._of_row.pop(row_id, None)
                self._looks.pop(row_id, None)

        return end

    def tell(self, row_id: int) -> None:
        """A row has changed."""
        for told in list(self._of_row.get(row_id, {}).values()):
            told()

    def looked(self, row_id: int, look: object) -> None:
        """A row was read again: tell, if it is not as it was."""
        if row_id in self._of_row and self._looks.get(row_id) != look:
            self._looks[row_id] = look
            self.tell(row_id)
