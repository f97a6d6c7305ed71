"""What excludes items, in the form in which a reader asks for it: by eligibility, and by the bans
and margin floors in force.
"""

from __future__ import annotations

import pyarrow as pa

from jobs.filtering.filters import EVERYONE
from jobs.release import entries, reader


def by_all(ineligible: pa.Table, removed: pa.Table) -> pa.Table:
    """item_id, kind, value: the rows of ``ineligible``, of these columns, and :func:`by_rules`."""
    return pa.concat_tables([ineligible, by_rules(removed).cast(ineligible.schema)])


def by_rules(removed: pa.Table) -> pa.Table:
    """item_id, kind, value: the same as rules of eligibility, as a reader asks for them.

    ``removed``: the columns of ``rules.REMOVED``. Where a rule names no surface the rule is one of
    ``filters/ineligible_items/``; else its kind is :data:`reader.ON_SURFACE` or, of a region alone,
    :data:`reader.ON_SURFACE_IN`.
    """
    named: list[tuple[str, str]] = []
    for row in removed.select(["surface", "region"]).to_pylist():
        surface, region = row["surface"], row["region"]
        if surface is None:
            named.append(EVERYONE if region is None else ("region", region))
        elif region is None:
            named.append((reader.ON_SURFACE, surface))
        else:
            named.append((reader.ON_SURFACE_IN, entries.joined(surface, region)))
    kinds, values = zip(*named, strict=True) if named else ((), ())
    return pa.table({
        "item_id": removed["item_id"], "kind": pa.array(kinds, pa.string()),
        "value": pa.array(values, pa.string()),
    })  # fmt: skip
