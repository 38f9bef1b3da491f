"""The report in a real browser: keys and fingers, every screen, day and night; and what does not get in."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from reports import NASTY, Show, Watched, data, effect, mixed, put_page, take
from sounds import put, tone, wav

from finevoice_async.core.ledger import EffectState

# Keys and fingers


def test_the_keyboard(show: Show) -> None:
    """A slash finds, Escape clears, arrows go from player to player and within a sound, the space bar plays."""
    watched = show(mixed())
    keys, focused = watched.page.keyboard, "document.activeElement"
    keys.press("/")
    assert watched.page.evaluate(f"{focused}.id") == "find"
    keys.type("do/r")
    assert watched.page.get_by_role("searchbox").input_value() == "do/r"
    keys.press("Escape")
    assert len(watched.shown()) == 6
    keys.type("door")
    for key, name in [
        ("ArrowDown", "door 9"),
        ("ArrowDown", "door 10"),
        ("ArrowDown", "door 10"),
        ("ArrowUp", "door 9"),
    ]:
        keys.press(key)
        assert watched.page.evaluate(f"{focused}.getAttribute('aria-label')") == f"Play {name}"
    keys.press("ArrowUp")
    assert watched.page.evaluate(f"{focused}.id") == "find"


def test_keys_of_a_player(show: Show) -> None:
    """On a player the space bar plays and pauses, and arrows to the sides move within the sound."""
    watched = show(data(effect("door")))
    watched.page.locator(".play").focus()
    watched.page.keyboard.press("Space")
    watched.wait("document.querySelector('audio').duration > 0")
    watched.page.keyboard.press("Space")
    watched.wait("document.querySelector('audio').paused")
    watched.page.evaluate("document.querySelector('audio').currentTime = 0")
    watched.page.keyboard.press("ArrowRight")
    assert watched.page.evaluate("document.querySelector('audio').currentTime") == 1
    watched.page.keyboard.press("ArrowLeft")
    watched.page.keyboard.press("ArrowLeft")
    assert watched.page.evaluate("document.querySelector('audio').currentTime") == 0


def test_focus_goes_in_order(show: Show) -> None:
    """The tabulator leads through the page from top to bottom, and all that it meets has a name."""
    watched = show(data(effect("door", take(finished="a.finished.wav")), command="finevoice batch a.csv"))
    names = []
    for _ in range(11):
        watched.page.keyboard.press("Tab")
        names.append(
            watched.page.evaluate(
                "(e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent.trim().split(/\\s/)[0]"
                " || e.textContent)(document.activeElement)"
            )
        )
    assert names[:4] == ["Skip to the effects", "finevoice batch a.csv", "Copy the command to go on", "Find"]
    assert names[4:7] == ["Sort", "all", "Play door"]
    assert names[7:10] == ["a.wav", "finished: a.finished.wav", "Copy the task id of door"]


@pytest.mark.parametrize("granted", [["clipboard-read", "clipboard-write"], ["clipboard-read"]])
def test_copying(show: Show, granted: list[str]) -> None:
    """Task ids and the command are copied as they are, also where a page may not write by the newer way."""
    command = "finevoice batch 'a b.csv' --out \"c\""
    watched = show(data(effect("door", take(task_id="p1-<b>")), command=command), permissions=granted)
    if "clipboard-write" not in granted:
        watched.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    for name, text in [("Copy the task id of door", "p1-<b>"), ("Copy the command to go on", command)]:
        button = watched.page.get_by_role("button", name=name)
        button.click()
        expect(button).to_have_text("Copied")
        expect(watched.page.locator("#said")).to_have_text(f"Copied: {text}")
        assert watched.page.evaluate("getSelection().toString()") in ("", text)
        if "clipboard-write" in granted:
            assert watched.page.evaluate("navigator.clipboard.readText()") == text
        expect(button).to_have_text("Copy")


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_every_width(show: Show, width: int) -> None:
    """On no screen does the page scroll sideways, however long a word in it is."""
    long = "Donaudampfschifffahrtsgesellschaft" * 9
    takes = [take(number=n, file=f"{long}.wav", task_id=long, problems=[long], note=long) for n in range(1, 5)]
    watched = show(
        data(effect(long, *takes, negative_prompt=long), title=long, command=long, notes=[long]),
        viewport={"width": width, "height": 740},
    )
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.page.locator(".wave").first.bounding_box()["width"] > 150  # type: ignore[index]  # it is shown


CONTRAST = """() => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255)).reduce(
    (sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => { const c = numbers(getComputedStyle(e).backgroundColor);
    return c.length === 4 && c[3] === 0 ? behind(e.parentElement) : c; };
  const seen = [...document.querySelectorAll("h1, h2, h3, p, dt, dd, .badge, code, button, a, .chip span")];
  return seen.filter(e => e.offsetWidth > 1 && e.textContent.trim()).map(e => {
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className + " " + e.tagName];
  }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(show: Show, scheme: str) -> None:
    """Every text stands out by 4.5 to 1, by day and by night, and the page follows the system's choice."""
    effects = [effect(state.value, take(state, reason="because", problems=["bad"])) for state in EffectState]
    watched = show(data(*effects, perhaps_paid=3, command="x", settle_command="y"), color_scheme=scheme)
    assert watched.page.evaluate(CONTRAST) == []
    ground = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(246, 246, 243)" if scheme == "light" else "rgb(21, 24, 27)")


# What does not get in

GET_IN = """async url => {
  const things = [["script", {textContent: "window.hacked = 1"}], ["img", {src: url}], ["iframe", {src: url}],
    ["audio", {src: url}], ["style", {textContent: "h1 { font-style: italic }"}]];
  for (const [name, fields] of things) document.body.append(Object.assign(document.createElement(name), fields));
  document.body.setAttribute("onclick", "window.hacked = 1");
  document.body.click();
  await fetch(url).catch(() => {});
}"""


def test_everything_is_text(show: Show) -> None:
    """What looks like markup in any field is shown as it was written, and runs nowhere."""
    nasty = take(file=None, task_id=NASTY, reason=NASTY, state=EffectState.FAILED, problems=[NASTY], note=NASTY)
    heard = take(file=NASTY.replace("/", "_"), finished=NASTY.replace("/", "_"))
    watched = show(
        data(
            effect(NASTY, nasty, heard, prompt=NASTY, negative_prompt=NASTY, source=NASTY),
            title=NASTY, command=NASTY, settle_command=NASTY, notes=[NASTY], perhaps_paid=1,
        )
    )  # fmt: skip
    assert watched.page.locator("h1").text_content() == NASTY
    assert watched.page.locator("h3").text_content() == NASTY
    assert watched.page.locator(".prompt").count() == 0  # the same as the key
    assert watched.page.locator(".task code").first.text_content() == NASTY
    assert watched.page.locator(".copy").first.get_attribute("data-copy") == NASTY
    assert watched.page.evaluate("window.hacked") is None
    assert watched.page.locator("script").count() == 1
    assert watched.page.locator("img").count() == 0


def heard_by(server: socket.socket) -> bytes:
    """Return all that anybody has sent to a server; a browser may connect before it looks at the policy."""
    heard = b""
    try:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(0.2)
                heard += connection.recv(100)
    except TimeoutError:
        return heard


def test_the_policy_holds(browser: Browser, tmp_path: Path) -> None:
    """What got in all the same could neither run, nor load, nor send anything."""
    watched = Watched.open(browser.new_context(), put_page(tmp_path, data(effect("door"))).as_uri())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        watched.page.evaluate(GET_IN, f"http://127.0.0.1:{server.getsockname()[1]}/x")
        expect(watched.page.locator("iframe")).to_have_count(1)
        assert heard_by(server) == b""
    assert watched.page.evaluate("window.hacked") is None
    assert watched.page.evaluate("getComputedStyle(document.querySelector('h1')).fontStyle") == "normal"
    refused = [words for words in watched.complaints if "Content Security Policy" in words]
    assert len(refused) >= 7
    watched.page.context.close()


def test_served_by_http(browser: Browser, tmp_path: Path) -> None:
    """From a server the same page works under the same policy."""
    put(tmp_path / "a #1.wav", wav(tone(2)))
    put_page(tmp_path, data(effect("door", take(file="a #1.wav"))))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            watched = Watched.open(browser.new_context(), f"http://127.0.0.1:{server.server_port}/report.html")
            watched.page.locator(".play").click()
            watched.wait("document.querySelector('audio').currentTime > 0")
            assert watched.complaints == []
            watched.page.context.close()
        finally:
            server.shutdown()
            thread.join()
