"""The splitting source: other keys, the same events; truth and links that fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from jobs.errors import Fault
from jobs.sources import contract, source
from tests import small_shop

KEY = ["key_type", "key"]
SAME = [column.name for column in contract.CONTRACT["events"] if column.name not in KEY]


def events_of(folder) -> pa.Table:
    return ds.dataset(folder / "events", format="parquet").to_table()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    small_shop.write(folder)
    return folder


@pytest.fixture(scope="module")
def parts(shop, tmp_path_factory) -> source.Source:
    return source.prepare(f"split:{shop},seed=3,shared=0.1", tmp_path_factory.mktemp("lake"))


def check_split(whole, folder) -> pd.DataFrame:
    """What holds of every split; returns both sides' events, the whole's key as ``account``."""
    before, after = events_of(whole), events_of(folder)
    for name in SAME:
        if name in before.schema.names:
            left, right = before[name], after[name]
            assert left.cast(right.type).equals(right), name
    rows = after.to_pandas()
    rows["row"] = np.arange(len(rows))
    old = before.select(KEY).to_pandas()
    rows["account_type"], rows["account"] = old["key_type"], old["key"]
    kept = rows["account_type"] != "account"
    assert (rows["key"][kept].fillna("") == rows["account"][kept].fillna("")).all()
    mine = rows[~kept & rows["account"].notna()]
    assert (mine.groupby(["account", "session_id"])["key"].nunique() == 1).all()
    holders = pd.read_parquet(folder / "truth" / "keys").merge(
        pd.read_parquet(folder / "truth" / "people"), on="person"
    )
    both = mine.merge(holders, on=KEY, suffixes=("", "_true"))
    both = both[
        (both["account"] == both["account_true"])
        & ~(both["event_time"] < both["starts"]) & ~(both["event_time"] >= both["ends"])
    ]  # fmt: skip
    # A basket that runs over midnight stays under its cookie, whose time may be over.
    assert both["row"].nunique() > 0.999 * len(mine)
    return mine


def test_events_are_the_same_but_for_their_keys(shop, parts):
    contract.check(parts.folder)
    mine = check_split(shop, parts.folder)
    assert mine["value"].sum() > 0
    share = mine["key_type"].value_counts(normalize=True)
    assert set(share.index) == {"account", "cookie", "device", "loyalty_card"}
    assert 0.3 < share["account"] < 0.65


def test_other_tables_are_copied_and_the_sources_own_links_kept(shop, parts):
    for name in ("items", "people", "editorial"):
        before = ds.dataset(shop / name, format="parquet").to_table()
        assert ds.dataset(parts.folder / name, format="parquet").to_table().equals(before)
    told = ds.dataset(parts.folder / "identity_links", format="parquet").to_table().num_rows
    own = small_shop.read_table(shop, "identity_links").num_rows
    assert told == own + pq.read_table(parts.folder / "truth" / "links").num_rows
    assert parts.notes["rows"]["identity_links"] == told - own


def test_the_same_settings_give_the_same_digest_and_others_another(shop, tmp_path):
    named = [
        source.prepare(f"split:{shop}{settings}", tmp_path).folder
        for settings in ("", ",seed=7", ",seed=8", ",shared=0.5")
    ]
    assert named[0] == named[1]
    assert len(set(named)) == 3
    assert contract.check(named[0])[0].digest != contract.check(named[2])[0].digest


def test_a_changed_source_is_split_again(tmp_path):
    small_shop.write(tmp_path / "own", people=30)
    first = source.prepare(f"split:{tmp_path / 'own'}", tmp_path / "lake")
    small_shop.write(tmp_path / "own", people=30, seed=8)
    assert source.prepare(f"split:{tmp_path / 'own'}", tmp_path / "lake").folder != first.folder


def test_a_named_source_is_converted_once_beside_the_split(tmp_path):
    made = source.prepare("split:simulated:events=2000,people=50,items=60", tmp_path)
    whole = source.prepare("simulated:events=2000,people=50,items=60", tmp_path)
    assert len(list((tmp_path / "simulated").iterdir())) == 1
    check_split(whole.folder, made.folder)
    other = source.prepare("split:simulated:events=2000,people=50,items=50", tmp_path)
    assert other.folder != made.folder


def test_events_without_sessions_are_split_by_the_day(tmp_path):
    small_shop.write(tmp_path / "own", people=40)
    rows = small_shop.read_table(tmp_path / "own", "events").drop_columns(["session_id", "region"])
    rows = rows.set_column(2, "event_time", rows["event_time"].cast(pa.timestamp("ns")))
    small_shop.write_table(tmp_path / "own", "events", rows)
    made = source.prepare(f"split:{tmp_path / 'own'}", tmp_path / "lake")
    after = events_of(made.folder).to_pandas()
    day = after["event_time"].dt.date
    account = rows["key"].to_pandas()
    assert (after["key"].groupby([account[account.notna()], day]).nunique() == 1).all()


def test_nothing_apart_leaves_every_key_as_it_is(shop, tmp_path):
    made = source.prepare(f"split:{shop},apart=0", tmp_path)
    assert (
        events_of(made.folder)
        .select(KEY)
        .equals(events_of(shop).select(KEY).cast(events_of(made.folder).select(KEY).schema))
    )


@pytest.mark.parametrize(("name", "complaint"), [
    ("split", "needs another source"), ("split:", "needs another source"),
    ("split:split:completejourney", "needs another source"),
    ("split:/nowhere", "neither a folder"), ("split:completejorney", "neither a folder"),
    ("split:completejourney,seed=x", "no int"), ("split:completejourney,shared=2", "shared must"),
])  # fmt: skip
def test_what_cannot_be_split_is_a_clear_fault(name, complaint, tmp_path):
    with pytest.raises(Fault, match=complaint):
        source.prepare(name, tmp_path)


def test_a_folder_without_accounts_is_refused(tmp_path):
    small_shop.write(tmp_path / "own", people=30)
    rows = small_shop.read_table(tmp_path / "own", "events")
    rows = rows.set_column(4, "key_type", pa.array(["cookie"] * len(rows)))
    small_shop.write_table(tmp_path / "own", "events", rows)
    with pytest.raises(Fault, match="no event under a key of type account"):
        source.prepare(f"split:{tmp_path / 'own'}", tmp_path / "lake")


def test_complete_journey_is_split_whole(tmp_path):
    made = source.prepare("split:completejourney", tmp_path)
    whole = source.prepare("completejourney", tmp_path)
    mine = check_split(whole.folder, made.folder)
    assert mine["account"].nunique() == 2469
    assert mine["key"].nunique() > 10 * 2469
    told = {fact.table: fact.rows for fact in contract.check(made.folder)}
    before = {fact.table: fact.rows for fact in contract.check(whole.folder)}
    assert told.pop("identity_links") > 15_000
    before.pop("identity_links")
    assert told == before
