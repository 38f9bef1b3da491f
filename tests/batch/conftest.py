"""Batches with an emulated service in a thread of its own, on the ordinary loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_project import Project

from finevoice_async.testing import make_service


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project without a manifest yet."""
    with make_service() as service:
        yield Project(tmp_path, service)
