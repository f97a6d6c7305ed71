"""The features that were logged with the places of the requests that were drawn, as columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis.log import intake
from jobs.tables import FEATURES, TABLES

PLACE = ["request_id", "position"]


def table(log: Path, served: Path) -> pa.Table:
    """The table ``served_features``, by request and position.

    ``log``: folder of the rows that ``served.judged`` made; ``served``: folder of the table of that
    name. What a map holds besides FEATURES is left out, and of a name that it holds twice the first
    value counts.
    """
    parts = list(_drawn(log))
    schema = TABLES["served_features"].schema
    if not parts:
        return schema.empty_table()
    drawn = pa.concat_tables(parts)
    drawn = drawn.sort_by([(name, "ascending") for name in PLACE])
    asked = pc.unique(drawn["request_id"])
    plain = [name for name in schema.names if name not in FEATURES and name != "weight"]
    # The features have a value of their own: what was paid for the item before.
    read = ["value" if name == "revenue" else name for name in plain]
    places = io.read_arrow(served, read, ds.field("request_id").isin(asked)).rename_columns(plain)
    at = pc.index_in(keys(drawn), value_set=keys(places))
    held = pc.is_valid(at)
    places, drawn = places.take(at.filter(held)), drawn.filter(held)
    columns = {name: places[name] for name in plain} | {
        name: drawn[name] for name in ("weight", *FEATURES)
    }
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def keys(rows: pa.Table) -> pa.Array:
    """(n,) texts that name the place of each row, by request_id and position."""
    position = pc.cast(rows["position"], pa.string())
    return pc.binary_join_element_wise(rows["request_id"], position, "\x1f").combine_chunks()


def _drawn(log: Path) -> Iterator[pa.Table]:
    """request_id, position, weight and FEATURES of the rows that were kept and have features, a
    part of a file at a time: a map of each takes several times what its columns do."""
    found = ds.dataset([str(path) for path in io.parquet_files(log)], format="parquet")
    whole = (ds.field("outcome") == intake.KEPT) & ds.field("features").is_valid()
    names = [*PLACE, "drawn_share", "features"]
    for batch in found.to_batches(columns=names, filter=whole, batch_size=16_384):
        if batch.num_rows:
            weight = pc.divide(1.0, batch["drawn_share"])
            yield pa.table(
                {name: batch[name] for name in PLACE}
                | {"weight": weight}
                | dict(zip(FEATURES, columns(batch["features"]), strict=True))
            )


def columns(maps: pa.MapArray) -> list[pa.Array]:
    """(n,) float32 of each of FEATURES, null where a map has none or a null; no map is null."""
    ends = maps.offsets.to_numpy()
    low, high = int(ends[0]), int(ends[-1])
    names, items = maps.keys[low:high], maps.items[low:high]
    feature = pc.fill_null(pc.index_in(names, value_set=pa.array(FEATURES, names.type)), -1)
    feature = feature.to_numpy(zero_copy_only=False)
    # From the last to the first, which then stands: a copy, since numpy turns views round.
    at = np.flatnonzero(feature >= 0)[::-1].copy()
    place = feature[at], np.repeat(np.arange(len(maps)), np.diff(ends))[at]
    values = np.zeros((len(FEATURES), len(maps)), np.float32)
    missing = np.ones(values.shape, bool)
    with np.errstate(over="ignore"):
        values[place] = items.to_numpy(zero_copy_only=False).astype(np.float64)[at]
    missing[place] = pc.is_null(items).to_numpy(zero_copy_only=False)[at]
    return [pa.array(one, mask=gone) for one, gone in zip(values, missing, strict=True)]
