"""A day of refreshes beside the night after it: what is asked, judged and told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import io
from jobs.errors import Fault
from jobs.io import Lake
from jobs.release.releases import Release
from tools import decay

NIGHT = datetime(2024, 2, 10, tzinfo=UTC)
KEYS = pa.table(
    {
        "key_type": ["account", "cookie", "account", "account", "account"],
        "key": ["a", "a2", "b", "c", "new"],
        "person_id": ["account:a", "account:a", "account:b", "account:c", "account:new"],
    }
)


def release(folder: Path, lists: dict[str, str], surface: str = "homepage") -> Release:
    """A release whose lists are these letters in order."""
    rows = [
        {"surface": where, "person_id": person, "rank": rank, "item_id": item}
        for where in (surface, "email_digest")
        for person, items in lists.items()
        for rank, item in enumerate(items if where == surface else "xyz", 1)
    ]
    io.write_arrow(folder / "recommendations", pa.Table.from_pylist(rows))
    io.write_arrow(folder / "identities", KEYS)
    return Release(folder, {})


def done(*rows: tuple[str, str, str, bool]) -> pa.Table:
    names = ("key_type", "key", "item_id", "after")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def test_both_releases_are_judged_by_what_the_same_people_bought(tmp_path):
    before = release(tmp_path / "before", {"account:a": "pqr", "account:b": "qrs"})
    after = release(
        tmp_path / "after", {"account:a": "qpr", "account:b": "qrs", "account:new": "p"}
    )
    rows = decay.judged(
        before, after,
        done(
            ("account", "a", "p", True), ("cookie", "a2", "p", True), ("cookie", "a2", "r", True),
            ("account", "b", "s", True), ("account", "new", "p", True),
            ("account", "c", "p", True),  # who has a list in neither
            ("account", "stranger", "p", True), ("cookie", "a2", "q", False),
        ),
    )  # fmt: skip
    found = {(row["name"], row["person"]): row for row in rows.to_pylist()}
    assert set(found) == {
        (name, person) for name in (decay.REFRESHED, decay.REBUILT)
        for person in ("account:a", "account:b", "account:new")
    }  # fmt: skip
    first, second, third, fourth = 1 / np.log2(np.arange(2, 6))
    assert found["refreshed", "account:a"]["ndcg"] == pytest.approx(
        (first + third) / (first + second)
    )
    assert found["rebuilt", "account:a"]["ndcg"] == pytest.approx(
        (second + third) / (first + second)
    )
    assert found["refreshed", "account:b"]["ndcg"] == found["rebuilt", "account:b"]["ndcg"] == third
    assert fourth  # no list here has a fourth place
    # Who came after the refresh had no list until the night.
    assert found["refreshed", "account:new"]["ndcg"] == 0.0
    assert found["rebuilt", "account:new"]["ndcg"] == 1.0
    assert found["rebuilt", "account:a"]["recall"] == 1.0
    assert [found["rebuilt", person]["acted"] for person in ("account:a", "account:b")] == [
        True, False,
    ]  # fmt: skip


def source(lake: Lake, times: list[datetime]) -> None:
    """A published source whose only events are views before the night and purchases since."""
    folder = lake.root / "shop"
    io.write_arrow(
        folder / "events",
        pa.table(
            {
                "key_type": ["account"] * len(times), "key": ["a"] * len(times),
                "item_id": ["p"] * len(times),
                "event_type": ["purchase" if time >= NIGHT else "view" for time in times],
                "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            }
        ),
    )  # fmt: skip
    staged = lake.staged("source", NIGHT)
    staged.mkdir(parents=True)
    io.write_json(staged / "source.json", {"folder": str(folder)})
    io.write_json(staged / "manifest.json", {})
    lake.publish("source", NIGHT, "test")


def test_a_night_is_judged_by_the_week_after_it_and_the_day_before_says_who_was_there(tmp_path):
    lake = Lake(tmp_path).open()
    hours = [-30, -24, -1, 0, 24 * 7 - 1, 24 * 7]
    source(lake, [NIGHT + timedelta(hours=hour) for hour in hours])
    assert decay.purchases(lake, NIGHT)["after"].to_pylist() == [False, False, True, True]


def test_a_night_after_which_nobody_bought_judges_nothing(tmp_path):
    lake = Lake(tmp_path).open()
    source(lake, [NIGHT - timedelta(hours=1)])
    with pytest.raises(Fault, match="nobody bought anything in the 7 days from 2024-02-10 on"):
        decay.purchases(lake, NIGHT)


def chosen(root: Path, nights: int) -> decay.Asked:
    return decay.asked(
        {"SOURCE": "nowhere", "AS_OF": "2024-02-09", "NIGHTS": str(nights), "LAKE": str(root)}
    )


def kept(root: Path, night: datetime, refreshed: list[float], rebuilt: list[float]) -> None:
    parts = [
        pa.table(
            {"name": [name] * 2, "person": ["a", "b"], "acted": [True, False], "ndcg": values,
             "recall": values}
        )
        for name, values in ((decay.REFRESHED, refreshed), (decay.REBUILT, rebuilt))
    ]  # fmt: skip
    (root / "decay").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables(parts), root / "decay" / f"{io.label(night)}.parquet")


def test_what_is_judged_is_not_made_again_and_all_of_it_is_told(tmp_path, capsys):
    kept(tmp_path, NIGHT, [0.3, 0.5], [0.4, 0.5])
    kept(tmp_path, NIGHT + timedelta(days=1), [0.5, 0.5], [0.4, 0.5])
    # There is no such source: whatever had to be made would fail.
    assert decay.run(chosen(tmp_path, 2)) == 0
    told = capsys.readouterr().out
    assert "| all | 0.4500 | 0.4500 | +0.00% (+0.00% to +0.00%) |" in told
    assert "Of all people the loss is within half a point" in told
    assert (tmp_path / "decay" / "decay.svg").read_text().startswith("<svg")
    assert (tmp_path / "decay" / "report.md").read_text() == told.partition("curves:")[0]


def test_a_loss_beyond_half_a_point_is_told(tmp_path, capsys):
    kept(tmp_path, NIGHT, [0.38, 0.48], [0.4, 0.5])
    assert decay.run(chosen(tmp_path, 1)) == 0
    assert "Of all people the loss is beyond half a point" in capsys.readouterr().out


def test_a_night_that_cannot_be_made_stops_with_the_end_of_its_log(tmp_path, capsys):
    assert decay.run(chosen(tmp_path, 1)) == 1
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert f"error: 2024-02-09 stopped; see {tmp_path / 'decay' / '2024-02-09.log'}" in told


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"SOURCE": "retailrocket"}, "AS_OF: '' is not a date"),
        ({"AS_OF": "soon"}, "AS_OF: 'soon' is not a date"),
        ({"HOURS": "0,12"}, "HOURS=0,12"),
        ({"HOURS": "24"}, "HOURS=24"),
        ({"NIGHTS": "none"}, "NIGHTS=none"),
        ({"NIGHTS": "0"}, "NIGHTS=0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values, says):
    with pytest.raises(Fault, match=says):
        decay.asked(values)


def test_without_settings_it_is_thirty_nights_that_end_before_december():
    found = decay.asked({})
    assert (found.source, found.hours) == ("completejourney", (23,))
    ends = found.night(found.nights) + decay.HORIZON
    assert ends <= datetime(2017, 12, 1, tzinfo=UTC)
