"""A kill between any two writes leaves the pointer on a whole release, and a retry finishes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("what", ["publish", "run"])
def test_a_kill_leaves_a_whole_release_and_a_retry_finishes(tmp_path, what):
    done = subprocess.run(
        [sys.executable, "-m", "tests.release.killing", str(tmp_path), what],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == [], done.stderr[-3_000:]
    assert found["kills"] >= {"publish": 10, "run": 4}[what]
