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
    # 62 items have positions; one of them is not available.
    assert text.splitlines()[-1].endswith(": 5 places, 61 items in the index")


def test_what_rules_take_out_is_read_from_a_release(lake, tmp_path):
    rules = (
        {"rule_id": "a", "scope": "item:item -rf"},
        {"rule_id": "b", "scope": "item:item it's", "surface": "homepage"},
        {"rule_id": "c", "scope": "item:item %2F", "surface": "homepage", "region": "north"},
        {"rule_id": "d", "scope": "item:item a/b%2Fc", "region": "so/uth"},
        {"rule_id": "e", "scope": "item:item \\", "surface": "feed"},
    )
    nights.publish(lake, rules_in_force=nights.in_force(*rules))
    made = nights.stage(lake)
    assert release.verify(made) == []
    release.publish(made)
    for key, count in (("p0", 3), ("p1", 3), ("p2", 2)):  # of the north, of so/uth, of nowhere
        assert f"{count} items are in no list of account:{key}" in read(
            lake, tmp_path, "account", key
        )


def test_the_program_imports_nothing_of_ours():
    assert "jobs" not in program()


def test_the_documentation_names_every_part_of_a_release(lake):
    text = DOCUMENT.read_text(encoding="utf-8")
    folder = releases.root(lake) / nights.whole(lake)
    manifest = releases.load(folder).manifest
    for path in (*folder.iterdir(), *(folder / "filters").iterdir()):
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
