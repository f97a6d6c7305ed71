"""A shop whose keys become persons."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.io import Lake
from tests.signals.graphs import Shop


@pytest.fixture
def shop(lake: Lake, tmp_path: Path):
    """Makes a shop in the test's lake: ``shop(events, links, people)``."""
    return lambda *rows, **named: Shop(lake, tmp_path / "source", *rows, **named)
