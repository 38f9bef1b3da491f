"""Batches with an emulated service in a thread of its own, on the ordinary loop; and a browser for their reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from batch_project import Project
from playwright.sync_api import Browser
from reports import Show, Watched, chromium, put_page
from sounds import put, tone, wav

from finevoice_async.batch.report_data import ReportData
from finevoice_async.testing import make_service


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project without a manifest yet."""
    with make_service() as service:
        yield Project(tmp_path, service)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one file of tests alone: while one runs, no other loop can in this thread."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Show a page from the disk, with a sound beside it; at the end it must have complained of nothing."""
    put(tmp_path / "a.wav", wav(tone(2)))
    opened: list[Watched] = []

    def open_page(shown: ReportData, **options: Any) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        opened.append(Watched.open(context, put_page(tmp_path, shown).as_uri()))
        return opened[-1]

    yield open_page
    for watched in opened:
        watched.page.context.close()
        assert watched.complaints == []
        assert {urlsplit(url).scheme for url in watched.requests} <= {"file", "data"}
