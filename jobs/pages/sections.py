"""A part of a page: a title, words, a plot, and the rows behind it as a page shows them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from markupsafe import Markup


def section(title: str, words: str, rows: pa.Table, plot: str = "") -> dict[str, Any]:
    numbers = [
        field.name
        for field in rows.schema
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    ]
    return {
        "title": title,
        "text": words,
        # Drawn by matplotlib, which escapes what it writes into SVG.
        "plot": Markup(plot),  # noqa: S704
        "columns": rows.schema.names,
        "numbers": numbers,
        "rows": [{name: text(value) for name, value in r.items()} for r in rows.to_pylist()],
    }


def text(value: Any) -> str:
    """A value as a page shows it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
