"""Which file a result is saved to. What looks for files blocks, and runs in a thread."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from finevoice_async.core import media
from finevoice_async.core.filenames import suffix_of, with_suffix
from finevoice_async.core.media import Media
from finevoice_async.engine.part_lock import sweep


@attrs.frozen
class Target:
    """Where a result goes.

    Attributes:
        base: The file; its suffix is still to come if the caller's path has none.
        suffix: The suffix of the caller's path, empty if it follows the content.
        overwrite: Whether a file that exists is replaced.
    """

    base: Path
    suffix: str
    overwrite: bool

    def of(self, suffix: str) -> Path:
        """Return the file for a content with this suffix."""
        return self.base if self.suffix else self.base.with_name(with_suffix(self.base.name, suffix))

    def note_on(self, content: Media | None) -> str | None:
        """Return what to say of the caller's suffix if it contradicts the content."""
        named = media.of_suffix(self.suffix)
        if not self.suffix or content is None or (named is not None and named.media_type == content.media_type):
            return None
        return (
            f"is {content.media_type} ({content.suffix}), but was saved as {self.suffix}: that suffix is the caller's"
        )

    def check(self, path: Path) -> None:
        """Check that a file may be made; what crashes have left of it is removed if it may not.

        Raises:
            FileExistsError: It exists, and is not to be replaced.
        """
        if not self.overwrite and path.exists():
            sweep(self.base.parent, self.base.name)
            raise FileExistsError(f"{path} exists; give overwrite=True to replace it")


def choose_target(path: str, stem: str, *, overwrite: bool) -> Target:
    """Return the file to write: `path`, or one called `stem` inside it if it is a folder or ends like one.

    A folder that a text ends like (`effects/`) is made. A `Path` forgets the slash: it means a folder that exists, or a
    file.

    Raises:
        FileExistsError: It exists, and `overwrite` is False.
        OSError: A folder could not be made.
    """
    base = Path(path)
    if path and os.path.basename(path) in ("", os.curdir, os.pardir):  # noqa: PTH119 - Path drops what it is about
        base.mkdir(parents=True, exist_ok=True)
    if base.is_dir():
        return Target(base / stem, "", overwrite)
    target = Target(base, suffix_of(base.name), overwrite)
    if target.suffix:
        target.check(base)
    return target
