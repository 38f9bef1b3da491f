"""The page as text: one file, a strict policy, all escaped, in the right order; and how values are spelled."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reports import BEGAN, NASTY, data, effect, many, ran, take

from finevoice_async.batch.report import _environment, render, wave_path, write
from finevoice_async.batch.report_data import EffectReport
from finevoice_async.core.ledger import EffectState


class Parsed(HTMLParser):
    """A page's elements, and the texts of those that hold some."""

    def __init__(self, page: str) -> None:
        """Parse it."""
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[tuple[str, int]] = []  # which element of its kind
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        self.elements.append((tag, dict(attrs)))
        texts = self.texts.setdefault(tag, [])
        texts.append("")
        if tag not in ("meta", "link", "input", "br", "img"):
            self._open.append((tag, len(texts) - 1))

    def handle_endtag(self, tag: str) -> None:
        """Take an element's end."""
        if any(name == tag for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        """Take a text."""
        for tag, number in self._open:
            self.texts[tag][number] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def sha256(text: str) -> str:
    """Return a text's hash as a policy spells it."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def filtered(name: str, value: object) -> object:
    """Return a value as the page spells it."""
    return _environment().filters[name](value)


def test_the_policy() -> None:
    """Nothing is allowed but the one script and the one style, by their hashes, and sounds from beside the page."""
    page = Parsed(render(data(effect("door"))))
    policy = next(meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "script-src": sha256(page.texts["script"][0]),
        "style-src": sha256(page.texts["style"][0]),
        "img-src": "data:",
        "media-src": "'self' file:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_one_file() -> None:
    """The page names nothing outside of it but its sounds, and has no code or style in attributes."""
    text = render(data(*many(30), command="finevoice batch a.csv"))
    page = Parsed(text)
    assert len(page.of("script")) == len(page.of("style")) == 1
    assert [link["href"] for link in page.of("link")] == ["data:,"]
    assert "http://" not in text
    assert "https://" not in text
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            assert name not in ("style", "srcdoc", "action"), tag
            if name in ("href", "src", "data-src") and tag != "link":
                assert value is not None
                assert value.startswith(("./", "#"))


def test_a_script_in_a_prompt_is_text() -> None:
    """What looks like markup is escaped in every field, in attributes, too."""
    shown = take(
        EffectState.FAILED, file=NASTY, finished=NASTY, task_id=NASTY, reason=NASTY, problems=[NASTY], note=NASTY
    )
    odd = effect(NASTY, shown, shown, ran(0, 5), prompt=f"{NASTY}!", negative_prompt=NASTY, source=NASTY)
    text = render(data(odd, title=NASTY, command=NASTY, settle_command=NASTY, notes=[NASTY], perhaps_paid=1))
    page = Parsed(text)
    assert page.texts["h1"] == [NASTY]
    assert page.texts["h3"] == [NASTY]
    assert page.texts["title"][0] == f"{NASTY}: sound effects"
    assert not page.of("img")
    assert len(page.of("script")) == 1
    assert "window.hacked" in text
    assert "<script>window.hacked" not in text


def test_halves_of_characters(tmp_path: Path) -> None:
    """What UTF-8 cannot carry is replaced, not fatal: file names may hold it."""
    page = tmp_path / "report.html"
    write(render(data(effect("a\udcff", take(file="b\udcff.wav")))), page)
    text = page.read_text(encoding="utf-8")
    assert "a?" in text
    assert 'href="./b%FF.wav"' in text


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("a.wav", "./a.wav"),
        ("sub/a b.wav", "./sub/a%20b.wav"),
        ("a#?%&.wav", "./a%23%3F%25%26.wav"),
        ("\"'<>.wav", "./%22%27%3C%3E.wav"),
        ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
        ("//evil.example/a", ".///evil.example/a"),
        ("鐘.wav", "./%E9%90%98.wav"),
        ("../b.wav", "./../b.wav"),
        ("C:\\a.wav", "./C%3A%5Ca.wav"),
    ],
)
def test_links(path: str, link: str) -> None:
    """A link is relative whatever the name is, and each sign that could mean something else is spelled out."""
    assert filtered("link", path) == link


def test_problems_first() -> None:
    """What needs a look stands first; within both groups the order is as given."""
    page = Parsed(
        render(
            data(
                effect("z"),
                effect("failed", take(EffectState.FAILED)),
                effect("a"),
                effect("silent", take(problems=["it is silent"])),
                effect("rerolled", take(number=1, rejected=True, problems=["it is silent"]), take(number=2)),
            )
        )
    )
    assert page.texts["h3"] == ["failed", "silent", "z", "a", "rerolled"]


@pytest.mark.parametrize(
    ("state", "needs", "doubt"),
    [
        ("queued", False, False), ("sending", True, True), ("submitted", False, False), ("done", False, False),
        ("saved", False, False), ("refused", True, False), ("unknown", True, True), ("failed", True, False),
        ("lost", True, True),
    ],
)  # fmt: skip
def test_what_needs_a_look(state: str, needs: bool, doubt: bool) -> None:
    """Failures, refusals and all that may be paid for need a look; what goes its way does not."""
    shown = effect("door", take(EffectState(state)))
    assert (shown.needs_care, shown.takes[0].is_in_doubt) == (needs, doubt)
    page = Parsed(render(data(shown)))
    badges = [text for text, span in zip(page.texts["span"], page.of("span"), strict=True) if "badge" in str(span)]
    assert badges == [f"{state}, perhaps paid" if doubt else state]


def test_counts() -> None:
    """Effects are counted by each state that a take of theirs is in, once; and what is not begun."""
    shown = data(
        effect("a", take(number=1), take(number=2), take(EffectState.FAILED, number=3)),
        effect("b", take(EffectState.QUEUED)),
        effect("c", takes=()),
    )
    assert shown.counts == {EffectState.QUEUED: 1, EffectState.SAVED: 1, EffectState.FAILED: 1}
    assert (shown.needing_care, shown.not_begun, shown.seconds, len(shown.takes)) == (1, 1, 4.0, 4)


def test_the_numbers_at_the_top() -> None:
    """Effects, paid submissions and what is perhaps paid stand at the top, each with its name."""
    page = Parsed(render(data(*many(1200), paid=1234, perhaps_paid=5)))
    told = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert told == {
        "Effects": "1,200",
        "Need a look": "120",
        "Saved": "1,080",
        "Paid submissions": "1,234",
        "Perhaps paid": "5",
        "Sound": "36.8 min",
    }
    assert "Perhaps paid" not in Parsed(render(data(effect("a")))).texts["dt"]


def test_commands() -> None:
    """The command to go on can be copied; the one that settles stands there if there is something to settle."""
    shown = data(effect("a"), command="go on", settle_command="settle")
    assert [button["data-copy"] for button in Parsed(render(shown)).of("button") if "data-copy" in button] == [
        "go on",
        "p1-c3d4",
    ]
    assert "settle" in [
        button.get("data-copy")
        for button in Parsed(render(data(effect("a"), settle_command="settle", perhaps_paid=1))).of("button")
    ]


def test_an_empty_page() -> None:
    """A page of nothing is one, too."""
    page = Parsed(render(data()))
    assert page.texts["dd"][0] == "0"
    assert page.texts["output"] == ["0 in all"]


def test_the_time_line_is_drawn() -> None:
    """Each task is a bar in the row of its slot, with its state as colour and its times as words."""
    page = Parsed(render(data(effect("a", ran(0, 10)), effect("b", ran(0, 20, EffectState.FAILED)))))
    bars = page.of("rect")
    assert [(bar["class"], bar["x"], bar["width"], bar["y"]) for bar in bars] == [
        ("good", "0.00%", "50.00%", "60"),
        ("bad", "0.00%", "100.00%", "72"),
    ]
    assert page.texts["title"][1:] == ["a: saved, 09:00:00 to 09:00:10", "b: failed, 09:00:00 to 09:00:20"]
    assert not Parsed(render(data(effect("a")))).of("rect")


def test_only_some_are_laid_out() -> None:
    """Beyond the first 150 rows all are hidden, until they are wanted."""
    rows = [row for row in Parsed(render(data(*many(200)))).of("li") if "effect" in str(row.get("class"))]
    assert [number for number, row in enumerate(rows) if "hidden" in row] == list(range(150, 200))


def test_it_is_written_whole(tmp_path: Path) -> None:
    """A page replaces an earlier one, and leaves nothing beside it."""
    page = tmp_path / "report.html"
    write("one", page)
    write("two", page)
    assert page.read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OSError, match="No such file"):
        write("three", tmp_path / "none" / "report.html")


def test_the_script_is_lean() -> None:
    """Neither part of the page could end its own element, or be changed by a checkout that changes line ends."""
    page = render(data(effect("a")))
    assert page.count("</script") == page.count("</style") == 1
    assert "\r" not in page


# How values are spelled


def test_waveform_paths() -> None:
    """Strokes go from the highest sample to the lowest, each a step to the right; nothing leaves the drawing."""
    assert wave_path([]) == ""
    assert wave_path([(-1.0, 1.0)]) == "M1 1v38"
    assert wave_path([(-9.0, 9.0)]) == "M1 1v38"
    assert wave_path([(0.0, 0.0), (0.0, 0.5), (-0.5, 0.0)]) == "M1 20v1m2 -11v10m2 0v10"


@pytest.mark.parametrize(
    ("name", "value", "spelled"),
    [
        ("seconds", 2.04, "2.0 s"),
        ("level", 1.0, "0.0 dB"),
        ("level", 0.5, "-6.0 dB"),
        ("level", 0.0, "silent"),
        ("span", timedelta(seconds=0.2), "0 s"),
        ("span", timedelta(seconds=59.6), "1 min"),
        ("span", timedelta(seconds=62), "1 min 2 s"),
        ("span", timedelta(hours=3, seconds=5), "3 h"),
        ("span", timedelta(days=2, hours=5, minutes=7), "2 d 5 h"),
        ("rough", 119.0, "119 s"),
        ("rough", 150.0, "2.5 min"),
        ("rough", 9000.0, "2.5 h"),
        ("moment", BEGAN, "2026-03-01 09:00:00 UTC"),
        ("percent", 0.12345, "12.35%"),
        ("told", "it is silent", "It is silent."),
        ("told", "Done!", "Done!"),
        ("told", "", "."),
        ("order", None, ""),
        ("order", 2, "2.0000"),
        ("order", BEGAN, "1772355600.000"),
    ],
)
def test_spelling(name: str, value: object, spelled: str) -> None:
    """Values are spelled for people, or for sorting."""
    assert filtered(name, value) == spelled


def test_what_is_sorted_by() -> None:
    """A row knows its first beginning, its longest take and its loudest; nothing, where nothing is known."""
    shown: list[EffectReport] = [
        effect("a", take(number=1, seconds=1.0, peak=0.9, submitted_at=BEGAN), take(number=2, seconds=3.0, peak=0.1)),
        effect("b", take(EffectState.QUEUED)),
    ]
    first, second = [row for row in Parsed(render(data(*shown))).of("li") if "data-peak" in row]
    assert (first["data-began"], first["data-seconds"], first["data-peak"]) == ("1772355600.000", "3.0000", "0.9000")
    assert (second["data-began"], second["data-seconds"], second["data-peak"]) == ("", "", "")
    assert re.fullmatch(r"\d", str(first["data-care"]))
