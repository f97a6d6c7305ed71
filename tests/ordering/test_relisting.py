"""A list that lost places is filled, and nothing else in it moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io
from jobs.filtering.allowed import Allowed
from jobs.ordering import planning, relisting
from jobs.ordering.rules import Rule
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


EMPTY = pa.array([], pa.string())


def merged(
    kept: pa.Table, gone: pa.Table, offered: pa.Table, before: pa.Table, now: pa.Table,
    scored: list[str] = SCORED, due: tuple[str, ...] = (), model: tuple[pa.Table, ...] = (),
    remodelled: pa.Table | None = None, also: pa.Table | None = None,
) -> dict[str, pa.Table]:  # fmt: skip
    """What becomes of lists where the homepage is hourly; ``due``: people it is made anew for;
    ``also``: other lists that are made anew."""
    none = TABLES["model_lists"].schema.empty_table()
    theirs, ours = model or (none, none)
    return relisting.merged(
        {"recommendations": kept, "features": before, "model_lists": theirs},
        {"recommendations": offered, "features": now, "model_lists": ours},
        gone, relisting.Anew(pa.array(due, pa.string()), EMPTY, ("homepage",), also),
        gone.slice(0, 0) if remodelled is None else remodelled, scored,
    )  # fmt: skip


def told(rows: pa.Table) -> list[tuple[Any, ...]]:
    columns = [*relisting.LIST, "rank", "item_id", "score"]
    return [tuple(row.values()) for row in rows.select(columns).to_pylist()]


def test_the_place_is_filled_by_the_best_that_does_not_stand_and_the_rest_closes_up() -> None:
    kept = places(("homepage", "p", "a", 0.9), ("homepage", "p", "b", 0.8),
                  ("homepage", "p", "c", 0.7))  # fmt: skip
    offered = places(("homepage", "p", "c", 0.95), ("homepage", "p", "d", 0.5),
                     ("homepage", "p", "e", 0.4))  # fmt: skip
    found = merged(
        kept, lost(("homepage", "p", "a")), offered,
        features(("p", "a", 1), ("p", "b", 1), ("p", "c", 1)),
        features(("p", "c", 2), ("p", "d", 2), ("p", "e", 2)), SCORED,
    )  # fmt: skip
    assert told(found["recommendations"]) == [
        ("homepage", "p", 1, "b", 0.8), ("homepage", "p", 2, "c", 0.7),
        ("homepage", "p", 3, "d", 0.5),
    ]  # fmt: skip
    values = {row["item_id"]: row[FEATURES[0]] for row in found["features"].to_pylist()}
    assert values == {"b": 1, "c": 1, "d": 2}


def test_a_score_goes_with_the_features_that_stay_though_all_its_places_went() -> None:
    # Y leaves discover, and X, banned from the homepage, is filled by Y there.
    kept = places(("homepage", "p", "X", 0.9), ("discover", "p", "Y", 0.5))
    offered = places(("homepage", "p", "Y", 0.7), ("discover", "p", "Z", 0.2))
    found = merged(
        kept, lost(("homepage", "p", "X"), ("discover", "p", "Y")), offered,
        features(("p", "X", 1), ("p", "Y", 1)), features(("p", "Y", 2), ("p", "Z", 2)), SCORED,
    )  # fmt: skip
    assert ("homepage", "p", 1, "Y", 0.5) in told(found["recommendations"])
    values = {row["item_id"]: row[FEATURES[0]] for row in found["features"].to_pylist()}
    assert values == {"Y": 1, "Z": 2}


def test_a_surface_that_is_not_scored_keeps_its_own_scores() -> None:
    kept = places(("homepage", "p", "a", 0.6), ("digest", "p", "b", 1.0))
    offered = places(("digest", "p", "a", 1.0))
    found = merged(
        kept, lost(("digest", "p", "b")), offered, features(("p", "a", 1)), features(), SCORED
    )
    assert ("digest", "p", 1, "a", 1.0) in told(found["recommendations"])


def test_a_list_stays_short_where_nothing_else_is_offered() -> None:
    kept = places(("homepage", "p", "a", 0.6), ("homepage", "p", "b", 0.5))
    found = merged(
        kept, lost(("homepage", "p", "a")), places(("homepage", "p", "b", 0.9)),
        features(("p", "a", 1), ("p", "b", 1)), features(("p", "b", 2)), SCORED,
    )  # fmt: skip
    assert told(found["recommendations"]) == [("homepage", "p", 1, "b", 0.5)]


def test_an_hourly_list_is_taken_as_made_and_a_nightly_one_stands_with_scores_of_now() -> None:
    kept = places(("homepage", "p", "a", 0.9), ("digest", "p", "b", 0.8), ("digest", "p", "c", 0.7))
    offered = places(("homepage", "p", "b", 0.3), ("homepage", "p", "d", 0.2),
                     ("digest", "p", "d", 0.2))  # fmt: skip
    found = merged(
        kept, lost(("digest", "nobody", "x")), offered,
        features(("p", "a", 1), ("p", "b", 1), ("p", "c", 1)),
        features(("p", "b", 2), ("p", "d", 2)), ["homepage", "digest"], due=("p",),
    )  # fmt: skip
    assert sorted(told(found["recommendations"])) == [
        ("digest", "p", 1, "b", 0.3), ("digest", "p", 2, "c", 0.7),
        ("homepage", "p", 1, "b", 0.3), ("homepage", "p", 2, "d", 0.2),
    ]  # fmt: skip
    values = {row["item_id"]: row[FEATURES[0]] for row in found["features"].to_pylist()}
    assert values == {"b": 2, "c": 1, "d": 2}


def test_a_list_whose_places_a_rule_counts_is_made_anew_and_the_persons_others_stand() -> None:
    surfaces = ("homepage", "digest")
    kept = places(*((surface, "p", item, 0.9) for surface in surfaces for item in ("a", "b")))
    offered = places(*((surface, "p", item, 0.5) for surface in surfaces for item in ("c", "b")))
    found = merged(
        kept, lost(("digest", "p", "a")).slice(0, 0), offered, features(), features(), [],
        also=lost(("digest", "p", "a"), ("homepage", "q", "a")),
    )  # fmt: skip
    assert sorted(told(found["recommendations"])) == [
        ("digest", "p", 1, "c", 0.5), ("digest", "p", 2, "b", 0.5),
        ("homepage", "p", 1, "a", 0.9), ("homepage", "p", 2, "b", 0.9),
    ]  # fmt: skip


def test_a_pin_or_cap_counts_places_of_its_own_surface_or_of_all() -> None:
    def rule(kind: str, surface: str | None) -> Rule:
        return Rule("r", kind, surface, None, 1.0, np.zeros(1, np.int64))

    known = [rule("pin", "homepage"), rule("boost", None), rule("ban", "digest")]
    assert planning.counts_places(known, "homepage")
    assert not planning.counts_places(known, "digest")
    assert planning.counts_places([rule("cap", None)], "digest")


@pytest.mark.parametrize("held", [True, False])
def test_lists_that_are_written_block_by_block_are_those_of_all_at_once(
    tmp_path: Path, held: bool
) -> None:
    people = ("p", "q", "r", "s")
    kept = places(*(("digest", one, item, 0.9) for one in people for item in ("a", "b")))
    offered = places(*(("digest", one, item, 0.5) for one in people for item in ("b", "c")))
    known = [features(*((one, item, 1.0) for one in people for item in items))
             for items in ("ab", "bc")]  # fmt: skip
    names = TABLES["model_lists"].schema.names
    before, now = (
        {"recommendations": rows, "features": one, "model_lists": rows.select(names)}
        for rows, one in zip((kept, offered), known, strict=True)
    )
    for name, rows in before.items():
        io.write_arrow(tmp_path / name, rows)
    gone = lost(*(("digest", one, "a") for one in ("p", "r")))
    anew = relisting.Anew(pa.array(["q"]), pa.array(["s"]), ("homepage",), gone.slice(1))
    gone, none = gone.slice(0, 1), gone.slice(0, 0)
    whole = relisting.merged(before, now, gone, anew, none, ["digest"])
    written: dict[str, list[pa.Table]] = {name: [] for name in before}
    # Nothing of r's lists is looked at apart, since all of them are handed on.
    merging = relisting.Merging(
        before if held else {name: tmp_path / name for name in before},
        pa.array(["p", "q", "s"]), gone, anew, none, ["digest"],
        lambda name, rows: written[name].append(rows),
    )  # fmt: skip
    for block in (["p", "q"], ["r", "s"]):
        published, _ = merging.open(pa.array(block))
        assert set(published["person_id"].to_pylist()) == {*block} - {"r"}
        for name, rows in now.items():
            merging.add(name, rows.filter(pc.is_in(rows["person_id"], value_set=pa.array(block))))
        merging.close(pa.array(block))
    for name, parts in written.items():
        assert len(parts) == 3, "p and q together, r as made, s"
        expected = whole[name].sort_by("person_id")
        found = pa.concat_tables(parts).sort_by("person_id")
        mine = pc.not_equal(expected["person_id"], "r")
        assert found.filter(pc.not_equal(found["person_id"], "r")).to_pylist() == (
            expected.filter(mine).to_pylist()
        )
    items = {row["item_id"] for row in pa.concat_tables(written["recommendations"]).to_pylist()
             if row["person_id"] == "p"}  # fmt: skip
    assert items == {"b", "c"}


def model(*rows: tuple[str, str, str, float]) -> pa.Table:
    return places(*rows).select(TABLES["model_lists"].schema.names)


def test_the_models_list_is_replaced_where_the_published_one_is_and_filled_where_it_lost() -> None:
    surfaces = ("homepage", "digest", "letter", "flyer")
    base, made = (
        [(surface, "p", item, 0.9) for surface in surfaces for item in items]
        for items in (("a", "b"), ("c", "d"))
    )
    gone = lost(("letter", "p", "a"))
    found = merged(
        places(*base), gone, places(*made), features(), features(), [], due=("p",),
        remodelled=lost(("letter", "p", "a"), ("digest", "p", "b")),
        model=(model(*base), model(*made)),
    )  # fmt: skip
    items: dict[str, list[str]] = {surface: [] for surface in surfaces}
    for row in (
        found["model_lists"].sort_by([("surface", "ascending"), ("rank", "ascending")]).to_pylist()
    ):
        items[row["surface"]].append(row["item_id"])
    assert items == {
        "homepage": ["c", "d"], "digest": ["a", "c"], "letter": ["b", "c"], "flyer": ["a", "b"],
    }  # fmt: skip


def test_a_place_says_where_its_item_stands_in_the_models_list_as_that_is_now() -> None:
    # The model put r first, which a rule bans, and the list was made of what stands behind it.
    then = [("digest", "p", item, 0.9) for item in ("r", "a", "b")]
    offered = ("digest", "p", "c", 0.5)
    gone = lost(("digest", "p", "a"))
    for remodelled, expected in (
        (gone, {"b": (1, 2), "c": (2, 3)}), (gone.slice(0, 0), {"b": (1, 3), "c": (2, None)}),
    ):  # fmt: skip
        found = merged(
            places(*then[1:]), gone, places(offered), features(), features(), [],
            remodelled=remodelled, model=(model(*then), model(offered)),
        )  # fmt: skip
        ranks = {row["item_id"]: (row["rank"], row["model_rank"])
                 for row in found["recommendations"].to_pylist()}  # fmt: skip
        assert ranks == expected


def test_shared_lists_that_stand_lose_what_may_not_and_new_contexts_get_theirs() -> None:
    def shared(*rows: tuple[str, str, int]) -> pa.Table:
        schema = TABLES["context_lists"].schema
        return pa.Table.from_pylist([
            {"surface": "feed", "context_kind": "region", "context": context, "item_id": item,
             "rank": rank, "score": 1.0, "propensity": 1.0, "placed_by": "model",
             "sources": ["popular"]}
            for context, item, rank in rows
        ], schema)  # fmt: skip

    contexts = pa.table({"person_id": ["region:north", "region:west"], "region": ["north", "west"]})
    may = np.array([[True, False, True, True]])
    nobody = np.zeros(0, np.int64)
    lawful = relisting.Lawful(
        contexts, pa.array(["a", "b", "c", "z"]), Allowed(np.zeros(2, np.int64), may, nobody), []
    )
    found = relisting.kept_contexts(
        shared(("north", "a", 1), ("north", "b", 2), ("north", "c", 3), ("gone", "a", 1)),
        shared(("north", "z", 1), ("west", "z", 1)), "feed", lawful,
    )  # fmt: skip
    assert [(row["context"], row["rank"], row["item_id"]) for row in found.to_pylist()] == [
        ("north", 1, "a"), ("north", 2, "c"), ("west", 1, "z"),
    ]  # fmt: skip
