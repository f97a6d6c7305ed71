"""A night's features and lists of some people, made again by the code that made them first, from
the tables that the night published."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.night import Night
from jobs.ordering import recommendations, rules
from jobs.ordering.listing import COLUMNS
from jobs.ordering.surfaces import PERSON
from jobs.retrieval.sources import pools
from jobs.tables import TABLES

# What ``recommendations`` reads.
NEEDED = (
    "source", "events", "catalogue", "identities", "sessions", "embeddings", "content_embeddings",
    "index", "candidates", "filters", "ranker", "recommendations",
)  # fmt: skip


def again(night: Night, label: str, people: pa.StringArray) -> dict[str, pa.Table] | None:
    """``features`` and ``recommendations`` of these people, sorted ids, as the night of ``label``
    makes them; None where one of its tables is gone. Others' lists stand as they were published."""
    shelf = {step: night.lake.at(step, label) for step in NEEDED}
    if any(found is None for found in shelf.values()):
        return None
    manifests = {step: found.manifest for step, found in shelf.items() if found is not None}
    then = Night(
        lake=night.lake,
        as_of=io.parse_as_of(manifests["recommendations"]["as_of"]),
        run_id=night.run_id,
        source=manifests["recommendations"]["source"],
        step="recommendations",
        overrides={step: manifests[step]["params"] for step in ("ranker", "recommendations")},
        seed=manifests["recommendations"]["seed"],
    )
    params = then.params_of("recommendations")
    items = then.arrow("items", COLUMNS).sort_by("item_id")
    parts: dict[str, list[pa.Table]] = {"features": [], "recommendations": []}

    def add(name: str, rows: pa.Table) -> None:
        if name in parts:
            schema = TABLES[name].schema
            parts[name].append(rows.select(schema.names).cast(schema))

    recommendations.make(
        then,
        params.of_grain(PERSON),
        items,
        pools.Lists(then.arrow("pools"), items["item_id"], params.pool_depth, params.surfaces),
        rules.loaded(then.arrow("rules_in_force"), items),
        add,
        people,
        stand=_stands(then, people),
    )
    night.inputs |= then.inputs
    return {
        name: pa.concat_tables([TABLES[name].schema.empty_table(), *made])
        for name, made in parts.items()
    }


def _stands(then: Night, people: pa.StringArray) -> pa.Table:
    """surface and item_id of the places in everybody else's lists."""
    rows = then.arrow("recommendations", ["surface", "person_id", "item_id"])
    mine = pc.is_in(rows["person_id"], value_set=people)
    return rows.filter(pc.invert(mine)).select(["surface", "item_id"])
