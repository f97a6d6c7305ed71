"""A release is read with nothing of ours, by the program that its documentation gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import tables
from jobs.release import release, releases
from tests.release import nights

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "release-format.md"


def program() -> str:
    """The Python of the documentation."""
    return re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)[1]


def read(lake, tmp_path, key_type: str, key: str) -> str:
    """Run the documented program where nothing of ours can be imported."""
    script = tmp_path / "read_release.py"
    script.write_text(program(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(lake.root), key_type, key],
        cwd=tmp_path, capture_output=True, text=True, check=False, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("key_type", "key"),
    [("account", "p0"), ("device/id", "d%1"), ("account", "../../etc/passwd"),
     ("account", "emoji 🦉 ñ 漢字"), ("account", "two\nlines\ttab"), ("account", 'say "hi"')],
)  # fmt: skip
def test_the_documented_program_reads_a_release(lake, tmp_path, key_type, key):
    nights.whole(lake)
    text = read(lake, tmp_path, key_type, key)
    assert text.splitlines()[-1].endswith(": 5 places, 62 items in the index")


def test_the_program_imports_nothing_of_ours():
    assert "jobs" not in program()


def test_the_documentation_names_every_part_of_a_release(lake):
    text = DOCUMENT.read_text(encoding="utf-8")
    folder = releases.root(lake) / nights.whole(lake)
    manifest = releases.load(folder).manifest
    for path in folder.iterdir():
        assert path.name in text
    for name in manifest:
        assert f"`{name}`" in text


def test_every_column_of_the_main_folders_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = {match[1]: match[0] for match in re.finditer(r"^\| `([a-z_/]+)/` \|.*$", text, re.M)}
    for table, place in {**release.SHARED, "pools": "pools"}.items():
        if place in lines and table != "features":
            for column in tables.TABLES[table].schema.names:
                assert f"`{column}`" in lines[place], f"{place}: {column}"
