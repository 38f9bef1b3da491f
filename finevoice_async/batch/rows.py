"""One sound of a manifest, checked by itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from finevoice_async.batch import templates
from finevoice_async.batch.columns import OWN, CellError, check_takes
from finevoice_async.core.filenames import slug
from finevoice_async.core.ledger import check_key
from finevoice_async.core.requests import FIELDS, SfxRequest
from finevoice_async.core.text import plain_text, shorten
from finevoice_async.errors import InvalidRequestError
from finevoice_async.reprs import with_safe_repr

_TAKE_MARK: Final = re.compile(r"#(\d{1,9})$", re.ASCII)
_NOT_SENT: Final = " Nothing was sent."


@with_safe_repr
@attrs.frozen(kw_only=True)
class ManifestRow:
    """One sound that is wanted.

    Attributes:
        number: Its place among the sounds, from 1.
        line: Where it stands in the file; None if nobody knows.
        key: What it is called, in the manifest, the journal and the lock.
        request: What is asked for.
        file: The template of its file's name.
        takes: How many of it are wanted.
        owner: On whose behalf.
    """

    number: int
    line: int | None
    key: str
    request: SfxRequest
    file: str = templates.DEFAULT
    takes: int = 1
    owner: str | None = None

    @property
    def request_hash(self) -> str:
        """What tells whether a sound was made for this request."""
        return hash_request(self.request)

    def stem(self, take: int) -> str:
        """Return the path of a take below the folder, without its suffix."""
        return templates.stem(self.file, key=self.key, take=take, prompt=self.request.prompt, row=self.number)


def journal_key(key: str, take: int) -> str:
    """Return what a take is called in the journal: the first by the key alone, the others `key#2` and so on."""
    return key if take == 1 else f"{key}#{take}"


def split_key(name: str) -> tuple[str, int]:
    """Return the key and the take of a name in the journal."""
    match = _TAKE_MARK.search(name)
    if match is None or int(match[1]) < 2 or match[1].startswith("0") or not name[: match.start()].strip():
        return name, 1
    return name[: match.start()], int(match[1])


def hash_request(request: SfxRequest) -> str:
    """Return 32 hexadecimal digits that tell what a sound was made for.

    How it is asked for (`use_async`) is no part of it.
    """
    fields = attrs.asdict(request)
    del fields["use_async"]
    return _digest(fields)


def _digest(fields: Mapping[str, Any]) -> str:
    plain = {name: float(value) if name == "duration" else value for name, value in fields.items() if value is not None}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]


def make_row(
    fields: Mapping[str, Any], defaults: Mapping[str, Any], *, number: int, line: int | None
) -> tuple[ManifestRow | None, list[str]]:
    """Make a row of its cells, by the names of the columns; or say all that is wrong with it.

    Args:
        fields: What stands in the row; what is None is not there.
        defaults: What holds where the row says nothing; and `prompt_suffix`, which every prompt gets.
        number: Its place among the sounds.
        line: Where it stands.
    """
    own = {name: value for name, value in fields.items() if value is not None}
    cells = {name: value for name, value in defaults.items() if value is not None and name != "prompt_suffix"} | own
    wrong: list[str] = []
    request = _try(wrong, lambda: _request(cells, defaults.get("prompt_suffix")))
    takes = _try(wrong, lambda: check_takes(cells.get("takes", 1)))
    file = _try(wrong, lambda: _template(cells.get("file")))
    owner = _try(wrong, lambda: check_key(cells.get("owner"), "owner"))
    key = _try(wrong, lambda: _key(own, request, file))
    if wrong or request is None or takes is None or file is None or key is None:
        return None, wrong
    row = ManifestRow(number=number, line=line, key=key, request=request, file=file, takes=takes, owner=owner)
    return row, wrong


def _try(wrong: list[str], make: Any) -> Any:
    """Return what is made, or None and note why it cannot be."""
    try:
        return make()
    except (InvalidRequestError, CellError, templates.TemplateError) as error:
        wrong.append(str(error).removesuffix(_NOT_SENT).rstrip("."))
        return None


def _request(cells: Mapping[str, Any], suffix: Any) -> SfxRequest:
    fields = {name: value for name, value in cells.items() if name in FIELDS}
    prompt = plain_text(fields.get("prompt"))
    if suffix is not None and prompt is not None and prompt.strip():
        fields["prompt"] = with_suffix(prompt, suffix)
    return SfxRequest(**fields)


def with_suffix(prompt: str, suffix: Any) -> str:
    """Return a prompt with what all prompts of a manifest end with; words are kept apart.

    Raises:
        CellError: The suffix is no text.
    """
    text = plain_text(suffix)
    if text is None:
        raise CellError(f"prompt_suffix must be text, not {shorten(suffix)}")
    return f"{prompt.rstrip()} {text}" if text[:1].isalnum() else f"{prompt.rstrip()}{text}"


def _template(file: Any) -> str:
    if file is None:
        return templates.DEFAULT
    text = plain_text(file)
    if text is None or "\0" in text:
        raise CellError(f"file must be text, not {shorten(file)}")
    templates.parse(text)
    return text


def _key(own: Mapping[str, Any], request: SfxRequest | None, file: str | None) -> str | None:
    given = check_key(own.get("key"))
    if given is None and "file" in own and file is not None and not templates.has_places(file):
        given = check_key(file)
    if given is not None:
        if split_key(given)[1] != 1:
            raise CellError(f"key must not end in # and a number, which means a take, not {shorten(given)}")
        return given
    return None if request is None else _made_key(own, request)


def _made_key(own: Mapping[str, Any], request: SfxRequest) -> str:
    """Make a key of what the row itself says: it stays the same where only a default changes."""
    prompt = plain_text(own.get("prompt"))
    words = prompt if prompt is not None else urlsplit(request.source_url or "").path.rpartition("/")[2]
    said = {name: value for name, value in own.items() if name not in OWN and name != "use_async"}
    return f"{slug(words) or 'effect'}-{_digest(said)[:8]}"
