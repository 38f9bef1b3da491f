"""The report in a real browser: it plays, filters and sorts, from a disk and from a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect
from reports import Show, data, effect, many, mixed, take
from sounds import put, tone, wav

from finevoice_async.batch.checks import check_file

ODD_NAMES = [
    "door #2?.wav",
    "100%25 \"loud\" 'n' <b>.wav",
    "Tür — 鐘.wav",
    "javascript:alert(1).wav",
    "a&amp;b;c=d+e.wav",
]


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


def test_without_scripts(show: Show) -> None:
    """Where no script runs all effects are there, with links to their files, and nothing that does nothing."""
    watched = show(data(*many(200)), java_script_enabled=False)
    assert watched.page.locator(".effect").nth(199).is_visible()
    assert watched.page.locator("a.file").first.is_visible()
    assert not watched.page.locator("form").is_visible()
    assert not watched.page.locator(".copy").first.is_visible()
