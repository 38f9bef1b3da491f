"""Where a fleet's database is named: what is no such name is refused at once, and nothing of it is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finevoice_async import ConfigurationError, FineVoiceSession
from finevoice_async.cli.app import app


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+asyncpg://me:S3cretPw@h/db",
        "postgresq://me:S3cretPw@h/db",
        "mysql://me:S3cretPw@h/db",
        "POSTGRESQL+psycopg://me:S3cretPw@h/db",
        " postgresql://me:S3cretPw@h/db",
        "sqlite+aiosqlite:///S3cretPw@h.db",
        "postgresql:/me:S3cretPw@h/db",
        "postgres:me:S3cretPw@h/db",
        "host=h user=me password=S3cretPw dbname=db",
        Path("postgresql+asyncpg://me:S3cretPw@h/db"),
        Path("postgresql://me:S3cretPw@h/db"),
    ],
)
def test_a_url_of_something_else_is_no_file(text: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as the session is made, and by the command, with the same words; no file comes to be."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"A journal is a file, or a database: postgresql://") as caught:
        FineVoiceSession("key", journal=text)
    assert "S3cretPw" not in repr(caught.value)
    for words in (["journal", str(text)], ["generate", "Rain", "--journal", str(text)]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        assert "A journal is a file, or a database" in result.stderr
        assert "S3cretPw" not in result.output
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["effects.db", "a:b.db", "postgres.db", "my password.db", "http:", "C:/effects.db"])
def test_odd_names_of_files_stay_names(name: str) -> None:
    """What only looks a little like a URL is a file as before."""
    assert "new" in repr(FineVoiceSession("key", journal=name))
    assert "new" in repr(FineVoiceSession("key", journal=Path(name)))
