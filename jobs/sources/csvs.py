"""Reading CSV files as they are found: gzipped or not, in folders or alone, not always UTF-8."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from jobs.errors import Fault

SUFFIXES = (".csv", ".csv.gz")
FALLBACK_ENCODING = "cp1252"  # what spreadsheets write where they do not write UTF-8


def find(name: str, argument: str | None, usage: str) -> list[Path]:
    """The CSV files that ``argument`` (a file, or a folder of files) stands for, sorted."""
    if not argument:
        raise Fault(f"source: {name} reads a folder that you name: {usage}")
    place = Path(argument).expanduser().resolve()
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise Fault(f"source: {name}: there is no {place}; give {usage}")
    found = sorted(path for path in place.iterdir() if path.name.endswith(SUFFIXES))
    if not found:
        raise Fault(f"source: {name}: {place} holds no .csv or .csv.gz file; give {usage}")
    return found


def read(
    paths: list[Path], columns: tuple[str, ...], aliases: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, int]:
    """(all lines of all files, every value a text; the count of lines with too many or too few
    fields, which are skipped).

    ``aliases`` are other names of columns. Bytes that are not UTF-8 are read as Windows-1252.
    Raises one ``Fault`` for all files that are truncated or lack a column.
    """
    frames, faults, broken = [], [], 0
    for path in paths:
        try:
            table, skipped = _read_file(path)
        except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
            faults.append(f"{path} cannot be read ({str(error).splitlines()[0]})")
            continue
        table = table.rename_columns(
            [(aliases or {}).get(name, name) for name in table.schema.names]
        )
        missing = [column for column in columns if column not in table.schema.names]
        if missing:
            faults.append(f"{path} lacks the columns {', '.join(missing)}")
            continue
        broken += skipped
        frames.append(table.select(columns).to_pandas())
    if faults:
        raise Fault(
            "source: " + "; ".join(faults) + f". Expected are CSV files with {', '.join(columns)}"
        )
    return pd.concat(frames, ignore_index=True), broken


def _read_file(path: Path) -> tuple[pa.Table, int]:
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        content = gzip.decompress(content)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        content = content.decode(FALLBACK_ENCODING, errors="replace").encode()
    skipped = 0

    def skip(_: pa.csv.InvalidRow) -> str:
        nonlocal skipped
        skipped += 1
        return "skip"

    first_line = content.split(b"\n", 1)[0] + b"\n"
    header = pa.csv.read_csv(io.BytesIO(first_line)).schema.names
    table = pa.csv.read_csv(
        io.BytesIO(content),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in header}, strings_can_be_null=False
        ),
    )
    return table, skipped
