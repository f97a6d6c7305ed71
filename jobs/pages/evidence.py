"""What a run date's diagnosis left in the lake, as its page reads it, and the parts of a section.

Tables are read where this run published them; of the step whose gate was red, what it judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import io, steps, tables
from jobs.io import Lake
from jobs.pages.audits import Part

SHOWN = 30  # rows of a table or a plot
RED = "red"
# Who it was is nobody's business on a page that is passed around.
PRIVATE = ("person_id", "visitor", "key", "customer_id", "request_id")


@dataclass(frozen=True)
class Run:
    """The newest diagnosis of a run date. ``gates``: the newest evidence of each step, in the form
    of ``docs.night``."""

    lake: Lake
    label: str
    gates: dict[str, dict[str, Any]]
    kept: dict[str, pa.Table] = field(default_factory=dict, repr=False)

    @cached_property
    def stopped(self) -> str | None:
        """The first step whose gate is red. Once there is a verdict, what came before the
        diagnosis no longer counts: a later night of the same date may have failed there."""
        before = () if self.lake.at("verdict", self.label) else steps.BEFORE_DIAGNOSIS
        return next((step for step in (*before, *steps.DIAGNOSIS) if self._red(step)), None)

    @property
    def finished(self) -> bool:
        """Whether it came to a verdict."""
        return self.stopped is None and self.lake.at("verdict", self.label) is not None

    @property
    def mixed(self) -> list[str]:
        """Steps that another run judged than the one that came to the verdict."""
        if not self.finished or "verdict" not in self.gates:
            return []
        mine = self.gates["verdict"]["run_id"]
        return [
            step for step in steps.DIAGNOSIS
            if step in self.gates and self.gates[step]["run_id"] != mine
        ]  # fmt: skip

    def has(self, step: str) -> bool:
        """Whether this run has something of a step."""
        return self._home(step) is not None

    def params(self, step: str) -> dict[str, Any]:
        """The parameters that a step ran with."""
        home = self._home(step)
        path = home / "manifest.json" if home else None
        known = io.read_json(path) if path and path.is_file() else {}
        return dict(known.get("params", {}))

    def table(self, name: str) -> pa.Table:
        """A table of the diagnosis; without rows where there is none, or of another version."""
        if name not in self.kept:
            self.kept[name] = self._read(name)
        return self.kept[name]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table of the diagnosis."""
        return self.table(name).to_pylist()

    def _read(self, name: str) -> pa.Table:
        declared = tables.TABLES[name]
        home = self._home(declared.step)
        if home is not None and self._readable(name, home / name):
            found = io.read_arrow(home / name)
            if not io.check_schema(declared, found.schema):
                return found
        return declared.schema.empty_table()

    def _readable(self, name: str, folder: Path) -> bool:
        """Whether there are files that no gate found to be broken."""
        findings = self.gates.get(tables.TABLES[name].step, {}).get("expectations", ())
        broken = any(one["table"] == name and one["type"] == "schema" for one in findings)
        return not broken and folder.is_dir() and bool(io.parquet_files(folder))

    def _home(self, step: str) -> Path | None:
        if self._red(step):
            staged = self.lake.staged(step, io.parse_as_of(self.gates[step]["as_of"]))
            return staged if staged.is_dir() else None
        found = self.lake.at(step, self.label)
        return found.folder if found and self._reached(step) else None

    def _reached(self, step: str) -> bool:
        """Whether what is published of a step is of the run that stopped, if one did."""
        if self.stopped is None:
            return True
        order = list(steps.EVERY)
        if order.index(step) < order.index(self.stopped):
            return True
        run_id = self.gates[self.stopped]["run_id"]
        return bool(self.gates.get(step, {}).get("run_id") == run_id)

    def _red(self, step: str) -> bool:
        return bool(self.gates.get(step, {}).get("verdict") == RED)


# --- parts of a section ----------------------------------------------------------------------
def part(
    caption: str,
    rows: Sequence[dict[str, Any]],
    *names: str,
    plot: str = "",
    none: str = "There is no row of it.",
    most: int = SHOWN,
    of: int | None = None,
) -> Part:
    """A table of these columns, the first rows alone, with a caption that says of how many.

    ``of``: how many there are, where ``rows`` are a part already. Without rows it is a sentence.
    """
    if not rows:
        return Part(f"{caption} {none}".strip(), plot=plot)
    total = len(rows) if of is None else of
    shown = rows[:most]
    cut = f" The first {len(shown):,} of {total:,} rows." if total > len(shown) else ""
    columns = [name for name in (names or rows[0]) if name not in PRIVATE]
    table = {name.replace("_", " "): [_plain(row[name]) for row in shown] for name in columns}
    # A column that nothing is said in only takes the room of the others.
    told = {name: values for name, values in table.items() if any(v is not None for v in values)}
    return Part(f"{caption}{cut}", pa.table(told), plot)


def triples(
    rows: Sequence[dict[str, Any]], middle: str, low: str = "low", high: str = "high"
) -> tuple[list[Any], list[Any], list[Any]]:
    """(middles, lows, highs) of rows; without an interval, the value itself."""
    middles = [row[middle] for row in rows]
    lows, highs = (
        [row[middle] if row[end] is None else row[end] for row in rows] for end in (low, high)
    )
    return middles, lows, highs


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    return value
