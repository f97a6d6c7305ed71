"""What `make why` answers, from a small published night."""

from __future__ import annotations

import argparse
import random
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from jobs import io, tables
from jobs.errors import Fault
from jobs.filtering import explain, filters
from jobs.io import Lake, label
from jobs.persons import resolve_person
from tests.filtering import test_filters

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
DAY = datetime(2017, 11, 20, 9, tzinfo=UTC)
ITEMS = [
    {"item_id": "1", "title": "Milk"}, {"item_id": "2", "title": "Red\nwine"},
    {"item_id": "3", "title": "Soap"}, {"item_id": "4", "title": None},
    {"item_id": "5", "title": "Almond milk"}, {"item_id": "6", "title": "Bread"},
    {"item_id": "7", "title": "Cheese"}, {"item_id": "8", "title": "Salt"},
]  # fmt: skip
NIGHT = {
    "items": [
        {"position": n, "available": True, "flags": [], **row} for n, row in enumerate(ITEMS)
    ],
    "identities": [
        {"key_type": kind, "key": key, "person_id": person, "household_id": person,
         "component": person}
        for kind, key, person in (
            ("account", "900", "account:900"), ("cookie", "c:1", "account:900"),
            ("account", "901", "account:901"), ("cookie", "900", "account:901"),
        )
    ],
    "persons": [
        {"person_id": "account:900", "household_id": "account:900", "region": "north",
         "segment": "family", "restrictions": ["alcohol"], "personalised": True, "keys": 2},
        {"person_id": "account:901", "household_id": "account:901", "region": None,
         "restrictions": [], "personalised": False, "keys": 2},
    ],
    "ineligible_items": [
        {"item_id": "2", "kind": "restriction", "value": "alcohol", "reason": "flagged alcohol"},
        {"item_id": "2", "kind": "region", "value": "", "reason": "sold only in north"},
    ],
    "blocked_pairs": [
        {"person_id": "account:900", "item_id": "3", "reason": "just_bought", "since": DAY,
         "until": datetime(2017, 12, 9, tzinfo=UTC)},
        {"person_id": "account:900", "item_id": "3", "reason": "returned", "since": DAY,
         "until": None},
    ],
    "candidates": [
        {"person_id": "account:900", "item_id": "1", "source": "popular", "rank": 4, "score": 2.0},
        {"person_id": "account:900", "item_id": "1", "source": "item_to_item", "rank": 2,
         "score": 0.5, "seed_item": "3", "seed_time": DAY},
        {"person_id": "account:900", "item_id": "5", "source": "popular", "rank": 90, "score": 0.1},
        {"person_id": "account:900", "item_id": "7", "source": "collaborative", "rank": 3,
         "score": 0.1},
        {"person_id": "account:900", "item_id": "8", "source": "buy_again", "rank": 9,
         "score": 0.1},
    ],
    "pools": [
        {"source": source, "context_kind": kind, "context": context, "rank": rank,
         "item_id": item, "score": 1.0 / rank}
        for source, kind, context, rank, item in (
            ("trending", "all", "", 7, "6"), ("trending", "region", "north", 2, "6"),
            ("trending", "region", "south", 1, "6"), ("editorial", "segment", "family", 1, "6"),
            ("new_arrivals", "category", "FOOD", 1, "4"), ("popular", "all", "", 61, "4"),
        )
    ],
    "history": [
        {"event_id": "e1", "person_id": "account:900", "item_id": "7", "event_type": "purchase",
         "event_time": DAY, "received_time": DAY, "session": "s", "basket": "b", "quantity": 1.0,
         "event_date": DAY.date(), "resolved_by": "key", "key_type": "account", "key": "900"},
    ],
    "recommendations": [
        {"surface": surface, "person_id": "account:900", "rank": rank, "item_id": item,
         "score": score, "sources": ["item_to_item", "popular"], "provenance": [],
         "propensity": 1.0, "placed_by": "model", "model_rank": rank}
        for surface, rank, item, score in (
            ("homepage", 1, "1", 0.75), ("discover", 1, "8", 0.5), ("discover", 2, "1", 0.25),
        )
    ],
    "rules_in_force": [
        {"rule_id": "r1", "kind": "ban", "scope": "item:5", "scope_kind": "item",
         "region": "north", "reason": "supplier in dispute", "outcome": "in force", "items": 1,
         "unjudged": 0},
        {"rule_id": "r2", "kind": "ban", "scope": "item:5", "scope_kind": "item",
         "region": "south", "reason": "sold out", "outcome": "in force", "items": 1, "unjudged": 0},
        {"rule_id": "r3", "kind": "ban", "scope": "item:4", "scope_kind": "item",
         "reason": "over", "outcome": "expired", "items": 1, "unjudged": 0},
    ],
}  # fmt: skip

PARAMS = {
    "pool_depth": 60,
    "surfaces": {
        "homepage": {"sources": {"collaborative": 0, "item_to_item": 0, "popular": 0,
                                 "editorial": 0, "trending": 0},
                     "filters": ["eligibility", "blocked"]},
        "discover": {"sources": {"collaborative": 0, "item_to_item": 0, "buy_again": 0,
                                 "editorial": 0},
                     "filters": ["eligibility", "blocked", "known"]},
    },
}  # fmt: skip


@pytest.fixture
def lake(tmp_path) -> Lake:
    """A lake with one published night of the tables that the answer reads."""
    return published(Lake(tmp_path / "lake").open())


def published(made: Lake, **changes: pa.Table) -> Lake:
    """The lake with the night in it; ``changes`` replace whole tables by name."""
    for name, rows in NIGHT.items():
        table = tables.TABLES[name]
        found = changes.get(name, pa.Table.from_pylist(rows, table.schema))
        io.write_arrow(made.staged(table.step, AS_OF) / name, found)
    for step in {tables.TABLES[name].step for name in NIGHT}:
        params = PARAMS if step == "recommendations" else {}
        facts = {"as_of": AS_OF.isoformat(), "params": params}
        io.write_json(made.staged(step, AS_OF) / "manifest.json", facts)
        made.publish(step, AS_OF, "first")
    return made


def test_an_item_in_the_list_is_explained_by_its_rank_and_its_sources(lake):
    assert explain.explain(lake, AS_OF, "account:900", "1") == [
        "account:900 and 1 (Milk), as of 2017-12-01:",
        "Eligible (region north; restrictions: alcohol; not returned, rejected or just bought).",
        "Named by item_to_item: rank 2, because of 3 (Soap) of 2017-11-20.",
        "Named by popular: rank 4.",
        "In the list discover: rank 2, score 0.2500.",
        "In the list homepage: rank 1, score 0.7500.",
    ]


def test_a_restriction_that_excludes_is_named_and_a_region_that_does_not_concern_is_not(lake):
    assert explain.explain(lake, AS_OF, "cookie:c:1", "2")[1:] == [
        "Excluded:", "- restriction: flagged alcohol.",
    ]  # fmt: skip


def test_every_block_comes_with_its_date(lake):
    lines = explain.explain(lake, AS_OF, "c:1", "3")
    assert lines[2:] == [
        "- just_bought: bought on 2017-11-20, and hardly anybody buys it again before 2017-12-09; "
        "eligible from then.",
        "- returned: everything bought went back, last on 2017-11-20; until it is bought again.",
    ]


def test_what_is_said_to_be_excluded_is_what_the_bitmaps_or_a_block_exclude(tmp_path):
    draw = random.Random(11)
    flags, regions = ["alcohol", "adult", "recalled"], ["n", "s", "'; DROP", "ü\n"]
    items = test_filters.catalogue([
        {
            "item_id": f"i{n}", "available": draw.random() < 0.9,
            "regions": None if draw.random() < 0.5 else draw.sample(regions, draw.randint(0, 3)),
            "flags": draw.sample(flags, draw.choice([0, 0, 1, 2])),
        }
        for n in range(24)
    ])  # fmt: skip
    persons = test_filters.people([
        {
            "person_id": f"p{n}", "region": draw.choice([None, "", "elsewhere", *regions]),
            "restrictions": draw.sample(["alcohol", "Adult", "nuts"], draw.randint(0, 2)),
        }
        for n in range(8)
    ])  # fmt: skip
    eligibility, out = test_filters.judged(items, persons)
    pairs = [(person, f"i{n}") for person in (f"p{n}" for n in range(8)) for n in range(24)]
    blocks = [
        {"person_id": person, "item_id": item, "reason": reason, "since": AS_OF, "until": None}
        for person, item in draw.sample(pairs, 20)
        for reason in draw.sample(["returned", "rejected", "just_bought"], draw.randint(1, 2))
    ]
    keys = [
        {"key_type": "account", "key": f"k{n}", "person_id": f"p{n}", "household_id": f"p{n}",
         "component": f"p{n}"}
        for n in range(8)
    ]  # fmt: skip
    of = {"items": items, "persons": persons, "ineligible_items": out}
    for name, rows in (("blocked_pairs", blocks), ("identities", keys), ("rules_in_force", [])):
        of[name] = pa.Table.from_pylist(rows, tables.TABLES[name].schema)
    lake = published(Lake(tmp_path / "lake").open(), **of)
    barred = {(row["person_id"], row["item_id"]) for row in blocks}
    said, wanted = set(), set()
    for number, facts in enumerate(persons.to_pylist()):
        mask = filters.allowed_mask(eligibility, facts["region"], facts["restrictions"])
        for place in range(24):
            pair = (facts["person_id"], f"i{place}")
            if not mask[place] or pair in barred:
                wanted.add(pair)
            if "Excluded:" in explain.explain(lake, AS_OF, f"account:k{number}", pair[1]):
                said.add(pair)
    assert said == wanted
    assert 40 < len(wanted) < len(pairs) - 40


def test_an_item_that_a_pool_names_says_so_and_each_list_says_what_came_before_it(lake):
    assert explain.explain(lake, AS_OF, "account:900", "6")[2:] == [
        "Named by trending: rank 2 of the region north.",
        "Named by editorial: rank 1 of the segment family.",
        "Not in the list discover: 2 items came before it (lowest score 0.2500).",
        "Not in the list homepage: 1 items came before it (lowest score 0.7500).",
    ]


def test_what_was_bought_is_not_said_to_be_outranked_where_it_may_not_stand(lake):
    assert explain.explain(lake, AS_OF, "account:900", "7")[3:] == [
        "Not in the list discover: it takes nothing that the person ever bought.",
        "Not in the list homepage: 1 items came before it (lowest score 0.7500).",
    ]
    assert explain.explain(lake, AS_OF, "account:900", "8")[3:] == [
        "In the list discover: rank 1, score 0.5000.",
        "Not in the list homepage: it takes nothing from buy_again for this item.",
    ]


def test_a_list_curated_for_one_surface_counts_there_alone(lake):
    pool = {"source": "editorial", "context_kind": "surface", "rank": 2, "score": 0.5}
    rows = [{**pool, "context": "homepage", "item_id": "4"}]
    folder = lake.published("candidates", AS_OF).table("pools")
    schema = tables.TABLES["pools"].schema
    for name, elsewhere in (("homepage", "discover"), ("discover", "homepage")):
        rows[0]["context"] = name
        io.write_arrow(folder, pa.Table.from_pylist(rows, schema))
        lines = explain.explain(lake, AS_OF, "account:900", "4")[2:]
        assert lines[0] == f"Named by editorial: rank 2 of the surface {name}."
        no = f"Not in the list {elsewhere}: it takes nothing from editorial for this item."
        assert [line for line in lines if "takes nothing" in line] == [no]
    rows[0]["context"] = "hompage"
    io.write_arrow(folder, pa.Table.from_pylist(rows, schema))
    assert "No source nominated it" in explain.explain(lake, AS_OF, "account:900", "4")[-1]


def test_what_no_source_named_for_the_person_was_never_in_the_running(lake):
    # The pools name it for who looks at a category, and deeper than lists read.
    assert "No source nominated it" in explain.explain(lake, AS_OF, "account:900", "4")[-1]


def test_a_business_rule_about_the_item_is_named_where_it_concerns_the_person(lake):
    lines = explain.explain(lake, AS_OF, "account:900", "5")
    assert "Rule r1 (ban, every surface): supplier in dispute." in lines
    assert "Not in the list homepage: the rule r1 takes it out." in lines
    assert not any("r2" in line for line in lines)
    assert not any("r3" in line for line in explain.explain(lake, AS_OF, "account:900", "4"))


def test_a_person_without_consent_gets_pools_and_one_without_region_only_what_is_sold_everywhere(
    lake,
):
    lines = explain.explain(lake, AS_OF, "901", "6")
    assert lines[2:] == [
        "No consent to personalisation: lists are made of the shared pools alone.",
        "Named by trending: rank 7 of everybody.",
        "This person has no list of this night.",
    ]
    assert explain.explain(lake, AS_OF, "901", "2")[-1] == "- region: sold only in north."


def test_a_title_with_newlines_stays_on_its_line(lake):
    assert explain.explain(lake, AS_OF, "901", "2")[0].startswith("account:901 and 2 (Red wine)")


def test_an_unknown_item_is_answered_with_items_like_it(lake):
    with pytest.raises(Fault, match=r"nothing is known as 'milk' .* try: 1 \(Milk\), 5 \(Almond"):
        explain.explain(lake, AS_OF, "account:900", "milk")


def test_the_command_answers_from_the_newest_night(lake, capsys):
    explain.main(argparse.Namespace(lake=str(lake.root), person="account:900", item="1"))
    assert capsys.readouterr().out.splitlines()[0].endswith(f"as of {label(AS_OF)}:")
    with pytest.raises(Fault, match="no published night"):
        explain.main(argparse.Namespace(lake=f"{lake.root}-none", person="x", item="1"))


def test_a_person_is_found_by_id_by_typed_key_and_by_a_key_that_is_theirs_alone():
    identities = pa.Table.from_pylist(NIGHT["identities"], tables.TABLES["identities"].schema)
    assert resolve_person(identities, "account:900") == "account:900"
    assert resolve_person(identities, "cookie:900") == "account:901"
    assert resolve_person(identities, "c:1") == "account:900"
    with pytest.raises(Fault, match="a key of 2 persons; say which: account:900, cookie:900"):
        resolve_person(identities, "900")
    with pytest.raises(Fault, match="nobody is known as '9' among 2 persons; try one of them"):
        resolve_person(identities, "9")
