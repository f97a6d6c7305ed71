"""What may be shown to whom, on catalogues and histories small enough to judge by eye."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from jobs import io, params
from jobs.errors import Fault
from jobs.filtering import filters
from jobs.filtering.filters import Params, allowed_mask
from jobs.release.releases import Release
from jobs.tables import TABLES

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)


def catalogue(rows: list[dict]) -> pa.Table:
    """Items with the columns that a row leaves out at their harmless values."""
    plain = dict.fromkeys(TABLES["items"].schema.names) | {"available": True, "flags": []}
    made = [{**plain, "position": place, **row} for place, row in enumerate(rows)]
    return pa.Table.from_pylist(made, TABLES["items"].schema)


def people(rows: list[dict]) -> pa.Table:
    plain = dict.fromkeys(TABLES["persons"].schema.names)
    plain |= {"personalised": True, "restrictions": [], "keys": 1, "household_id": "h"}
    return pa.Table.from_pylist([{**plain, **row} for row in rows], TABLES["persons"].schema)


def judged(items: pa.Table, persons: pa.Table, **chosen) -> tuple[pa.Table, pa.Table]:
    """The tables eligibility and ineligible_items."""
    regions, restrictions = filters.regions_of(items, persons), filters.restrictions_of(persons)
    rules = filters.judge_items(items, regions, restrictions, Params(**chosen))
    return filters.eligibility(items, rules), filters.ineligible_items(items, rules)


def bitmap(eligibility: pa.Table, kind: str, value: str) -> bytes:
    return next(
        row["bitmap"]
        for row in eligibility.to_pylist()
        if (row["kind"], row["value"]) == (kind, value)
    )


NINE = [{"item_id": f"i{n}", "available": n not in (1, 8)} for n in range(9)]


def test_bit_i_of_byte_i_over_8_is_the_item_at_position_i_least_significant_first():
    eligibility, _ = judged(catalogue(NINE), people([]))
    assert bitmap(eligibility, "availability", "all") == bytes([0b11111101, 0b0])


def test_bitmaps_follow_positions_not_the_order_of_rows_and_a_hole_is_never_allowed():
    items = catalogue([{"item_id": "late", "position": 3}, {"item_id": "first", "position": 0}])
    eligibility, _ = judged(items, people([]))
    assert bitmap(eligibility, "availability", "all") == bytes([0b1001])
    row = eligibility.to_pylist()[0]
    assert (row["positions"], row["allowed"]) == (4, 2)


def test_a_recalled_item_is_for_nobody_and_its_reason_says_so():
    items = catalogue([
        {"item_id": "good"}, {"item_id": "gone", "available": False, "flags": ["Recalled "]},
    ])  # fmt: skip
    eligibility, out = judged(items, people([]))
    assert allowed_mask(eligibility, None).tolist() == [True, False]
    assert [row["reason"] for row in out.to_pylist() if row["kind"] == "availability"] == [
        "not available in the catalogue; flagged recalled: for nobody"
    ]


def test_which_flags_are_for_nobody_is_a_parameter():
    items = catalogue(
        [{"item_id": "a", "flags": ["adult"]}, {"item_id": "b", "flags": ["recalled"]}]
    )
    eligibility, _ = judged(items, people([]), excluded_flags=("adult",))
    assert allowed_mask(eligibility, None).tolist() == [False, True]


REGIONAL = [
    {"item_id": "anywhere", "regions": None},
    {"item_id": "north", "regions": ["north"]},
    {"item_id": "nowhere", "regions": []},
]


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("north", [True, True, False]),
        ("south", [True, False, False]),
        (None, [True, False, False]),
        ("a region that nobody named", [True, False, False]),
    ],
)
def test_no_regions_means_everywhere_and_an_unknown_region_gets_only_that(region, expected):
    persons = people([{"person_id": "p", "region": "south"}])
    eligibility, _ = judged(catalogue(REGIONAL), persons)
    assert allowed_mask(eligibility, region).tolist() == expected


def test_a_region_names_where_the_item_may_be_sold():
    _, out = judged(catalogue(REGIONAL), people([{"person_id": "p", "region": "south"}]))
    said = {(row["item_id"], row["value"]): row["reason"] for row in out.to_pylist()}
    assert said["north", "south"] == "sold only in north, not in south"
    assert said["north", ""] == "sold only in north, and the person's region is not known"
    assert said["nowhere", "north"] == "sold only in no region at all, not in north"


def test_a_flag_matters_only_for_a_person_with_that_restriction():
    items = catalogue([{"item_id": "wine", "flags": ["alcohol"]}, {"item_id": "milk"}])
    persons = people([{"person_id": "p", "restrictions": ["Alcohol", "gluten"]}])
    eligibility, out = judged(items, persons)
    assert allowed_mask(eligibility, None).tolist() == [True, True]
    assert allowed_mask(eligibility, None, ["Alcohol"]).tolist() == [False, True]
    assert allowed_mask(eligibility, None, ["gluten"]).tolist() == [True, True]
    assert bitmap(eligibility, "flag", "alcohol") == bytes([0b10])
    assert {row["kind"] for row in out.to_pylist()} == {"restriction"}
    assert filters.unmatched_restrictions(items, persons) == ["gluten"]


def test_a_null_within_a_list_names_no_flag_region_or_restriction():
    items = catalogue([
        {"item_id": "wine", "flags": [None, "alcohol"], "regions": [None, "north"]},
        {"item_id": "milk", "flags": [None], "regions": [None]},
    ])  # fmt: skip
    persons = people([{"person_id": "p", "restrictions": [None, "alcohol"], "region": "north"}])
    eligibility, out = judged(items, persons)
    assert allowed_mask(eligibility, "north").tolist() == [True, False]
    assert allowed_mask(eligibility, "north", ["alcohol"]).tolist() == [False, False]
    assert filters.unmatched_restrictions(items, persons) == []
    why = {row["reason"] for row in out.to_pylist() if row["item_id"] == "milk"}
    assert "sold only in no region at all, not in north" in why


def test_a_restriction_of_another_night_is_refused_rather_than_ignored():
    eligibility, _ = judged(catalogue(NINE), people([]))
    with pytest.raises(Fault, match="no row for restriction 'alcohol'"):
        allowed_mask(eligibility, None, ["alcohol"])


def test_an_empty_catalogue_gives_empty_masks():
    eligibility, out = judged(catalogue([]), people([]))
    assert allowed_mask(eligibility, None).shape == (0,)
    assert out.num_rows == 0


# --- the step --------------------------------------------------------------------------------
def test_the_step_stages_its_three_tables(night):
    items = catalogue([{"item_id": "wine", "flags": ["alcohol"]}, {"item_id": "milk"}])
    persons = people([{"person_id": "account:1", "region": "n", "restrictions": ["alcohol"]}])
    at = datetime(2017, 11, 1, tzinfo=UTC)
    event = {
        "event_id": "e", "person_id": "account:1", "item_id": "milk", "event_type": "reject",
        "event_time": at, "received_time": at, "session": "s", "basket": "b", "quantity": 1.0,
        "event_date": at.date(), "resolved_by": "key", "key_type": "account", "key": "1",
    }  # fmt: skip
    events = pa.Table.from_pylist([event], TABLES["history"].schema)
    for name, table in (("items", items), ("persons", persons), ("history", events)):
        made = night(TABLES[name].step)
        made.write(name, table)
        io.write_json(made.staged / "manifest.json", {})
        made.lake.publish(made.step, made.as_of, "first")
    made = night("filters")
    filters.run(made, Params())
    staged = {name: io.read_arrow(made.staged / name) for name in ("eligibility", "blocked_pairs")}
    assert [(r["kind"], r["value"]) for r in staged["eligibility"].to_pylist()] == [
        ("availability", "all"), ("region", ""), ("region", "n"), ("restriction", "alcohol"),
        ("flag", "alcohol"),
    ]  # fmt: skip
    assert staged["blocked_pairs"].to_pylist()[0]["reason"] == "rejected"
    assert io.count_rows(made.staged / "ineligible_items") == 1


def test_a_night_blocks_what_the_release_that_it_replaces_knows_its_people_to_have_refused(night):
    def rows(name: str, *found: dict) -> pa.Table:
        return pa.Table.from_pylist(list(found), TABLES[name].schema)

    def pair(person: str, item: str, reason: str, since: datetime, until: datetime | None = None):
        return {"person_id": person, "item_id": item, "reason": reason, "since": since,
                "until": until}  # fmt: skip

    def key(name: str, person: str) -> dict:
        return dict.fromkeys(("household_id", "component"), "h") | {
            "key_type": "account", "key": name, "person_id": person}  # fmt: skip

    def did(person: str, item: str, kind: str, at: datetime) -> dict:
        return {"event_id": f"{person} {item}", "person_id": person, "item_id": item,
                "event_type": kind, "event_time": at, "received_time": at, "session": "s",
                "basket": "b", "quantity": 1.0, "event_date": at.date(), "resolved_by": "key",
                "key_type": "account", "key": person}  # fmt: skip

    early, late, end = (AS_OF + timedelta(hours=hours) for hours in (-1, 1, 99))
    names = ("milk", "wine", "salt", "soap", "tea")
    refuses = {"person_id": "eve", "personalised": False}
    persons = people([{"person_id": "ann"}, {"person_id": "bob"}, refuses])
    for name, table in {
        "identities": rows("identities", key("1", "ann"), key("2", "ann"), key("3", "bob"),
                           key("5", "eve")),
        "items": catalogue([{"item_id": item} for item in names]),
        "history": rows("history", did("ann", "wine", "purchase", early),
                        did("bob", "milk", "purchase", early - timedelta(days=9)),
                        did("ann", "tea", "view", late)),
    }.items():  # fmt: skip
        made = night(TABLES[name].step)
        made.write(name, table)
        if name == "identities":
            made.write("persons", persons)
        io.write_json(made.staged / "manifest.json", {})
        made.lake.publish(made.step, made.as_of, "first")
    made = night("filters")
    made.write("blocked_pairs", rows("blocked_pairs", pair("ann", "salt", "returned", early)))
    ahead = Release(made.lake.root / "ahead", {"as_of": (AS_OF + timedelta(hours=2)).isoformat()})
    # There the keys 1 and 2 are two people's, and one of them is new.
    io.write_arrow(ahead.path("identities"), rows(
        "identities", key("1", "one"), key("2", "two"), key("3", "bob"), key("4", "new"),
        key("5", "eve"),
    ))  # fmt: skip
    io.write_arrow(ahead.path("filters/blocked_pairs"), rows(
        "blocked_pairs",
        pair("one", "milk", "rejected", early), pair("two", "milk", "just_bought", late, end),
        pair("two", "wine", "just_bought", early, end),
        pair("one", "salt", "rejected", late), pair("one", "brand-new", "rejected", late),
        # Bought before midnight, and told after it.
        pair("bob", "milk", "just_bought", early, end),
        pair("bob", "soap", "just_bought", late, end), pair("new", "milk", "rejected", late),
        pair("eve", "tea", "rejected", late),
        # A part went back before the moment that the night knows, and was told later.
        pair("one", "wine", "returned", early),
        pair("bob", "tea", "rejected", late + timedelta(hours=5)),
    ))  # fmt: skip
    made.add("blocked_pairs", 1, filters.blocked_since(made, ahead))
    found = io.read_arrow(made.staged / "blocked_pairs").to_pylist()
    assert sorted(found, key=lambda row: (row["person_id"], row["item_id"])) == [
        pair("ann", "milk", "blocked_since", late),
        pair("ann", "salt", "returned", early),
        pair("ann", "wine", "blocked_since", early),
        pair("bob", "milk", "blocked_since", early, end),
        pair("bob", "soap", "blocked_since", late, end),
    ]


def test_parameters_out_of_range_are_named():
    faults = params.faults("filters", Params, {"repurchase_quantile": 1.5})
    assert faults == ["filters: repurchase_quantile must be in [0, 1)"]
