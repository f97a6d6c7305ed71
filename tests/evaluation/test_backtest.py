"""Nights of a small shop, judged by what came after; and a future that none of them may see.

Two shops are equal but for what was planted in one of them after the cut: an item that everybody
then buys day after day, and earlier purchases of it that arrive only after the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io, lock, spark
from jobs.evaluation import backtest, nights, snapshot, summary
from jobs.evaluation.backtest import Judged, Params
from jobs.evaluation.snapshot import Snapshot
from jobs.io import Lake
from jobs.spark import engine_file
from tests import small_shop
from tools import backtest as tool
from tools import backtest_night

CUT, HORIZON = small_shop.AS_OF, timedelta(days=28)
UNTIL = CUT + HORIZON
PARAMS = Params(draws=100)


@dataclass(frozen=True)
class Shop:
    """A shop whose night was made; ``planted`` is the item that shines after the cut."""

    asked: tool.Asked
    lake: Lake
    planted: str
    seen: Snapshot
    judged: Judged


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory, engine: spark.Engine) -> dict[str, Shop]:
    """``plain`` and ``planted``; of the latter the whole command ran."""
    home = tmp_path_factory.mktemp("backtest")
    item = ""
    for name in ("plain", "planted"):
        small_shop.write(home / name, people=120, items=120, days=80, days_after=30, dirt=False)
        item = rarely_bought(home / name)
    small_shop.write_table(home / "planted", "events", with_future(home / "planted", item))

    def make(lake: Lake, made: nights.Made, master: str) -> int:
        """The night on the tests' own engine."""
        engine.save(engine_file(lake))
        lock.acquire(lake, backtest_night.RUN_ID)
        backtest_night.make(str(lake.root), made.cut, made.until, made.source)
        lock.release(lake, backtest_night.RUN_ID)
        io.write_json(lake.root / "night.json", made.__dict__)
        return 0

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "make", make)
        for name in ("plain", "planted"):
            asked = tool.Asked(str(home / name), (CUT,), home / "lake", {}, PARAMS, "")
            assert tool.run(asked) == 0
            lake = nights.lake_of(asked.root, asked.source, CUT)
            seen = snapshot.take(lake, CUT)
            found[name] = Shop(asked, lake, item, seen, backtest.judge(seen, PARAMS))
    return found


def rarely_bought(folder: Path) -> str:
    """The item bought least before the cut among those that anybody may get."""
    items = small_shop.read_table(folder, "items").to_pylist()
    bought = small_shop.read_table(folder, "events").to_pandas()
    before = bought[(bought["event_type"] == "purchase") & (bought["event_time"] < CUT)]
    times = before.groupby("item_id").size()
    sold = [i["item_id"] for i in items if i["available"] and not i["regions"] and not i["flags"]]
    return min((item for item in sold if item in times.index), key=lambda item: times[item])


def with_future(folder: Path, item: str) -> pa.Table:
    """The shop's events, and the planted ones behind them."""
    events = small_shop.read_table(folder, "events")
    rows = []
    for person in small_shop.read_table(folder, "people").to_pylist():
        for days in (-6, -3, *range(1, 25, 3)):
            at = CUT + timedelta(days=days, hours=1)
            rows.append({
                "event_id": f"future-{person['key']}-{days}", "event_time": at,
                "received_time": max(at, CUT) + timedelta(minutes=1), "key_type": "account",
                "key": person["key"], "event_type": "purchase", "item_id": item, "quantity": 1.0,
                "value": 5.0, "channel": "store", "region": person["region"],
            })  # fmt: skip
    return pa.concat_tables([events, pa.Table.from_pylist(rows, small_shop.EVENTS)])


def published(shop: Shop) -> pa.Table:
    columns = ["surface", "person_id", "rank", "item_id", "score"]
    return shop.seen.table("recommendations", columns).sort_by(
        [("surface", "ascending"), ("person_id", "ascending"), ("rank", "ascending")]
    )


def test_the_planted_item_would_shine_if_it_were_seen(shops):
    shop = shops["planted"]
    history = snapshot.read(shop.lake, UNTIL, "history", ["item_id", "event_type", "event_time"])
    bought = history.filter(pc.equal(history["event_type"], "purchase"))
    counts = bought.group_by("item_id").aggregate([([], "count_all")])
    best = counts.sort_by([("count_all", "descending")])["item_id"][0].as_py()
    assert best == shop.planted
    item = pc.index(shop.seen.items, shop.planted).as_py()
    wanted = shop.seen.wanted
    # All but those without consent, of whom there is no history.
    assert (wanted.item == item).sum() == len(shop.judged.people) >= 100


def test_no_published_list_sees_what_comes_after_the_cut(shops):
    with_it, without = published(shops["planted"]), published(shops["plain"])
    assert with_it.num_rows > 1_000
    assert with_it.equals(without)


def test_no_simple_method_and_no_source_sees_it_either(shops):
    with_it, without = shops["planted"].judged, shops["plain"].judged
    assert with_it.facts["tuned"] == without.facts["tuned"]
    assert with_it.facts["tuned"]["people"] > 50, "settings were chosen, not taken by default"
    ids = without.people.to_pylist()
    place = [with_it.people.to_pylist().index(person) for person in ids]
    assert with_it.lists.keys() == without.lists.keys()
    assert {role for _, role, _ in with_it.lists} == {"published", "baseline", "source"}
    for name, codes in without.lists.items():
        assert (with_it.lists[name][place] == codes).all(), name
        assert (codes >= 0).any() or name[2], f"{name} lists nothing"
    assert shops["planted"].seen.items.equals(shops["plain"].seen.items)


def test_all_methods_fill_their_lists_with_what_the_night_may_list(shops):
    seen, judged = shops["plain"].seen, shops["plain"].judged
    persons = seen.persons.to_pylist()
    flagged = set(
        pc.filter(
            seen.catalogue["item_id"], pc.equal(seen.catalogue["available"], False)
        ).to_pylist()
    )
    assert flagged
    names = {name for name, role, _ in judged.lists if role == "baseline"}
    assert names == {
        "popularity", "recent popularity", "personal frequency", "personal frequency, half-life",
        "item-kNN", "user-kNN", "ALS", "EASE", "TIFU-KNN",
    }  # fmt: skip
    drink = {
        row["item_id"] for row in small_shop.read_table(Path(shops["plain"].asked.source), "items")
        .to_pylist() if "alcohol" in row["flags"]
    }  # fmt: skip
    items = np.array(seen.items.to_pylist())
    for name in names:
        codes = judged.lists[name, "baseline", False]
        assert (codes >= 0).all(), f"{name} fills its lists"
        for person, listed in zip(persons, items[codes], strict=True):
            assert not flagged & set(listed)
            if person["restrictions"]:
                assert not drink & set(listed)


def test_a_new_only_list_holds_nothing_that_the_person_had_bought(shops):
    seen, judged = shops["plain"].seen, shops["plain"].judged
    bought = seen.purchases
    size = len(seen.items)
    known = set((bought.person * size + bought.item).tolist())
    for (name, _, new_only), codes in judged.lists.items():
        person, place = np.nonzero(codes >= 0)
        pairs = (seen.judged[person] * size + codes[person, place]).tolist()
        if new_only:
            assert not known & set(pairs), name
    assert known & set(
        (seen.judged[:, None] * size + judged.lists["homepage", "published", False])
        .ravel().tolist()
    )  # fmt: skip


def test_the_collaborative_source_and_the_nights_own_factors_agree(shops):
    """The source ranks by the same factors; both then leave out what may not be listed."""
    lists = shops["plain"].judged.lists
    ours, source = lists["ALS", "baseline", False], lists["collaborative", "source", False]
    listed = source >= 0
    assert listed.mean() > 0.9
    assert (ours[listed] == source[listed]).mean() > 0.99


def test_the_command_writes_tables_results_and_a_page(shops, capsys):
    asked = shops["planted"].asked
    folder = asked.root / "backtest" / io.folder_name(asked.source)
    facts = io.read_json(folder / "results.json")
    measured = io.read_arrow(folder / "measures")
    assert measured.schema.names == summary.MEASURES.schema.names
    assert set(measured["cut"].to_pylist()) == {"2024-03-01", "mean"}
    assert facts["people"] == len(shops["planted"].judged.people)
    numbers = measured.filter(pc.is_valid(measured["value"]))
    assert pc.all(pc.less_equal(numbers["low"], pc.add(numbers["value"], 1e-6))).as_py()
    assert pc.all(pc.greater_equal(numbers["high"], pc.subtract(numbers["value"], 1e-6))).as_py()
    page = (asked.root / "docs" / f"backtest-{folder.name}.html").read_text()
    assert page.count("<svg") == 5
    assert "<script" not in page
    assert f'href="backtest-{folder.name}.html"' in (asked.root / "docs/index.html").read_text()


def test_a_whole_night_of_the_same_is_taken_again_and_gives_the_same(shops, monkeypatch, capsys):
    def refuse(*_: object) -> int:
        raise AssertionError("the night was made again")

    asked = shops["planted"].asked
    folder = asked.root / "backtest" / io.folder_name(asked.source)
    before = io.read_arrow(folder / "measures")
    monkeypatch.setattr(tool, "make", refuse)
    assert tool.run(asked) == 0
    shown = capsys.readouterr().out
    assert "2024-03-01: the night that lies in" in shown
    assert "personal frequency" in shown
    assert io.read_arrow(folder / "measures").equals(before)
    changed = tool.Asked(
        asked.source, asked.cuts, asked.root, {"candidates": {"depth": 50}}, PARAMS, ""
    )
    with pytest.raises(AssertionError, match="made again"):
        tool.run(changed)


def test_a_night_that_fails_ends_the_command_with_its_code(shops, monkeypatch, capsys):
    monkeypatch.setattr(tool, "make", lambda *_: 3)
    asked = shops["plain"].asked
    other = tool.Asked(asked.source, asked.cuts, asked.root / "other", {}, PARAMS, "")
    assert tool.run(other) == 3
    assert "error: the night of 2024-03-01 stopped" in capsys.readouterr().err
