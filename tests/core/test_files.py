"""Names and addresses: what prompts, ids and links may not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevoice_async.core.addresses import is_local, is_public, link_problem
from finevoice_async.core.filenames import extension, file_name, slug

NASTY = ["=cmd", "<script>", "../../x", "a\x00b", "CON", "x" * 10_000, "\u202egnp.exe", "雨", "..", "/", "", "\ud800"]


@pytest.mark.parametrize("prompt", NASTY)
@pytest.mark.parametrize("task_id", ["p1-ok", "../../etc/passwd", "CON", "a b", "", None])
def test_file_names_are_inert(prompt: str, task_id: str | None) -> None:
    """Whatever the prompt and the id hold, the name is one plain ASCII word with an extension."""
    name = file_name(prompt, task_id, "https://x/y.mp3?sig=1")
    stem, dot, kind = name.rpartition(".")
    assert (dot, kind) == (".", "mp3")
    assert stem.replace("-", "").replace("_", "").isalnum()
    assert stem.isascii()
    assert 1 < len(name) < 120


@given(st.text(), st.text(), st.text())
def test_any_file_name_stays_in_its_folder(prompt: str, task_id: str, url: str) -> None:
    """No text makes a name with a separator, a control character or a leading dot."""
    name = file_name(prompt, task_id, url)
    assert not set(name) & set('/\\:*?"<>|\x00')
    assert name.isprintable()
    assert not name.startswith((".", "-"))


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_keep_names_apart(one: str, other: str) -> None:
    """Two tasks with the same prompt never share a name."""
    assert (file_name("p", one, "u") == file_name("p", other, "u")) == (one == other) or len(one + other) > 40


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://x/a.WAV?x=.exe", ".wav"),
        ("https://x/a", ".mp3"),
        ("https://x/a.%2e%2e", ".mp3"),
        ("https://[", ".mp3"),
        ("https://x/a.flac", ".flac"),
    ],
)
def test_extension(url: str, kind: str) -> None:
    """The extension is the link's if it is plain."""
    assert extension(url) == kind


def test_slug() -> None:
    """A slug is lower-case words."""
    assert slug("Thunderstorm — with RAIN! é") == "thunderstorm-with-rain-e"


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    """Addresses of the public internet are public."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)
def test_private_addresses(address: str) -> None:
    """Everything else is not, in any wrapping."""
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("https://apis.finevoice.ai", False),
        ("http://apis.finevoice.ai", True),
        ("https://localhost:8443", True),
        ("https://a.localhost", True),
        ("https://127.0.0.1", True),
        ("https://[::1]:1", True),
        ("https://8.8.8.8", False),
    ],
)
def test_is_local(url: str, local: bool) -> None:
    """A plain http or private base URL is an emulator's or a test's."""
    assert is_local(url) is local


@pytest.mark.parametrize(
    ("url", "local", "word"),
    [
        ("https://cdn.finevoice.ai/a.mp3", False, None),
        ("http://cdn.finevoice.ai/a.mp3", False, "https"),
        ("http://127.0.0.1/a.mp3", True, None),
        ("file:///etc/passwd", True, "https"),
        ("https:///a", False, "host"),
        ("https://x/a\nb", False, "control"),
        ("https://[", False, "URL"),
        ("https://x:99999/", False, "URL"),
    ],
)
def test_link_problem(url: str, local: bool, word: str | None) -> None:
    """Only web links are followed, only https unless the service itself is local."""
    problem = link_problem(url, local=local)
    assert (problem is None) if word is None else (word in str(problem))
