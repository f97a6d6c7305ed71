"""The benchmark of persons found: which shops it makes, one of them measured, and its table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import bench_persons

ROOT = Path(bench_persons.__file__).resolve().parent.parent
# In a process of its own, as the benchmark runs: it opens and ends an engine.
SHOPS = """
import json, pathlib, sys
from tools import bench_persons
bench_persons.noises = lambda: [{}, {"shared": 0.04}, {"shared": 0.4}]
print(json.dumps(bench_persons.measure(20_000, pathlib.Path(sys.argv[1]))))
"""


def test_each_rate_is_doubled_twice_alone_and_with_all_others():
    found = bench_persons.noises()
    assert found[0] == {}
    assert {"shared": 0.04} in found
    assert {"recycled": 0.2} in found
    assert found[-1] == {"false_links": 0.12, "shared": 0.08, "recycled": 0.2, "links_late": 0.4}
    assert len(found) == 1 + 2 * 4 + 2


def test_shops_are_measured_by_the_nights_own_steps_and_leave_nothing(tmp_path: Path):
    child = subprocess.run(
        [sys.executable, "-c", SHOPS, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    rows = json.loads(child.stdout.strip().splitlines()[-1])
    assert [(row["pairs"], row["holders"]) for row in rows] == [
        ("direct", "in_their_time"), ("direct", "strict"),
        ("connected", "in_their_time"), ("connected", "strict"),
    ] * 3  # fmt: skip
    usual, rows, crowded = rows[:4], rows[4:8], rows[8]
    assert all(row["noise"] == {} for row in usual)
    assert min(usual[0][name] for name in ("precision", "recall", "f1")) > 0.98
    assert all(row["noise"] == {"shared": 0.04} for row in rows)
    assert rows[0]["joined"] > 500
    assert 0.95 < rows[0]["precision"] < 1
    assert 0.95 < rows[0]["recall"] <= 1
    # Devices that many people share are where logins decide.
    assert crowded["anonymous"] > crowded["given"] >= crowded["given_right"] > 10
    assert crowded["given_right"] / crowded["given"] > 0.9
    assert list(tmp_path.iterdir()) == []
    lines = bench_persons.table(rows, 20_000)
    shown = next(line for line in lines if line.startswith("| shared 4% |"))
    cells = [cell.strip() for cell in shown.strip("|").split("|")]
    assert cells[1] == f"{rows[0]['joined']:,}"
    assert float(cells[2].split()[0]) == pytest.approx(rows[0]["precision"], abs=1e-4)
    low, high = cells[2].partition("(")[2].rstrip(")").split(" to ")
    assert float(low) < rows[0]["precision"] < float(high)
    assert float(cells[6]) == pytest.approx(rows[2]["recall"], abs=1e-4)
    assert cells[7] == f"{rows[0]['given']:,}"
