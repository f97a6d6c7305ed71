"""Editorial: the lists that people curated, as one pool for all surfaces and one for each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import tables

NAME = "editorial"
OF_SURFACE = "surface"  # the kind of context of what was curated for one surface alone


def pool(curated: pa.Table, depth: int) -> pa.Table:
    """The table ``editorial`` in the columns of the table ``pools``: what names no surface as one
    pool for everybody, what names one as a pool of the kind :data:`OF_SURFACE`. List after list by
    id, in each by position, an item once where it comes first."""
    ordered = curated.sort_by([(name, "ascending") for name in ("list_id", "position", "item_id")])
    found = [tables.TABLES["pools"].schema.empty_table()]
    for surface in sorted(pc.unique(curated["surface"]).to_pylist(), key=lambda one: one or ""):
        mine = (
            pc.is_null(ordered["surface"])
            if surface is None
            else pc.equal(ordered["surface"], surface)
        )
        items = pc.unique(ordered.filter(mine)["item_id"]).slice(0, depth)
        rank = np.arange(1, len(items) + 1)
        kind, context = ("all", "") if surface is None else (OF_SURFACE, surface)
        found.append(pa.table(
            {
                "source": pa.repeat(NAME, len(items)), "context_kind": pa.repeat(kind, len(items)),
                "context": pa.repeat(context, len(items)), "rank": rank.astype(np.int32),
                "item_id": items, "score": 1.0 / rank,
            },
            schema=found[0].schema,
        ))  # fmt: skip
    return pa.concat_tables(found)
