"""The part ``off_policy`` on a wheel that is made here, with a truth that is known."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tools import bench_off_policy

ITEMS = 4
RATE = np.array([0.4, 0.3, 0.2, 0.1])
CHANCE = np.array([0.1, 0.2, 0.3, 0.4])


@pytest.fixture
def wheel(tmp_path) -> Path:
    """A campaign whose items are shown by chances, and by lot, as the data set has them."""
    rng = np.random.default_rng(1)
    path = tmp_path / "obp-0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for policy, chance in (("bts", CHANCE), ("random", np.full(ITEMS, 1 / ITEMS))):
            item = rng.choice(ITEMS, 4_000, p=chance)
            click = (rng.random(4_000) < RATE[item]).astype(int)
            place = rng.integers(1, 4, 4_000)
            lines = [",item_id,position,click,propensity_score"]
            lines += [
                f"{n},{i},{k},{c},{chance[i]}"
                for n, (i, k, c) in enumerate(zip(item, place, click, strict=True))
            ]
            packed.writestr(f"obp/dataset/obd/{policy}/men/men.csv", "\n".join(lines))
    return path


def test_a_wheel_that_is_there_is_not_fetched_again(wheel):
    assert bench_off_policy.download(wheel.parent) == wheel


def test_estimates_stand_beside_what_the_lot_brought(wheel):
    shown, by_lot = (bench_off_policy.read(wheel, policy, "men") for policy in ("bts", "random"))
    found = bench_off_policy.judge(shown, by_lot)
    assert found["truth"]["value"] == pytest.approx(RATE.mean(), abs=0.02)
    assert found["logged"]["value"] == pytest.approx(RATE @ CHANCE, abs=0.02)
    for name, one in found["estimates"].items():
        assert one["low"] <= RATE.mean() <= one["high"], name
    assert found["doubt"] is None
    lines = bench_off_policy.table({"men": found})
    assert [line for line in lines if line.startswith("| verdict")] == ["| verdict | evidence |"]
