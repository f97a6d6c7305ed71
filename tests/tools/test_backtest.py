"""What ``make backtest`` makes of its values: defaults, and one clear error for what cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.errors import Fault
from tests import small_shop
from tools import backtest

ROOT = Path(__file__).resolve().parents[2]


def test_without_values_it_is_the_grocers_four_months_before_the_last():
    found = backtest.asked({"SOURCE": "", "CUTS": "", "LAKE": "", "PARAMS": ""})
    assert found.source == "completejourney"
    assert [f"{cut:%m-%d}" for cut in found.cuts] == ["08-11", "09-08", "10-06", "11-03"]
    assert {(b - a).days for a, b in zip(found.cuts, found.cuts[1:], strict=False)} == {28}
    assert found.root == ROOT / "var" / "backtest"
    assert found.params == backtest.Params()


def test_values_are_read_and_those_of_the_backtest_kept_from_the_night(tmp_path):
    params = '{"candidates": {"depth": 50}, "backtest": {"horizon_days": 7, "lengths": [5]}}'
    found = backtest.asked({
        "SOURCE": str(tmp_path), "CUTS": "2024-02-01, 2024-01-04,2024-02-01",
        "LAKE": str(tmp_path / "l"), "PARAMS": params, "MASTER": "local[1]",
    })  # fmt: skip
    first, last = (datetime(2024, *day, tzinfo=UTC) for day in ((1, 4), (2, 1)))
    assert found.cuts == (first, last)
    assert found.overrides == {"candidates": {"depth": 50}}
    assert (found.params.horizon_days, found.params.lengths) == (7, (5,))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"CUTS": "2017-08-11,first of May,31-12-2017"}, "'first of May', '31-12-2017' is not a"),
        ({"CUTS": ","}, "CUTS: ',' is not a date; write YYYY-MM-DD"),
        ({"SOURCE": "online_retail:x"}, "CUTS is not given; write SOURCE=online_retail:x CUTS="),
        ({"PARAMS": "{depth: 5}"}, "params: not JSON"),
        ({"PARAMS": '{"backtest": {"horizon": 7}}'}, "backtest has no parameter 'horizon'"),
        ({"PARAMS": '{"backtest": {"horizon_days": 0}}'}, "horizon_days must be at least 1"),
        ({"PARAMS": '{"backtest": {"lengths": [20, 10]}}'}, "lengths must rise"),
        ({"PARAMS": '{"backtest": {"lengths": []}}'}, "lengths must be whole numbers"),
        ({"PARAMS": '{"backtest": {"lengths": ["10"]}}'}, "lengths must be whole numbers"),
        ({"PARAMS": '{"candidate": {}}'}, "there is no step 'candidate'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(values, sentence):
    with pytest.raises(Fault, match=sentence):
        backtest.asked(values)


@pytest.mark.parametrize(
    ("cuts", "sentence"),
    [
        ("2024-13-01", "error: CUTS: '2024-13-01' is not a date"),
        ("2020-01-01", "error: backtest: the cut 2020-01-01 is not after the first event"),
        ("2024-03-01", "error: backtest: the 28 days after the cut 2024-03-01 are not covered"),
    ],
)
def test_it_is_one_line_and_exit_code_2_before_any_night_runs(tmp_path, cuts, sentence):
    small_shop.write(tmp_path / "shop", people=5, days=20)
    shown = subprocess.run(
        [sys.executable, "-m", "tools.backtest"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "SOURCE": str(tmp_path / "shop"), "CUTS": cuts, "PARAMS": "",
             "LAKE": str(tmp_path / "lake")},
    )  # fmt: skip
    assert shown.returncode == 2
    assert shown.stderr.startswith(sentence)
    assert shown.stderr.count("\n") == 1
    assert not (tmp_path / "lake" / "nights").exists()


def test_an_unknown_source_is_one_line_too(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-m", "tools.backtest"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "SOURCE": "shop-that-is-not", "CUTS": "2024-01-01",
             "LAKE": str(tmp_path), "PARAMS": ""},
    )  # fmt: skip
    assert (shown.returncode, shown.stderr.count("\n")) == (2, 1)
    assert "'shop-that-is-not' is neither a folder" in shown.stderr
