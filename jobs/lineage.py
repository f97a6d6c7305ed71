"""The way back from a table to its source: what was read, in which version, by which code.

Reads the manifests beside the published tables; each names its inputs, so the way is followed
until a step that read none.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any

from jobs import io, steps, tables
from jobs.errors import Fault
from jobs.io import Lake, Published


def main(chosen: argparse.Namespace) -> None:
    """Print the way back from a table."""
    lake = Lake(chosen.lake)
    for line in way_back(lake, find(lake, chosen.table, chosen.as_of), chosen.table):
        print(line)


def find(lake: Lake, table: str, as_of: str | None) -> Published:
    """The published step that holds a table (or the step of that name), the newest by default."""
    step = tables.TABLES[table].step if table in tables.TABLES else table
    if step not in steps.EVERY:
        known = sorted({*tables.TABLES, *steps.EVERY})
        close = difflib.get_close_matches(table, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are: {', '.join(known)}"
        raise Fault(f"lineage: there is no table {table!r}; {hint}")
    if as_of:
        return lake.published(step, io.parse_as_of(as_of))
    found = newest(lake, step)
    if found is None:
        raise Fault(
            f"lineage: nothing of the step {step} is published in {lake.root}; run a night first"
        )
    return found


def newest(lake: Lake, step: str) -> Published | None:
    """The published attempt of a step with the latest run date."""
    home = lake.root / "tables" / step
    for folder in sorted(home.iterdir(), reverse=True) if home.is_dir() else ():
        found = lake.at(step, folder.name)
        if found is not None:
            return found
    return None


def way_back(lake: Lake, found: Published, table: str) -> Iterator[str]:
    """A line per fact, inputs indented under what read them; a step seen before is only named."""
    yield f"{table} as of {found.as_of}, in {found.folder}"
    yield from _step(lake, found, 0, set())


def _step(lake: Lake, found: Published, depth: int, seen: set[tuple[str, str]]) -> Iterator[str]:
    pad = "  " * depth
    seen.add((found.step, found.as_of))
    if not found.table("manifest.json").is_file():
        yield f"{pad}{found.step} @ {found.as_of}  run {found.attempt}  (its manifest is missing)"
        return
    manifest = found.manifest
    rows = ", ".join(f"{n} {f['rows']:,}" for n, f in manifest.get("tables", {}).items())
    verdict = manifest.get("gate", {}).get("verdict", "not judged")
    yield f"{pad}{found.step} @ {found.as_of}  run {found.attempt}  gate {verdict}"
    yield f"{pad}    rows: {rows or 'no tables'}"
    yield f"{pad}    code {manifest.get('code_version')}  seed {manifest.get('seed')}"
    changed = _changed(found.step, manifest.get("params", {}))
    yield f"{pad}    params: {changed or 'all defaults'}"
    for name, digest in manifest.get("notes", {}).get("files", {}).items():
        yield f"{pad}    file: {name}  sha256 {digest[:12]}"
    inputs = manifest.get("inputs", {})
    if not inputs:
        yield f"{pad}    source: {manifest.get('source')}"
        source = found.table("source.json")
        if source.is_file():
            facts = io.read_json(source)
            yield f"{pad}    folder: {facts.get('folder')}  digest {facts.get('digest')}"
    for read in inputs.values():
        yield from _input(lake, read, depth + 1, seen)


def _input(
    lake: Lake, read: dict[str, Any], depth: int, seen: set[tuple[str, str]]
) -> Iterator[str]:
    pad = "  " * depth
    counts = ", ".join(f"{name} {rows:,}" for name, rows in read.get("rows", {}).items())
    name = f"{read['step']} @ {read['as_of']}"
    now = lake.at(read["step"], read["as_of"])
    if (read["step"], read["as_of"]) in seen:
        yield f"{pad}{name}  run {read['attempt']}  (above){f'  read {counts}' if counts else ''}"
    elif now is None:
        yield f"{pad}{name}  run {read['attempt']}  (no longer in the lake)"
    else:
        yield from _step(lake, now, depth, seen)
        if counts:
            yield f"{pad}    rows read here: {counts}"
        if now.attempt != read["attempt"]:
            yield f"{pad}    read in the run {read['attempt']}, which was replaced since"


def _changed(step: str, params: dict[str, Any]) -> str:
    """The parameters that differ from the step's defaults, as ``name=value``."""
    defaults = dataclasses.asdict(steps.module(step).Params())
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in defaults.items()}
    return ", ".join(
        f"{name}={value!r} (default {plain.get(name)!r})"
        for name, value in params.items()
        if value != plain.get(name)
    )
