"""Editorial: the lists that people curated, as one pool."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs import tables

NAME = "editorial"


def pool(curated: pa.Table, depth: int) -> pa.Table:
    """The table ``editorial`` as one pool for everybody, list after list by position and id, each
    item once; in the columns of the table ``pools``."""
    once = curated.group_by("item_id").aggregate([("position", "min"), ("list_id", "min")])
    keys = ("position_min", "list_id_min", "item_id")
    items = once.sort_by([(key, "ascending") for key in keys])["item_id"].slice(0, depth)
    rank = np.arange(1, len(items) + 1)
    return pa.table(
        {
            "source": pa.repeat(NAME, len(items)), "context_kind": pa.repeat("all", len(items)),
            "context": pa.repeat("", len(items)), "rank": rank.astype(np.int32),
            "item_id": items, "score": 1.0 / rank,
        },
        schema=tables.TABLES["pools"].schema,
    )  # fmt: skip
