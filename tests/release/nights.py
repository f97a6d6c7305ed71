"""A small published night, written table by table as jobs/tables declares them."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io, steps, tables
from jobs.filtering import filters
from jobs.io import Lake
from jobs.night import Night
from jobs.refresh import route
from jobs.refresh.route import Refresh
from jobs.release import release, replaced
from jobs.retrieval import index
from jobs.scoring import features

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
SURFACE = "homepage"
# Ids that break naive paths, quoting, logs and LMDB's limit of 511 bytes.
HOSTILE = (
    "../../etc/passwd", "a/b%2Fc", "%2F", 'say "hi"', "it's", "two\nlines\ttab", "nul\0byte",
    "emoji 🦉 ñ 漢字", "x" * 2_000, "x" * 2_001, " ", "", "\x1b[31mred", "-rf", "\u2028", "\\",
)  # fmt: skip
RULE = "spring"
WEIGHTS = {source: 1.0 / place for place, source in enumerate(tables.SOURCES, start=1)}


def publish(
    lake: Lake, as_of: datetime = AS_OF, run_id: str = "run-1", refresh: Refresh | None = None,
    **changes: Any,
) -> None:  # fmt: skip
    """Publish every step before ``release`` for a small shop, of a night or a refresh.

    People p0 to p5 and the hostile ones; p1 has no consent, p2 restricts alcohol. Items i0 to i29
    and the hostile ones; i27 is alcohol, i28 is sold in the north only, i29 is unavailable.
    ``changes`` replace whole tables by name.
    """
    frames = tables_of_night(as_of) | changes
    for step in route.ROUTE if refresh else steps.STEPS:
        if step == "release":
            continue
        folder = lake.staged(step, as_of)
        folder.mkdir(parents=True)
        for table in tables.of_step(step):
            rows = frames.get(table.name, table.schema.empty_table())
            io.write_arrow(folder / table.name, rows)
        if step == "index":
            _write_index(folder / "index_bundle", frames["item_vectors"])
        if step == "embeddings":
            io.write_json(folder / "embedding.json", {"version": "space-1", "dim": 4})
        evidence = lake.evidence(step, as_of, run_id)
        io.write_json(evidence, {"step": step, "verdict": "green"})
        manifest = {
            "step": step, "as_of": as_of.isoformat(), "run_id": run_id, "source": "test",
            "code_version": "abc", "params": {}, "inputs": {}, "tables": {},
            "gate": {"verdict": "green", "seconds": 0.5}, "seconds": 1.0,
            "refresh": asdict(refresh) if refresh else None,
        }  # fmt: skip
        if step in ("catalogue", "filters"):
            looks = Night(lake, as_of, run_id, "test", step, refresh=refresh)
            replaced.note(looks)
            manifest["notes"] = looks.notes
        io.write_json(folder / "manifest.json", manifest)
        lake.publish(step, as_of, run_id)


def night(lake: Lake, as_of: datetime = AS_OF, run_id: str = "run-1", **kwargs: Any) -> Night:
    """The context of the step ``release``."""
    return Night(lake, as_of, run_id, "test", "release", **kwargs)


def stage(lake: Lake, as_of: datetime = AS_OF, run_id: str = "run-1", **kwargs: Any) -> Night:
    """Run the job, as the command line does."""
    made = night(lake, as_of, run_id, **kwargs)
    made.reset()
    release.run(made, release.Params())
    made.close(release.Params(), "abc")
    return made


def whole(lake: Lake, as_of: datetime = AS_OF, run_id: str = "run-1", **kwargs: Any) -> str:
    """A night's tables, its release staged, judged green and published; returns its id."""
    publish(lake, as_of, run_id, kwargs.get("refresh"))
    made = stage(lake, as_of, run_id, **kwargs)
    assert release.verify(made) == []
    return release.publish(made)


def day(number: int) -> datetime:
    """The night so many days after the first."""
    return AS_OF + timedelta(days=number)


@cache
def tables_of_night(as_of: datetime = AS_OF) -> dict[str, pa.Table]:
    """The tables that a release reads, small and whole."""
    items = [f"i{n}" for n in range(30)] + [f"item {text}" for text in HOSTILE] + list(HOSTILE)
    people = [f"account:p{n}" for n in range(6)] + [f"account:{text}" for text in HOSTILE]
    catalogue = _catalogue(items, as_of)
    persons = _persons(people, as_of)
    regions, restrictions = filters.regions_of(catalogue, persons), ["alcohol"]
    rules = filters.judge_items(catalogue, regions, restrictions, filters.Params())
    popular = [item for item in items if item != "i29"]
    listed = [item for item in items if item not in ("i27", "i28", "i29")]
    lists = _lists(people, listed, as_of)
    pools = [
        {"source": "popular", "context_kind": kind, "context": context, "rank": place,
         "item_id": item, "score": 1.0 / place}
        for kind, context in (("all", ""), ("region", "north"), ("region", "so/uth"))
        for place, item in enumerate(["i29", "i28", "i27", *popular[:20]], start=1)
    ]  # fmt: skip
    shared = [
        {"surface": surface, "context_kind": kind, "context": context, "rank": place,
         "item_id": item, "score": 1.0 / place, "sources": ["popular"], "placed_by": "model",
         "propensity": 0.5 if (surface, place) == ("feed", 4) else 1.0, "model_rank": place}
        for surface in (SURFACE, "trending", "feed", "cart")
        for kind, context in (("all", ""), ("region", "north"), ("region", "so/uth"))
        for place, item in enumerate(["i28", "i27", *popular[:20]], start=1)
    ]  # fmt: skip
    beside = [
        {
            "surface": surface,
            "item_id": item,
            "rank": place,
            "listed_item_id": other,
            "score": 1.0 / place,
        }
        for surface in ("similar", "cart")
        for item in items
        for place, other in enumerate([one for one in popular[:6] if one != item][:5], start=1)
    ]
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(len(items), 4)).astype(np.float32)
    history = [
        {"event_id": f"e{n}", "person_id": "account:p0", "item_id": f"i{n % 3}",
         "event_type": "purchase", "event_time": as_of - timedelta(days=n + 1, hours=2),
         "received_time": as_of - timedelta(days=n + 1), "session": f"account:p0|{n}",
         "basket": f"b{n}", "quantity": 2.0, "value": 3.5, "region": "north",
         "event_date": (as_of - timedelta(days=n + 1)).date(), "resolved_by": "key",
         "key_type": "account", "key": "p0"}
        for n in range(20)
    ]  # fmt: skip
    return {
        "items": catalogue,
        "persons": persons,
        "identities": _table("identities", [
            {"key_type": kind, "key": key, "person_id": person, "household_id": person,
             "component": person, "first_seen": None}
            for kind, key, person in (
                *(("account", person.removeprefix("account:"), person) for person in people),
                ("device/id", "d%1", "account:p0"), ("device", "id/d%1", "account:p3"),
            )
        ]),
        "history": _table("history", history),
        "eligibility": filters.eligibility(catalogue, rules),
        "ineligible_items": filters.ineligible_items(catalogue, rules),
        "blocked_pairs": _table("blocked_pairs", [
            {"person_id": "account:p0", "item_id": "i0", "reason": reason, "since": as_of,
             "until": None} for reason in ("returned", "rejected")
        ]),
        "pools": _table("pools", pools),
        "context_lists": _table("context_lists", shared),
        "item_lists": _table("item_lists", beside),
        "item_factors": _vectors("item_factors", "item_id", items, vectors),
        "person_factors": _vectors(
            "person_factors", "person_id", [one for one in people if one != "account:p1"],
            vectors[: len(people) - 1],
        ),
        # What is not available stands in no index, and in id_maps all the same.
        "item_vectors": pa.table(
            {
                "item_id": items, "position": np.arange(len(items)),
                "vector": list(vectors), "origin": ["collaborative"] * len(items),
            },
            schema=tables.TABLES["item_vectors"].schema,
        ).filter(catalogue["available"]),
        "rules_in_force": in_force(),
        "blend_weights": _table("blend_weights", [
            {"source": source, "weight": weight} for source, weight in WEIGHTS.items()
        ]),
        **lists,
    }  # fmt: skip


def in_force(*more: dict[str, Any]) -> pa.Table:
    """The table ``rules_in_force``: the pin that lists have, and ``more``, bans of one item where
    they do not say otherwise."""
    pin = {"rule_id": RULE, "kind": "pin", "scope": "item:i2", "strength": 2.0,
           "reason": "spring campaign"}  # fmt: skip
    whole = {"kind": "ban", "scope_kind": "item", "outcome": "in force", "items": 1, "unjudged": 0,
             "reason": "why"}  # fmt: skip
    return _table("rules_in_force", [{**whole, **rule} for rule in (pin, *more)])


def with_margins(**margins: float) -> pa.Table:
    """The night's catalogue with the margins of these items known."""
    items = tables_of_night()["items"]
    place = items.schema.get_field_index("margin")
    known = pa.array([margins.get(item) for item in items["item_id"].to_pylist()], pa.float64())
    return items.set_column(place, items.schema.field(place), known)


def _catalogue(items: list[str], as_of: datetime) -> pa.Table:
    odd = {
        "i27": {"flags": ["alcohol"]},
        "i28": {"regions": ["north"]},
        "i29": {"available": False},
    }
    return _table("items", [
        {"item_id": item, "position": place, "title": f"Title of {item}", "category": "food > odd",
         "brand": None, "seller": None, "price": 1.0, "margin": None, "created_time": None,
         "first_seen": as_of - timedelta(days=9), "available": True, "regions": None, "flags": [],
         "attributes": None, **odd.get(item, {})}
        for place, item in enumerate(items)
    ])  # fmt: skip


def _persons(people: list[str], as_of: datetime) -> pa.Table:
    return _table("persons", [
        {"person_id": person, "household_id": person,
         "region": ["north", "so/uth", None][place % 3], "segment": None,
         "personalised": person != "account:p1",
         "restrictions": ["alcohol"] if person == "account:p2" else [], "keys": 1,
         "first_seen": as_of - timedelta(days=99), "last_seen": as_of - timedelta(days=1)}
        for place, person in enumerate(people)
    ])  # fmt: skip


def _lists(people: list[str], items: list[str], as_of: datetime) -> dict[str, pa.Table]:
    """Lists of five from two sources (one shared source without consent), with their features."""
    places, rows = [], []
    for number, person in enumerate(people):
        chosen = [items[1 + (number + place) % (len(items) - 1)] for place in range(5)]
        sources = ["popular"] if person == "account:p1" else ["buy_again", "item_to_item"]
        for rank, item in enumerate(chosen, start=1):
            signals = {
                f"{source}_signal": 1 / math.log2(1 + rank) if source in sources else 0.0
                for source in tables.SOURCES
            }
            score = sum(WEIGHTS[source] * signals[f"{source}_signal"] for source in WEIGHTS)
            places.append({
                "surface": SURFACE, "person_id": person, "rank": rank, "item_id": item,
                "score": score, "sources": sources,
                "propensity": 1.0, "placed_by": "rule" if rank == 2 else "model",
                "rule_id": RULE if rank == 2 else None, "model_rank": None if rank == 2 else rank,
                "provenance": [
                    {"source": source, "rank": rank, "score": 1.0, "seed_item": "i0",
                     "seed_time": as_of - timedelta(days=3)} for source in sources
                ],
            })  # fmt: skip
            rows.append({
                "person_id": person, "item_id": item, "event_timestamp": as_of,
                "feature_version": features.VERSION, "feature_hash": "0" * 64, **signals,
            })  # fmt: skip
    return {
        "recommendations": _table("recommendations", places),
        "features": _table("features", rows),
    }


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, tables.TABLES[name].schema)


def _vectors(name: str, key: str, ids: list[str], vectors: np.ndarray) -> pa.Table:
    return pa.table({key: ids, "vector": list(vectors)}, schema=tables.TABLES[name].schema)


def _write_index(folder: Path, rows: pa.Table) -> None:
    vectors = np.stack(rows["vector"].to_numpy())
    positions = rows["position"].to_numpy()
    index.save(index.build(positions, vectors, "space-1", index.Params(), 7), folder)
