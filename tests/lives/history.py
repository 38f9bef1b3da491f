"""What happened in the lives of one seed, in order, for people to read."""

from __future__ import annotations

from collections.abc import Callable


class History:
    """Keeps lines with virtual times, and what must not have happened."""

    def __init__(self) -> None:
        # All mutable state:
        self.life = 0
        self.lines: list[str] = []
        self.violations: list[str] = []
        self.now: Callable[[], float] = lambda: 0.0
        self._shut: tuple[int, float, float] | None = None  # the life, since when, until when submissions wait in line

    def note(self, text: str) -> None:
        """Write a line."""
        self.lines.append(f"{self.now():10.3f} life {self.life}  {text}")

    def hears(self, words: str) -> None:
        """Take in what the library logs of its line: whoever waits there has its slot already."""
        if words.startswith("submissions wait") and self.line_since(0.0) is None:
            self._shut = self.life, self.now(), float("inf")
        elif words.startswith("submissions leave") and self._shut is not None:
            self._shut = (*self._shut[:2], self.now())

    def line_since(self, slack: float) -> float | None:
        """Return since when submissions of this life wait in line, if they do, or did a moment ago."""
        if self._shut is None or self._shut[0] != self.life or self.now() > self._shut[2] + slack:
            return None
        return self._shut[1]

    def violate(self, rule: str, text: str) -> None:
        """Note that a rule was broken."""
        self.violations.append(f"rule {rule}: {text}")
        self.note(f"!! RULE {rule} BROKEN: {text}")

    def report(self, seed: int) -> str:
        """Return the whole story of a seed."""
        head = [f"seed {seed}: {len(self.violations)} rules broken", *self.violations, ""]
        again = f"Replay: FINEVOICE_SEED={seed} pytest tests/lives"
        return "\n".join([*head, *self.lines, "", *self.violations[:5], again])
