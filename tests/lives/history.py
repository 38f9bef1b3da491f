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

    def note(self, text: str) -> None:
        """Write a line."""
        self.lines.append(f"{self.now():10.3f} life {self.life}  {text}")

    def violate(self, rule: str, text: str) -> None:
        """Note that a rule was broken."""
        self.violations.append(f"rule {rule}: {text}")
        self.note(f"!! RULE {rule} BROKEN: {text}")

    def report(self, seed: int) -> str:
        """Return the whole story of a seed."""
        head = [f"seed {seed}: {len(self.violations)} rules broken", *self.violations, ""]
        again = f"Replay: FINEVOICE_SEED={seed} pytest tests/lives"
        return "\n".join([*head, *self.lines, "", *self.violations[:5], again])
