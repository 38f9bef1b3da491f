"""Reading a manifest: from bytes to rows of cells, one after another, in four formats.

Everything here blocks, and runs in a thread. What cannot be read is told to a list of faults; reading goes on behind it
where that makes sense.
"""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final, Literal

import attrs

from finevoice_async.batch.columns import COLUMNS, DEFAULTS, CellError, find_column, from_text, unknown
from finevoice_async.core.text import plain_text, shorten

Format = Literal["csv", "jsonl", "toml", "text"]

MAX_LINE: Final = 1024 * 1024
"""Bytes of a line at most: a prompt has hundreds, and what has no lines is no manifest."""

MAX_TOML: Final = 64 * 1024 * 1024
"""Bytes of a TOML manifest, which is read as a whole; 100,000 sounds have about 15 MB."""

_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_BY_SUFFIX: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".toml": "toml",
    ".txt": "text",
}
_TOML_ROW: Final = re.compile(rb"^[ \t]*\[\[[ \t]*(?:sound|\"sound\"|'sound')[ \t]*\]\]", re.MULTILINE)
_TOML_WHERE: Final = re.compile(r" \(at line (\d+), column \d+\)$")

Told = Callable[[int | None, str], None]
"""Hears a line and what is wrong there."""


@attrs.define
class Cells:
    """One row, by the names of its columns.

    Attributes:
        line: Where it begins.
        cells: What stands in it.
        wrong: What is wrong with it already.
    """

    line: int | None
    cells: dict[str, Any] = attrs.field(factory=dict)
    wrong: list[str] = attrs.field(factory=list)


class Source:
    """A manifest's bytes. Drawn from once."""

    def __init__(self, file: BinaryIO, name: str, told: Told, form: Format | None = None) -> None:
        """Begin.

        Args:
            file: The bytes.
            name: What its suffix tells the format by.
            told: Hears what is wrong with the file as a whole, or where no row can be read.
            form: The format, if it is known.
        """
        self._file = file
        self._told = told
        self._head = file.readline(MAX_LINE)
        if self._head.startswith(_BOM):
            self._head = self._head[len(_BOM) :]
        self._wide = self._head.startswith(_OTHER_BOMS)
        suffix = name[name.rfind(".") :].lower() if "." in name else ""
        self.form: Format = form or _BY_SUFFIX.get(suffix) or _guess(self._head)
        self.defaults: dict[str, Any] = {}  # known once the first row was drawn

    def rows(self) -> Iterator[Cells]:
        """Yield the rows."""
        if self._wide:
            self._told(None, "it is UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")
            return
        readers = {"csv": self._csv, "jsonl": self._jsonl, "toml": self._toml, "text": self._text}
        yield from readers[self.form]()

    # Lines

    def _raw_lines(self) -> Iterator[bytes]:
        line = self._head
        while line:
            yield line
            line = self._file.readline(MAX_LINE)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield each line with its number; what is no UTF-8 is told."""
        for number, raw in enumerate(self._raw_lines(), 1):
            if len(raw) >= MAX_LINE:
                self._told(number, f"the line has more than {MAX_LINE} bytes; is this a manifest?")
                return
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                self._told(number, f"byte {error.start + 1} is no UTF-8; save the file as UTF-8")
                text = raw.decode(errors="replace")
            yield number, text

    # Formats

    def _text(self) -> Iterator[Cells]:
        for number, text in self._lines():
            if text.strip():
                yield Cells(number, {"prompt": text.strip()})

    def _jsonl(self) -> Iterator[Cells]:
        for number, text in self._lines():
            if not text.strip():
                continue
            row = Cells(number)
            try:
                value = json.loads(text, object_pairs_hook=_once)
            except CellError as error:
                row.wrong.append(str(error))
            except (ValueError, RecursionError) as error:
                more = ": one JSON object a line, not an array over many" if text.strip() in ("[", "{") else ""
                row.wrong.append(f"this is no JSON ({getattr(error, 'msg', type(error).__name__)}){more}")
            else:
                if isinstance(value, str):
                    row.cells["prompt"] = value
                elif isinstance(value, dict):
                    name_cells(row, value)
                else:
                    row.wrong.append(f"a line must be a JSON object or a prompt in quotes, not {shorten(value)}")
            yield row

    def _toml(self) -> Iterator[Cells]:
        content = self._head + self._file.read(MAX_TOML)
        if len(content) > MAX_TOML:
            self._told(None, f"it has more than {MAX_TOML} bytes; use JSON Lines for so many sounds")
            return
        try:
            data = tomllib.loads(content.decode().replace("\r\n", "\n"))
        except UnicodeDecodeError as error:
            self._told(content.count(b"\n", 0, error.start) + 1, "this is no UTF-8; save the file as UTF-8")
            return
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            where = _TOML_WHERE.search(str(error))
            words = _TOML_WHERE.sub("", str(error))
            self._told(None if where is None else int(where[1]), f"this is no TOML: {words}")
            return
        self._take_defaults(data.pop("defaults", {}))
        sounds = data.pop("sound", [])
        for name in data:
            self._told(_toml_line(content, name), _strange_table(name))
        if not isinstance(sounds, list):
            self._told(None, "the sounds must be tables called [[sound]], with two brackets")
            return
        found = [content.count(b"\n", 0, match.start()) + 1 for match in _TOML_ROW.finditer(content)]
        lines: list[int | None] = [*found] if len(found) == len(sounds) else [None] * len(sounds)
        for line, sound in zip(lines, sounds, strict=True):
            row = Cells(line)
            if isinstance(sound, dict):
                name_cells(row, sound)
            else:
                row.wrong.append(f"a sound must be a table, not {shorten(sound)}")
            yield row

    def _take_defaults(self, given: Any) -> None:
        if not isinstance(given, dict):
            self._told(None, "[defaults] must be a table")
            return
        row = Cells(None)
        name_cells(row, given, DEFAULTS)
        for words in row.wrong:
            self._told(None, f"[defaults]: {words}")
        if plain_text(row.cells.get("prompt_suffix", "")) is None:
            self._told(None, f"[defaults]: prompt_suffix must be text, not {shorten(row.cells.pop('prompt_suffix'))}")
        self.defaults = row.cells

    def _csv(self) -> Iterator[Cells]:
        lines = self._lines()
        started = next(lines, None)
        if started is not None and re.fullmatch(r"\"?sep=(.)\"?\s*", started[1]):  # Excel's own word for it
            started = next(lines, None)
        if started is None:
            return
        first, head = started
        delimiter = max(",;\t|", key=head.count)
        reader = csv.reader(_again(head, lines), delimiter=delimiter, strict=True)
        columns: list[str | None] | None = None
        line = first
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._told(line, f"this is no CSV: {error}")
                return
            here, line = line, first + reader.line_num
            if columns is None:
                columns = self._header(cells, here)
                if not {"prompt", "source_url"} & set(columns):
                    self._told(here, "the first line must name the columns, with prompt or source_url among them")
                    return
            elif any(cell.strip() for cell in cells):
                yield _csv_row(here, cells, columns, decimal_comma=delimiter == ";")

    def _header(self, names: list[str], line: int) -> list[str | None]:
        columns: list[str | None] = []
        for name in names:
            column = find_column(name)
            if column is None and name.strip():
                self._told(line, unknown(name.strip()))
            elif column is not None and column in columns:
                self._told(line, f"two columns are {column}")
            columns.append(column)
        return columns


def _csv_row(line: int, cells: list[str], columns: list[str | None], *, decimal_comma: bool) -> Cells:
    row = Cells(line)
    extra = [cell for cell in cells[len(columns) :] if cell.strip()]
    if extra:
        row.wrong.append(f"more cells than columns, from {shorten(extra[0])} on; texts with commas need quotes")
    for column, cell in zip(columns, cells, strict=False):
        if column is None:
            continue
        try:
            row.cells[column] = from_text(column, cell, decimal_comma=decimal_comma)
        except CellError as error:
            row.wrong.append(str(error))
    return row


def name_cells(row: Cells, given: Mapping[str, Any], allowed: tuple[str, ...] = COLUMNS) -> None:
    """Put values into a row under the names of their columns; what has none is wrong."""
    for name, value in given.items():
        column = find_column(name, allowed)
        if column is None:
            row.wrong.append(unknown(name, allowed, "field"))
        elif column in row.cells:
            row.wrong.append(f"{column} is given twice")
        else:
            row.cells[column] = value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, of which nothing is lost: a name that comes twice is a mistake."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise CellError(f"{shorten(name)} is given twice")
        made[name] = value
    return made


def _again(head: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    yield head
    for _, text in lines:
        yield text


def _guess(head: bytes) -> Format:
    """Return the format that a first line looks like."""
    text = head.strip()
    if text.startswith(b"{"):
        return "jsonl"
    if re.match(rb"\[[\[a-z ]|#.*\n?$", text):
        return "toml"
    names = re.split("[,;\t]", text.decode(errors="replace"))
    columns = {find_column(name.strip('" ')) for name in names}
    return "csv" if columns & {"prompt", "source_url"} and (len(names) == 1 or None not in columns) else "text"


def _toml_line(content: bytes, name: str) -> int | None:
    match = re.search(rb"^[ \t]*\[*[ \t\"']*" + re.escape(name.encode()), content, re.MULTILINE)
    return None if match is None else content.count(b"\n", 0, match.start()) + 1


def _strange_table(name: str) -> str:
    return f"{shorten(name)} is neither [[sound]] nor [defaults]"
