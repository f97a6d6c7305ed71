"""A candidate is compared before it is promoted or rejected, and a reason stays on record."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import io
from jobs.__main__ import command
from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import release, releases
from jobs.release.reader import Reader
from tests.release import nights


@pytest.fixture
def other(lake: Lake, tmp_path: Path) -> Lake:
    """What serves in ``lake``, and a candidate of the same night in a lake of its own."""
    nights.whole(lake, nights.AS_OF, "live")
    made = Lake(tmp_path / "candidate").open()
    rows = nights.tables_of_night(nights.AS_OF)["recommendations"]
    kept = rows.filter(rows["rank"].to_numpy() != 1)
    ranks = pa.array(kept["rank"].to_numpy() - 1, kept.schema.field("rank").type)
    moved = kept.set_column(kept.schema.get_field_index("rank"), "rank", ranks)
    nights.publish(made, nights.AS_OF, "candidate", recommendations=moved)
    release.publish(nights.stage(made, nights.AS_OF, "candidate"))
    return made


def go(lake: Lake, other: Lake, *options: str) -> None:
    command(["shadow", f"--lake={lake.root}", str(other.root), *options])


def history(lake: Lake) -> dict:
    lines = (releases.root(lake) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1])


def test_a_candidate_is_compared_surface_by_surface(lake, other, capsys) -> None:
    go(lake, other)
    found = io.read_json(next((lake.root / "shadow").glob("*/comparison.json")))
    one = found["surfaces"][nights.SURFACE]
    assert 0 < one["rank_biased_overlap"] < 1
    assert 0 < one["overlap"] <= 1
    assert "insufficient evidence" in one["gain"]
    assert set(one["sources"]) == {"live", "candidate"}
    assert "decide: make shadow" in capsys.readouterr().out


def test_promoted_it_serves_and_the_reason_stays(lake, other) -> None:
    before = releases.current_id(lake)
    go(lake, other)
    go(lake, other, "--decision=promote", "--reason=the tail is richer")
    wanted = releases.current_id(other)
    assert releases.current_id(lake) == wanted != before
    assert Reader.open(lake.root).release_id == wanted
    line = history(lake)
    assert (line["what"], line["from"], line["to"]) == ("shadow promote", before, wanted)
    assert line["reason"] == "the tail is richer"
    assert line["by"]


def test_promoted_it_follows_what_served_though_a_kill_kept_that_from_being_told(
    lake, other, monkeypatch
) -> None:
    nights.publish(lake, nights.AS_OF, "again")
    night = nights.stage(lake, nights.AS_OF, "again")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(releases, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            release.publish(night)
    untold = releases.current_id(lake)
    go(lake, other)
    go(lake, other, "--decision=promote", "--reason=the tail is richer")
    told = [(one["what"], one["from"], one["to"]) for one in releases.history(lake)]
    assert told[-2:] == [
        ("publish", told[0][2], untold), ("shadow promote", untold, releases.current_id(other)),
    ]  # fmt: skip


def test_rejected_it_serves_nowhere_and_the_reason_stays(lake, other) -> None:
    before = releases.current_id(lake)
    go(lake, other)
    go(lake, other, "--decision=reject", "--reason=loses the heavy buyers")
    assert releases.current_id(lake) == before
    assert not (releases.root(lake) / str(releases.current_id(other))).exists()
    assert history(lake)["what"] == "shadow reject"


@pytest.mark.parametrize("reason", [[], ["--reason= "]])
def test_without_a_reason_nothing_is_decided(lake, other, reason) -> None:
    go(lake, other)
    before = releases.current_id(lake)
    with pytest.raises(Fault, match="give a REASON"):
        go(lake, other, "--decision=promote", *reason)
    assert releases.current_id(lake) == before


def test_without_a_comparison_nothing_is_decided(lake, other) -> None:
    with pytest.raises(Fault, match="was not compared yet"):
        go(lake, other, "--decision=promote", "--reason=hurry")


def test_what_was_compared_with_another_release_is_compared_again(lake, other) -> None:
    go(lake, other)
    nights.whole(lake, nights.AS_OF, "live again")
    with pytest.raises(Fault, match="compare them again"):
        go(lake, other, "--decision=promote", "--reason=hurry")


def test_a_candidate_of_another_day_is_refused(lake, other) -> None:
    nights.whole(lake, nights.day(1), "next day")
    with pytest.raises(Fault, match="build the candidate on the inputs of what serves"):
        go(lake, other)


def test_a_damaged_candidate_is_refused(lake, other) -> None:
    go(lake, other)
    folder = releases.root(other) / str(releases.current_id(other))
    (folder / "index/index.json").write_text("{}")
    with pytest.raises(Fault, match="no whole release"):
        go(lake, other, "--decision=promote", "--reason=hurry")
