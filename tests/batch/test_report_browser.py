"""The report in a real browser: it plays, filters, sorts, obeys the keyboard, and lets nothing in."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect
from reports import NASTY, Watched, chromium, data, effect, many, put_page, take
from sounds import put, tone, wav

from finevoice_async.batch.checks import check_file
from finevoice_async.batch.report_data import ReportData
from finevoice_async.core.ledger import EffectState

Show = Callable[..., Watched]

ODD_NAMES = [
    "door #2?.wav",
    "100%25 \"loud\" 'n' <b>.wav",
    "Tür — 鐘.wav",
    "javascript:alert(1).wav",
    "a&amp;b;c=d+e.wav",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for this file alone: while one runs, no other loop can in this thread."""
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


@pytest.mark.parametrize("name", ["a.wav", *ODD_NAMES])
def test_it_plays(show: Show, tmp_path: Path, name: str) -> None:
    """A sound plays from the disk under the page's own policy, whatever its name is, and its link leads to it."""
    check = check_file(put(tmp_path / name, wav(tone(1.5))))
    watched = show(data(effect("door", take(file=name, seconds=check.seconds, waveform=check.waveform))))
    assert watched.page.locator("audio").count() == 0
    button = watched.page.get_by_role("button", name="Play door")
    button.click()
    watched.wait("document.querySelector('audio').currentTime > 0")
    assert button.get_attribute("aria-pressed") == "true"
    assert watched.page.evaluate("document.querySelector('audio').duration") == pytest.approx(1.5, abs=0.01)
    assert watched.page.evaluate("parseFloat(document.querySelector('.player').style.getPropertyValue('--at'))") > 0
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert watched.page.evaluate("document.querySelector('audio').paused")
    assert watched.page.evaluate("fetch === undefined") is False  # so what follows means something
    link = watched.page.locator("a.file")
    assert link.text_content() == name
    assert Path(watched.page.evaluate("decodeURIComponent(document.querySelector('a.file').pathname)")).is_file()


def test_one_at_a_time(show: Show) -> None:
    """What plays pauses as another one begins, and goes on from there later."""
    watched = show(data(effect("door", take(number=1), take(number=2))))
    first, second = (watched.page.get_by_role("button", name=f"Play door, take {n}") for n in (1, 2))
    first.click()
    watched.wait("document.querySelector('audio').currentTime > 0.05")
    second.click()
    watched.wait("document.querySelectorAll('audio')[1].currentTime > 0")
    expect(first).to_have_attribute("aria-pressed", "false")
    assert watched.page.evaluate("document.querySelectorAll('audio')[0].paused")
    assert watched.page.evaluate("document.querySelectorAll('audio')[0].currentTime") > 0


def test_it_ends(show: Show) -> None:
    """At its end a sound can be played again from its beginning."""
    watched = show(data(effect("door")))
    button = watched.page.locator(".play")
    button.click()
    watched.wait("document.querySelector('audio').currentTime > 0")
    watched.page.evaluate("document.querySelector('audio').currentTime = 1.95")
    expect(button).to_have_attribute("aria-pressed", "false")
    watched.wait("document.querySelector('audio').currentTime === 0")


def test_what_cannot_be_played(show: Show, tmp_path: Path) -> None:
    """A file that is no sound is told of, once, and others still play."""
    put(tmp_path / "bad.wav", b"no sound")
    watched = show(data(effect("bad", take(file="bad.wav")), effect("good")))
    watched.page.get_by_role("button", name="Play bad").click()
    words = "This browser cannot play the file, or it is not there."
    expect(watched.page.locator(".why")).to_have_text([words])
    expect(watched.page.locator("#said")).to_have_text(words)
    watched.page.get_by_role("button", name="Play bad").click()
    watched.page.get_by_role("button", name="Play good").click()
    watched.wait("document.querySelectorAll('audio')[1].currentTime > 0")
    expect(watched.page.locator(".why")).to_have_text([words])


def test_the_waveform_seeks(show: Show) -> None:
    """A press on the waveform of what plays goes there."""
    watched = show(data(effect("door")))
    watched.page.locator(".play").click()
    watched.wait("document.querySelector('audio').duration > 0")
    box = watched.page.locator(".wave").bounding_box()
    assert box is not None
    watched.page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + 10)
    watched.wait("document.querySelector('audio').currentTime >= 1.39")


# Finding


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


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("rain", ["rain on tin"]),
        ("HEAVY  rain", ["rain on tin"]),
        ("door", ["door 9", "door 10"]),
        ("d10.wav", ["door 10"]),
        ("p1-feed", ["bell"]),
        ("said no", ["bell"]),
        ("silent", ["door 9"]),
        ("鐘", ["Straße 鐘"]),
        (".*", []),
        (" ", ["door 9", "bell", "Straße 鐘", "rain on tin", "door 10", "later"]),
    ],
)
def test_filter_by_text(show: Show, words: str, keys: list[str]) -> None:
    """Words are found in key, prompt, file, task, reason and problems, in any case; what is found is counted aloud."""
    watched = show(mixed())
    watched.page.get_by_role("searchbox", name="Find").fill(words)
    assert watched.shown() == keys
    expect(watched.page.locator("#shown")).to_have_text("6 in all" if len(keys) == 6 else f"{len(keys)} of 6 found")
    assert watched.page.locator("#shown").get_attribute("aria-live") == "polite"
    expect(watched.page.locator("#nothing")).to_be_visible(visible=not keys)


@pytest.mark.parametrize(
    ("label", "keys"),
    [
        ("need a look 3", ["door 9", "bell", "Straße 鐘"]),
        ("saved 3", ["door 9", "rain on tin", "door 10"]),
        ("failed 1", ["bell"]),
        ("unknown 1", ["Straße 鐘"]),
        ("not begun 1", ["later"]),
    ],
)
def test_filter_by_state(show: Show, label: str, keys: list[str]) -> None:
    """Each state has a button with its number, which shows just those; with words beside it both must hold."""
    watched = show(mixed())
    watched.page.get_by_role("radio", name=label).check()
    assert watched.shown() == keys
    watched.page.get_by_role("searchbox").fill(keys[0])
    assert watched.shown() == keys[:1]
    watched.page.get_by_role("radio", name="all 6").check()
    watched.page.get_by_role("searchbox").fill("nothing is like that")
    watched.page.get_by_role("button", name="Show all").click()
    assert len(watched.shown()) == 6


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("care", ["door 9", "bell", "Straße 鐘", "rain on tin", "door 10", "later"]),
        ("key", ["bell", "door 9", "door 10", "later", "rain on tin", "Straße 鐘"]),
        ("seconds", ["door 10", "rain on tin", "door 9", "bell", "Straße 鐘", "later"]),
        ("peak", ["rain on tin", "door 9", "door 10", "bell", "Straße 鐘", "later"]),
    ],
)
def test_sorting(show: Show, order: str, first: list[str]) -> None:
    """Rows are sorted by what was chosen; numbers in keys count as numbers, what has no value comes last."""
    watched = show(mixed())
    watched.page.get_by_label("Sort").select_option("key")
    watched.page.get_by_label("Sort").select_option(order)
    assert watched.shown() == first


def test_three_thousand(show: Show) -> None:
    """Of thousands only some are laid out, a search finds all, and scrolling brings the others."""
    watched = show(data(*many(3000)))
    assert len(watched.shown()) == 150
    watched.page.get_by_role("searchbox").fill("scene 29")
    expect(watched.page.locator("#shown")).to_have_text("111 of 3,000 found")
    assert len(watched.shown()) == 111
    watched.page.get_by_role("searchbox").fill("door")
    expect(watched.page.locator("#shown")).to_have_text("1,500 of 3,000 found")
    for rows in (300, 450):
        watched.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        watched.wait(f"document.querySelectorAll('.effect:not([hidden])').length >= {rows}")
    watched.page.get_by_role("searchbox").fill("")
    assert len(watched.shown()) == 150


def test_the_rest_comes_by_a_button(show: Show) -> None:
    """Who does not scroll can press a button, until all are there and it is gone."""
    watched = show(data(*many(200)))
    watched.page.evaluate("document.querySelector('#more button').click()")
    assert len(watched.shown()) == 200
    expect(watched.page.locator("#more")).to_be_hidden()


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


def test_without_scripts(show: Show) -> None:
    """Where no script runs all effects are there, with links to their files, and nothing that does nothing."""
    watched = show(data(*many(200)), java_script_enabled=False)
    assert watched.page.locator(".effect").nth(199).is_visible()
    assert watched.page.locator("a.file").first.is_visible()
    assert not watched.page.locator("form").is_visible()
    assert not watched.page.locator(".copy").first.is_visible()
