"""What a user typed, as the jobs take it."""

from __future__ import annotations

from pathlib import Path


def source_of(text: str) -> str:
    """A folder by its whole path, since it is named from where the user stands and the jobs may
    stand elsewhere; a named source as it is."""
    return str(Path(text).resolve()) if Path(text).exists() else text
