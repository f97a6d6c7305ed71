"""Balanced arms, made once from a night and kept: who is where, and what is refused."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
import yaml

from jobs import io
from jobs.__main__ import command
from jobs.diagnosis import definitions
from jobs.diagnosis.experiments import assigning
from jobs.diagnosis.experiments.assignment import STRATA, assign
from jobs.errors import Fault
from jobs.io import Lake
from tests.diagnosis.visit_log import AGREED

NIGHT = datetime(2024, 2, 1, tzinfo=UTC)
WINTER = {
    "name": "winter", "salt": "s", "starts": datetime(2024, 2, 5, tzinfo=UTC).isoformat(),
    "control": "old", "arms": {"new": 0.25, "old": 0.75},
}  # fmt: skip
PEOPLE = 400


@pytest.fixture
def lake(tmp_path) -> Lake:
    """A night of people of whom half had bought, a quarter lately."""
    lake = Lake(tmp_path / "lake").open()
    source = tmp_path / "source"
    source.mkdir()
    write(source, WINTER)
    ids = [f"account:{number:03d}" for number in range(PEOPLE)]
    bought = [
        {"person_id": person, "event_type": kind, "value": 5.0 + number,
         "event_time": NIGHT - timedelta(days=5 if number % 4 == 0 else 90)}
        for number, person in enumerate(ids)
        for kind in ("view", *["purchase"] * (number % 2 == 0))
    ]  # fmt: skip
    for step, found in {
        "source": {},
        "identities": {"persons": pa.table({"person_id": ids[::-1]})},
        "sessions": {"history": pa.Table.from_pylist(bought)},
    }.items():
        folder = lake.staged(step, NIGHT)
        for name, rows in found.items():
            io.write_arrow(folder / name, rows)
        if step == "source":
            io.write_json(folder / "source.json", {"folder": str(source)})
        io.write_json(folder / "manifest.json", {"as_of": NIGHT.isoformat()})
        lake.publish(step, NIGHT, "one")
    return lake


def write(source, *experiments) -> None:
    text = yaml.safe_dump(AGREED | {"experiments": list(experiments)})
    (source / definitions.FILE).write_text(text)


def defined(lake: Lake):
    return assigning.experiment(lake, NIGHT, "winter", "")


def test_every_stratum_is_cut_at_the_shares_and_stays(lake, capsys):
    command(["assign", f"--lake={lake.root}", "winter"])
    printed = capsys.readouterr().out
    rows = io.read_arrow(assigning.home(lake, "winter") / assigning.ARMS)
    assert rows["person_id"].to_pylist() == [f"account:{n:03d}" for n in range(PEOPLE)]
    of = Counter(zip(rows["stratum"].to_pylist(), rows["arm"].to_pylist(), strict=True))
    sizes = dict(zip(STRATA, (200, 100, 100), strict=True))
    for stratum, size in sizes.items():
        assert abs(of[stratum, "new"] - size / 4) <= 1
        assert of[stratum, "new"] + of[stratum, "old"] == size
        assert f"{of[stratum, 'old']:,}" in printed
    told = assigning.kept(lake, defined(lake))
    assert told is not None
    arms = [told.arm(person) for person in rows["person_id"].to_pylist()]
    assert arms == rows["arm"].to_pylist()
    assert told.arm("account:later") == assign("s", "account:later", WINTER["arms"])
    names = [*rows["person_id"].to_pylist(), "account:later"]
    codes = told.arms_of(names)
    assert [sorted(WINTER["arms"])[code] for code in codes] == [told.arm(name) for name in names]
    moved = np.mean([told.arm(n) != assign("s", n, WINTER["arms"]) for n in names])
    assert 0 < moved < 0.2
    with pytest.raises(Fault, match="is there already; whoever is in an arm stays in it"):
        assigning.make(lake, "winter")


def test_nothing_is_kept_for_an_experiment_that_nobody_assigned(lake):
    assert assigning.kept(lake, defined(lake)) is None


def test_an_assignment_of_another_salt_or_other_arms_is_refused(lake, tmp_path):
    assigning.make(lake, "winter")
    write(tmp_path / "source", WINTER | {"arms": {"new": 0.5, "old": 0.5}})
    with pytest.raises(Fault, match=r"was made with the salt s and the arms .*0\.25"):
        assigning.kept(lake, defined(lake))


@pytest.mark.parametrize(
    ("name", "experiments", "fault"),
    [
        ("autumn", [WINTER], "defines no experiment 'autumn'; there is winter"),
        ("winter", [], "there is none"),
        ("winter", [WINTER | {"starts": "2024-01-31"}], "before the newest night"),
        ("winter", [WINTER | {"arms": {"old": 0.4, "new": 0.5}}], "experiments"),
        ("../winter", [WINTER], "is no name of a folder"),
    ],
)
def test_what_cannot_be_assigned_is_refused_and_leaves_nothing(
    lake, tmp_path, name, experiments, fault
):
    write(tmp_path / "source", *experiments)
    with pytest.raises(Fault, match=fault):
        assigning.make(lake, name)
    assert not (lake.root / assigning.FOLDER).exists()


def test_a_file_of_its_own_is_read_and_a_lake_without_a_night_is_refused(lake, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, WINTER | {"name": "spring"})
    command(["assign", f"--lake={lake.root}", f"--file={elsewhere / definitions.FILE}", "spring"])
    assert (lake.root / assigning.FOLDER / "spring" / assigning.FACTS).is_file()
    with pytest.raises(Fault, match="has no night"):
        assigning.make(Lake(tmp_path / "empty").open(), "winter")
