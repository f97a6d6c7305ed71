import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io
from jobs.errors import Fault
from jobs.ordering import item_lists
from jobs.retrieval import matrix
from jobs.tables import TABLES
from tests.retrieval.conftest import AS_OF, catalogue, crowds, publish

__all__ = ["publish"]  # the fixture
PARAMS = item_lists.Params(search=10)
SURFACES = {"recommendations": {"surfaces": {"similar": {"length": 5}, "cart": {"length": 3}}}}


def bans(*rows: dict) -> pa.Table:
    """Bans in force, as the table ``rules_in_force``."""
    schema = TABLES["rules_in_force"].schema
    whole = {"kind": "ban", "reason": "why", "outcome": "in force", "items": 1, "unjudged": 0}
    return pa.Table.from_pylist([{**whole, **row} for row in rows], schema)


def publish_a_shop(publish, banned: pa.Table | None = None, **columns: list) -> pa.Table:
    """40 items of 4 crowds and 4 that nobody chose; content says the same as the crowds."""
    ids = [f"i{i:03d}" for i in range(44)]
    vectors = np.eye(4, dtype=np.float32)[np.arange(44) % 4]
    vectors += np.random.default_rng(0).normal(0, 0.05, vectors.shape).astype(np.float32)
    items = catalogue(ids, **columns)
    banned = bans() if banned is None else banned
    publish("catalogue", items=items, rules_in_force=banned)
    publish("interactions", interactions=crowds())
    publish("sessions", history=baskets())
    publish("content_embeddings", content_vectors=table("item_id", ids, vectors))
    publish("embeddings", item_factors=table("item_id", ids[:40], vectors[:40]))
    return items


def table(key: str, ids: list[str], vectors: np.ndarray) -> pa.Table:
    return pa.table({key: ids, "vector": matrix.vector_column(vectors)})


def baskets() -> pa.Table:
    """Twenty baskets with i000 and i005, eight of them with i010 too; twenty with i020 alone."""
    held = [["i000", "i005", "i010"]] * 8 + [["i000", "i005"]] * 12 + [["i020"]] * 20
    rows = [
        {"event_id": f"{number} {item}", "person_id": "p", "basket": f"b{number}", "item_id": item,
         "event_type": "purchase", "event_time": AS_OF, "received_time": AS_OF, "session": "s",
         "quantity": 1.0, "event_date": AS_OF.date(), "resolved_by": "key",
         "key_type": "account", "key": "p"}
        for number, items in enumerate(held)
        for item in items
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, TABLES["history"].schema)


def lists(
    publish, for_nobody: tuple[str, ...] = (), surface: str = "similar"
) -> dict[str, list[str]]:
    schema = TABLES["ineligible_items"].schema
    rows = [
        {"item_id": item, "kind": "availability", "value": "all", "reason": "sold out"}
        for item in for_nobody
    ] + [{"item_id": "i001", "kind": "region", "value": "x", "reason": "elsewhere"}]
    publish("filters", ineligible_items=pa.Table.from_pylist(rows, schema=schema))
    night = publish("item_lists")
    night.overrides = SURFACES
    item_lists.run(night, PARAMS)
    found: dict[str, list[str]] = {}
    for row in io.read_arrow(night.staged / "item_lists").to_pylist():
        if row["surface"] == surface:
            found.setdefault(row["item_id"], []).append(row["listed_item_id"])
            assert row["rank"] == len(found[row["item_id"]])
    return found


def kind(item: str) -> int:
    return int(item[1:]) % 4


def test_every_item_gets_a_full_list_of_its_kind_even_a_new_one(publish) -> None:
    publish_a_shop(publish)
    found = lists(publish)
    assert len(found) == 44
    assert {len(others) for others in found.values()} == {5}
    for item, others in found.items():
        assert item not in others
        assert len(set(others)) == 5
        assert {kind(other) for other in others} == {kind(item)}


def test_an_item_for_nobody_is_in_no_list_and_has_none(publish) -> None:
    publish_a_shop(publish)
    found = lists(publish, for_nobody=("i004", "i008"))
    shown = {other for others in found.values() for other in others}
    assert not {"i004", "i008"} & (shown | set(found))
    assert len(found["i000"]) == 5
    assert "i001" in shown


def test_alcohol_stands_beside_alcohol_alone(publish) -> None:
    flags = [["Alcohol "] if i % 8 == 0 else [] for i in range(44)]
    publish_a_shop(publish, flags=flags)
    found = lists(publish)
    alcohol = {f"i{i:03d}" for i in range(44) if i % 8 == 0}
    assert all(not alcohol & set(others) for item, others in found.items() if item not in alcohol)
    assert alcohol & {other for item in alcohol for other in found[item]}
    assert len(found["i004"]) == 5


def test_an_item_of_one_region_is_not_beside_one_sold_everywhere(publish) -> None:
    regions = [["north"] if i < 8 else None for i in range(44)]
    publish_a_shop(publish, regions=regions)
    found = lists(publish)
    northern = {f"i{i:03d}" for i in range(8)}
    assert all(not northern & set(others) for item, others in found.items() if item not in northern)
    assert northern & {other for item in northern for other in found[item]}


def test_the_lists_are_the_same_again(publish) -> None:
    publish_a_shop(publish)
    assert lists(publish) == lists(publish)


def test_an_item_without_content_vector_is_a_fault(publish) -> None:
    publish_a_shop(publish)
    items = catalogue([f"i{i:03d}" for i in range(45)])
    publish("catalogue", items=items, rules_in_force=bans())
    with pytest.raises(Fault, match="1 items have no content vector"):
        lists(publish)


def test_beside_a_basket_stands_what_shares_baskets_best_first(publish) -> None:
    publish_a_shop(publish)
    assert lists(publish, surface="cart") == {
        "i000": ["i005", "i010"], "i005": ["i000", "i010"], "i010": ["i000", "i005"],
    }  # fmt: skip
    assert lists(publish, for_nobody=("i005",), surface="cart") == {
        "i000": ["i010"], "i010": ["i000"],
    }  # fmt: skip


def test_alcohol_stands_in_no_list_of_the_cart_beside_what_is_none(publish) -> None:
    publish_a_shop(publish, flags=[["alcohol"] if i == 5 else [] for i in range(44)])
    assert lists(publish, surface="cart") == {
        "i000": ["i010"], "i005": ["i000", "i010"], "i010": ["i000"],
    }  # fmt: skip


def test_a_ban_of_the_surface_holds_there_and_not_elsewhere(publish) -> None:
    publish_a_shop(publish, bans({"rule_id": "a", "scope": "item:i010", "surface": "cart"}))
    assert "i010" in lists(publish)
    assert lists(publish, surface="cart") == {"i000": ["i005"], "i005": ["i000"]}


def test_a_ban_everywhere_is_in_no_list_and_one_of_a_surface_or_region_is(publish) -> None:
    publish_a_shop(
        publish,
        bans(
            {"rule_id": "a", "scope": "item:i004"},
            {"rule_id": "b", "scope": "item:i008", "surface": "homepage"},
            {"rule_id": "c", "scope": "item:i012", "region": "north"},
        ),
    )
    found = lists(publish)
    assert "i004" not in found
    listed = {item for others in found.values() for item in others}
    assert "i004" not in listed
    assert {"i008", "i012"} <= set(found)


def test_a_margin_floor_holds_in_lists_of_items_as_a_ban_does(publish) -> None:
    margins = [0.1 if i == 10 else None for i in range(44)]
    floor = {"rule_id": "a", "kind": "margin_floor", "scope": "*", "strength": 0.2}
    publish_a_shop(publish, bans({**floor, "surface": "cart"}), margin=margins)
    assert lists(publish, surface="cart") == {"i000": ["i005"], "i005": ["i000"]}
    assert "i010" in lists(publish)
    publish_a_shop(publish, bans({**floor, "region": "north"}), margin=margins)
    assert "i010" in lists(publish, surface="cart")


def test_lists_of_the_items_that_are_asked_for_are_those_that_all_would_have(publish) -> None:
    publish_a_shop(publish)
    whole = {surface: lists(publish, surface=surface) for surface in ("similar", "cart")}
    night = publish("item_lists")
    night.overrides = SURFACES
    for name, surface, here in item_lists.surfaces_of(night):
        asked = here.only(pa.array(["i000", "i010", "i043"]))
        found: dict[str, list[str]] = {}
        for row in item_lists.made(night, PARAMS, name, surface, asked).to_pylist():
            found.setdefault(row["item_id"], []).append(row["listed_item_id"])
        assert found
        assert found == {item: whole[name][item] for item in asked_of(found, whole[name])}


def asked_of(found: dict[str, list[str]], whole: dict[str, list[str]]) -> set[str]:
    """The items that were asked for and have a list."""
    assert set(found) <= {"i000", "i010", "i043"}
    return {"i000", "i010", "i043"} & set(whole)


def test_a_list_that_stands_loses_what_may_not_stand_there_and_closes_up(publish) -> None:
    publish_a_shop(publish)
    night = publish("item_lists")
    then = lists(publish)
    rows = io.read_arrow(night.staged / "item_lists").filter(pc.field("surface") == "similar")
    gone = then["i000"][1]
    publish("filters", ineligible_items=pa.Table.from_pylist(
        [{"item_id": gone, "kind": "availability", "value": "all", "reason": "sold out"}],
        TABLES["ineligible_items"].schema))  # fmt: skip
    again = publish("item_lists")
    again.overrides = SURFACES
    here = next(here for name, _, here in item_lists.surfaces_of(again) if name == "similar")
    now = item_lists.standing(rows, here, pa.array(["i043"]))
    mine = now.filter(pc.field("item_id") == "i000").sort_by("rank")
    assert mine["listed_item_id"].to_pylist() == [one for one in then["i000"] if one != gone]
    assert mine["rank"].to_pylist() == [1, 2, 3, 4]
    assert not {gone, "i043"} & set(now["item_id"].to_pylist())


def test_an_item_that_may_be_served_again_or_whose_list_emptied_is_asked_for_again(publish) -> None:
    publish_a_shop(publish, bans({"rule_id": "a", "scope": "item:i003", "surface": "similar"}))
    night = publish("item_lists")
    then = lists(publish)
    assert "i003" not in then
    rows = io.read_arrow(night.staged / "item_lists").filter(pc.field("surface") == "similar")
    # The ban ends, and all that stood beside i000 is sold out.
    publish_a_shop(publish)
    publish("filters", ineligible_items=pa.Table.from_pylist(
        [{"item_id": one, "kind": "availability", "value": "all", "reason": "sold out"}
         for one in then["i000"]], TABLES["ineligible_items"].schema))  # fmt: skip
    again = publish("item_lists")
    again.overrides = SURFACES
    here = next(here for name, _, here in item_lists.surfaces_of(again) if name == "similar")
    due = pa.array(["i042", then["i000"][0]])
    stands = item_lists.standing(rows, here, due)
    asked = item_lists.wanting(stands, here).to_pylist()
    assert {"i000", "i003", "i042"} <= set(asked)
    assert not set(then["i000"]) & set(asked), "what is sold out has no list"
    assert not set(asked) & set(stands["item_id"].to_pylist())
    assert len(asked) < 10
