"""A newcomer's way: the emulator, the FastAPI example, and its page in a browser that plays the sound."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from programs import EXAMPLES, PATIENCE, free_port, running, wait_for

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
FINEVOICE = ["-c", "from finevoice_async.cli import main; main()"]  # what the script `finevoice` does
NEWCOMER = 180.0
"""Seconds that a newcomer has, once the package is installed. A person reads and types beside."""

PLAYED = """() => {
    const player = document.querySelector("audio");
    return player !== null && player.currentTime > 0 && player.duration > 2.5 && player.error === null;
}"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_a_newcomer(tmp_path: Path) -> None:
    """Two terminals and a browser: submit, watch, play; in well under three minutes, and no error in the console."""
    began = time.perf_counter()
    first, second = tmp_path / "first terminal", tmp_path / "second terminal"
    first.mkdir()
    second.mkdir()
    with running([*FINEVOICE, "emulator", "--service-time", "1.5"], first, os.environ) as service:
        while service.said.count("\n") < 2:
            assert time.perf_counter() - began < PATIENCE, service.said
            time.sleep(0.005)
        told = [line.removeprefix("export ").split("=", 1) for line in service.said.splitlines()[:2]]
        port = free_port()
        variables = {**os.environ, **{name: value.strip("'") for name, value in told}, "PORT": str(port)}
        with running([str(EXAMPLES / "fastapi_app.py")], second, variables) as app:
            app.url = f"http://localhost:{port}"
            wait_for(app)
            watched = use(app.url)
            assert any("being made" in words or "pending" in words or "processing" in words for words in watched)
            assert app.stop()[1] < PATIENCE
            assert "Traceback" not in app.said, app.said
    assert time.perf_counter() - began < NEWCOMER


def use(url: str) -> list[str]:
    """Ask for a sound on the page, watch it and hear it; return what the page said meanwhile."""
    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            page = browser.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.goto(url)
            page.evaluate(
                "window.watched = []; new MutationObserver(() => watched.push(document.body.innerText))"
                ".observe(document.getElementById('sounds'), {subtree: true, childList: true, characterData: true})"
            )
            page.fill("#prompt", "Thunder <b>far away</b>")
            page.click("button")
            page.wait_for_function(PLAYED, timeout=PATIENCE * 1000)
            assert page.locator("li b").count() == 0, "what is typed is shown as text"
            assert not [error for error in errors if "favicon" not in error], errors
            watched: list[str] = page.evaluate("watched")
            return watched
        finally:
            browser.close()
