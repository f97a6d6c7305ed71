"""Where the real data for tests lies, and small ways to look into a converted source."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
import pytest

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def real(name: str) -> Path:
    """A folder of real data; skips the test where it is not there."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the real data {folder} is not on this machine")
    return folder


def rows(folder: Path, table: str) -> list[dict]:
    """The rows of a converted table, in the order they were written."""
    return ds.dataset(folder / table, format="parquet").to_table().to_pylist()


def column(folder: Path, table: str, name: str) -> list:
    """One column of a converted table."""
    return ds.dataset(folder / table, format="parquet").to_table([name])[name].to_pylist()
