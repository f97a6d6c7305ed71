"""Days on which lists are served: who asks, what the log says, and answers by the truth."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.errors import Fault
from jobs.sources import contract
from tests.tools import served_days
from tools import code_digest, world, world_days
from tools.world import World


def test_nights_lie_a_week_apart_and_the_last_is_of_the_end():
    nights = World(days=21).nights()
    assert nights == [date(2024, 2, 9), date(2024, 2, 16), date(2024, 2, 23), date(2024, 3, 1)]


def test_a_world_is_named_by_its_settings():
    assert World().digest == World().digest
    assert World(seed=1).digest != World().digest
    assert World(shop="events=1000").digest != World().digest


def test_a_world_is_chosen_in_a_line():
    assert world.parse("") == World()
    assert world.parse("days=42,every=14") == World(days=42, every=14)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("day=4,seed=-1", "day is no setting; seed is '-1', which is no whole number above 0"),
        ("days", "days is '', which"),
        ("days=40", "40 days are no multiple of 7"),
        ("days=126", "the shop is open for 120 days"),
        ("page=13", "a page of 13 places is longer than a list of 12"),
    ],
)
def test_a_world_that_cannot_be_is_named(text, sentence):
    with pytest.raises(Fault, match=sentence):
        world.parse(text)


def test_a_world_of_other_features_is_another_and_one_that_is_diagnosed_otherwise_is_not(
    tmp_path, monkeypatch
):
    for name in ("jobs/scoring/features", "jobs/diagnosis/replay/replay", "tools/world",
                 "tools/world_days"):  # fmt: skip
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('VERSION = "behaviour-1"\n')
    of = code_digest.of
    monkeypatch.setattr(code_digest, "of", lambda parts, without: of(parts, without, root=tmp_path))
    before = World().digest
    (tmp_path / "jobs/diagnosis/replay/replay.py").write_text("LIMIT = 1\n")
    assert World().digest == before
    (tmp_path / "jobs/scoring/features.py").write_text('VERSION = "behaviour-2"\n')
    assert World().digest != before


def test_each_online_session_asks_once_just_before_its_first_event():
    made = served_days.tables()
    own = made.shop.filter(pc.and_(pc.not_equal(made.shop["channel"], "store"),
                                   pc.not_equal(made.shop["event_type"], "return")))  # fmt: skip
    first = own.group_by("session_id").aggregate([("event_time", "min")])
    since = first.filter(pc.greater_equal(
        first["event_time_min"], pa.scalar(datetime(2024, 2, 16, 0, 1, tzinfo=UTC))))  # fmt: skip
    asked = made.truth.group_by("session_id").aggregate([("request_time", "min")])
    both = since.join(asked, "session_id", join_type="left outer")
    assert both["request_time_min"].null_count == 0
    waited = pc.subtract(both["event_time_min"], both["request_time_min"]).cast(pa.int64())
    assert pc.unique(waited).to_pylist() == [10_000_000]


def test_the_log_is_the_contracts_and_the_page_shows_its_first_places():
    log = served_days.tables().log
    assert log.schema.equals(contract.schema("recommendation_log"))
    place = log["position"].to_numpy()
    shown = log["shown_position"].to_pylist()
    assert shown == [int(p) if p <= served_days.PAGE else None for p in place]
    assert log["latency_ms"].null_count == 0
    assert set(log["arm"].to_pylist()) == {"old", "new"}


def test_only_what_was_shown_is_answered_and_as_often_as_the_truth_says():
    truth = served_days.tables().truth
    assert truth["position"].to_numpy().max() == served_days.PAGE
    rng = np.random.default_rng(2)
    total = np.zeros(2)
    for _ in range(40):
        luck = world_days.drawn(rng, truth.num_rows)
        for name in world_days.LUCK:
            truth = truth.set_column(truth.schema.get_field_index(name), name, pa.array(luck[name]))
        total += [done.sum() for done in world_days.outcomes(truth)]
    click = truth["look"].to_numpy() * truth["attraction"].to_numpy()
    expected = click.sum(), (click * truth["conversion"].to_numpy()).sum()
    assert total / 40 == pytest.approx(expected, rel=0.05)


def test_answers_are_events_of_the_contract_after_their_requests():
    made = served_days.tables()
    rows = served_days.events(made)
    assert rows.schema.equals(contract.schema("events"))
    assert len(set(rows["event_id"].to_pylist())) == rows.num_rows
    clicked, bought = world_days.outcomes(made.truth)
    kinds = pc.value_counts(rows["event_type"]).to_pylist()
    counts = {one["values"]: one["counts"] for one in kinds}
    assert counts["purchase"] == counts["add_to_cart"] <= bought.sum()
    assert counts["click"] <= clicked.sum()
    named = rows.filter(pc.is_valid(rows["request_id"]))
    asked = dict(zip(made.truth["request_id"].to_pylist(), made.truth["request_time"].to_pylist(),
                     strict=True))  # fmt: skip
    for row in named.to_pylist():
        assert row["event_time"] > asked[row["request_id"]]
        assert row["received_time"] >= row["event_time"]
        assert (row["value"] is not None) == (row["event_type"] == "purchase")


def test_what_comes_back_is_handed_in_by_the_account_for_its_whole_price():
    made = served_days.tables()
    all_back = made.with_columns("truth", returned=np.ones(made.truth.num_rows))
    rows = served_days.events(all_back)
    back = rows.filter(pc.equal(rows["event_type"], "return"))
    assert back.num_rows > 0
    assert set(back["key_type"].to_pylist()) == {"account"}
    assert back["request_id"].null_count == back.num_rows
    assert back["value"].null_count == 0


def test_the_same_seed_gives_the_same_rows():
    first = served_days.tables()
    served_days.tables.cache_clear()
    again = served_days.tables()
    assert again.log.equals(first.log)
    assert again.truth.equals(first.truth)
    assert served_days.events(again).equals(served_days.events(first))


def test_the_metrics_file_has_no_fault(tmp_path):
    import yaml

    from jobs.diagnosis import definitions

    world.write_metrics(World(), tmp_path)
    given = yaml.safe_load((tmp_path / "metrics.yaml").read_text())
    assert definitions.check(given) == {}
    assert definitions.build(given).experiments[0].arms == {"old": 0.5, "new": 0.5}
