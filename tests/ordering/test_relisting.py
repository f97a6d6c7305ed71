"""A list that lost places is filled, and nothing else in it moves."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from jobs.ordering import relisting
from jobs.tables import FEATURES, TABLES

SCORED = ["homepage", "discover"]


def places(*rows: tuple[str, str, str, float]) -> pa.Table:
    """surface, person, item and score, a list's rows in its order."""
    rank: dict[tuple[str, str], int] = {}
    made = []
    for surface, person, item, score in rows:
        rank[surface, person] = rank.get((surface, person), 0) + 1
        made.append({
            "surface": surface, "person_id": person, "item_id": item, "score": score,
            "rank": rank[surface, person], "propensity": 1.0, "placed_by": "model",
            "sources": ["popular"], "provenance": [],
        })  # fmt: skip
    return pa.Table.from_pylist(made, TABLES["recommendations"].schema)


def features(*pairs: tuple[str, str, float]) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {"person_id": person, "item_id": item, "feature_version": "v", "feature_hash": "h",
         "event_timestamp": 0, FEATURES[0]: value}
        for person, item, value in pairs
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, TABLES["features"].schema)


def lost(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.table(dict(zip(relisting.PLACE, map(list, zip(*rows, strict=True)), strict=True)))


def told(rows: pa.Table) -> list[tuple[Any, ...]]:
    columns = [*relisting.LIST, "rank", "item_id", "score"]
    return [tuple(row.values()) for row in rows.select(columns).to_pylist()]


def test_the_place_is_filled_by_the_best_that_does_not_stand_and_the_rest_closes_up() -> None:
    kept = places(("homepage", "p", "a", 0.9), ("homepage", "p", "b", 0.8),
                  ("homepage", "p", "c", 0.7))  # fmt: skip
    offered = places(("homepage", "p", "c", 0.95), ("homepage", "p", "d", 0.5),
                     ("homepage", "p", "e", 0.4))  # fmt: skip
    found = relisting.filled(
        kept, lost(("homepage", "p", "a")), offered,
        features(("p", "a", 1), ("p", "b", 1), ("p", "c", 1)),
        features(("p", "c", 2), ("p", "d", 2), ("p", "e", 2)), SCORED,
    )  # fmt: skip
    assert told(found.rows) == [
        ("homepage", "p", 1, "b", 0.8), ("homepage", "p", 2, "c", 0.7),
        ("homepage", "p", 3, "d", 0.5),
    ]  # fmt: skip
    values = {row["item_id"]: row[FEATURES[0]] for row in found.features.to_pylist()}
    assert values == {"b": 1, "c": 1, "d": 2}


def test_a_score_goes_with_the_features_that_stay_though_all_its_places_went() -> None:
    # Y leaves discover, and X, banned from the homepage, is filled by Y there.
    kept = places(("homepage", "p", "X", 0.9), ("discover", "p", "Y", 0.5))
    offered = places(("homepage", "p", "Y", 0.7), ("discover", "p", "Z", 0.2))
    found = relisting.filled(
        kept, lost(("homepage", "p", "X"), ("discover", "p", "Y")), offered,
        features(("p", "X", 1), ("p", "Y", 1)), features(("p", "Y", 2), ("p", "Z", 2)), SCORED,
    )  # fmt: skip
    assert ("homepage", "p", 1, "Y", 0.5) in told(found.rows)
    values = {row["item_id"]: row[FEATURES[0]] for row in found.features.to_pylist()}
    assert values == {"Y": 1, "Z": 2}


def test_a_surface_that_is_not_scored_keeps_its_own_scores() -> None:
    kept = places(("homepage", "p", "a", 0.6), ("digest", "p", "b", 1.0))
    offered = places(("digest", "p", "a", 1.0))
    found = relisting.filled(
        kept, lost(("digest", "p", "b")), offered, features(("p", "a", 1)), features(), SCORED
    )
    assert ("digest", "p", 1, "a", 1.0) in told(found.rows)


def test_a_list_stays_short_where_nothing_else_is_offered() -> None:
    kept = places(("homepage", "p", "a", 0.6), ("homepage", "p", "b", 0.5))
    found = relisting.filled(
        kept, lost(("homepage", "p", "a")), places(("homepage", "p", "b", 0.9)),
        features(("p", "a", 1), ("p", "b", 1)), features(("p", "b", 2)), SCORED,
    )  # fmt: skip
    assert told(found.rows) == [("homepage", "p", 1, "b", 0.5)]
