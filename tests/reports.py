"""What the tests of the report share: effects of every kind, a page in a folder, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from finevoice_async.batch.report import render, write
from finevoice_async.batch.report_data import EffectReport, ReportData, TakeReport
from finevoice_async.core.ledger import EffectState

BEGAN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
NASTY = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'&{{ 7 * 7 }}"
PATIENCE = 30_000.0
"""Milliseconds for a browser on a busy machine."""

expect.set_options(timeout=PATIENCE)


def take(state: EffectState = EffectState.SAVED, **fields: Any) -> TakeReport:
    """Return a take; what is saved has a file."""
    known: dict[str, Any] = {"task_id": "p1-c3d4"}
    if state is EffectState.SAVED:
        known |= {"file": "a.wav", "seconds": 2.0, "peak": 0.5, "waveform": [(-0.5, 0.5), (-0.1, 0.2)]}
    return TakeReport(state=state, **{**known, **fields})


def effect(key: str, *takes: TakeReport, **fields: Any) -> EffectReport:
    """Return an effect, with one saved take if none are given."""
    return EffectReport(key=key, **{"prompt": f"The sound of {key}", "takes": takes or (take(),), **fields})


def data(*effects: EffectReport, **fields: Any) -> ReportData:
    """Return what a page shows."""
    return ReportData(**{"title": "sounds", "made_at": BEGAN, "effects": effects, "paid": len(effects), **fields})


def at(seconds: float) -> datetime:
    """Return a moment so many seconds after the beginning."""
    return BEGAN + timedelta(seconds=seconds)


def ran(began: float, ended: float | None, state: EffectState = EffectState.SAVED) -> TakeReport:
    """Return a take that ran in this time."""
    return TakeReport(state=state, submitted_at=at(began), ended_at=None if ended is None else at(ended))


def many(count: int) -> list[EffectReport]:
    """Return so many effects, every tenth failed, every hundredth with three takes."""
    effects = []
    for i in range(count):
        takes = [
            take(number=n + 1, file=f"{i}-{n}.wav", task_id=f"p1-{i:05}-{n}") for n in range(3 if i % 100 == 0 else 1)
        ]
        if i % 10 == 7:
            takes = [take(EffectState.FAILED, reason="the service said no", task_id=f"p1-{i:05}")]
        effects.append(effect(f"scene {i}, {'door' if i % 2 else 'rain'}", *takes))
    return effects


def put_page(folder: Path, shown: ReportData) -> Path:
    """Write the page into a folder, and return where."""
    page = folder / "report.html"
    write(render(shown), page)
    return page


def mixed() -> ReportData:
    """Return effects of several states."""
    return data(
        effect("rain on tin", take(seconds=2.0, peak=0.9, file="r.wav"), prompt="Heavy rain"),
        effect("door 10", take(seconds=5.0, peak=0.1, file="d10.wav")),
        effect("door 9", take(seconds=1.0, peak=0.5, file="d9.wav", problems=["it is silent"])),
        effect("bell", take(EffectState.FAILED, reason="The service said no", task_id="p1-FEED")),
        effect("Straße 鐘", take(EffectState.UNKNOWN, task_id=None)),
        effect("later", takes=()),
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give the system's Chromium; without one, skip where that may be, and fail where all must run."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "There is no Chromium here: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, timeout=PATIENCE * 2)
        try:
            yield browser
        finally:
            browser.close()


@attrs.define
class Watched:
    """A page in a browser, and all that it complains of or asks for."""

    page: Page
    complaints: list[str] = attrs.field(factory=list)
    requests: list[str] = attrs.field(factory=list)

    @classmethod
    def open(cls, context: BrowserContext, url: str) -> Watched:
        """Open an address and watch."""
        watched = cls(context.new_page())
        watched.page.set_default_timeout(PATIENCE)
        watched.page.on("console", lambda message: watched.complaints.append(f"{message.type}: {message.text}"))
        watched.page.on("pageerror", lambda error: watched.complaints.append(f"error: {error}"))
        watched.page.on("request", lambda request: watched.requests.append(request.url))
        watched.page.goto(url)
        return watched

    def shown(self) -> Sequence[str]:
        """Return the keys of the effects that are laid out, in order."""
        keys: list[str] = self.page.eval_on_selector_all(
            ".effect:not([hidden]) h3", "all => all.map(h => h.textContent)"
        )
        return keys

    def wait(self, expression: str) -> None:
        """Wait until an expression of the page is true. By a clock: the page's policy forbids code from text."""
        deadline = PATIENCE
        while not self.page.evaluate(expression):
            self.page.wait_for_timeout(20)
            deadline -= 20
            assert deadline > 0, expression


Show = Callable[..., Watched]
"""Shows a page from the disk; options are those of a context of the browser's."""
