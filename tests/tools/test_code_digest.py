"""Code that does something else has another digest, and code that is told otherwise has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import code_digest

MODULE = """def twice(number):
    return 2 * number
"""


def digest(root: Path, text: str = MODULE, name: str = "jobs/a.py", **chosen) -> str:
    for each, what in (("one.py", "a = 2"), (name, text)):
        path = root / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(what)
    return code_digest.of(("jobs", "one.py"), root=root, **chosen)


def test_comments_docstrings_and_form_do_not_count(tmp_path):
    before = digest(tmp_path)
    told = (
        '"""Of numbers."""\n\ndef twice(number):\n    """Twice."""\n    return (2*number)  # two\n'
    )
    assert digest(tmp_path, told) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jobs/a.py", MODULE.replace("2", "3")),
        ("jobs/b/c.py", MODULE),
        ("one.py", MODULE),
    ],
)
def test_what_is_done_counts_and_where(tmp_path, name, text):
    before = digest(tmp_path)
    assert digest(tmp_path, text, name) != before


@pytest.mark.parametrize("name", ["jobs/b/c.py", "jobs/d.py", "other.py"])
def test_what_is_left_out_does_not(tmp_path, name):
    without = ("jobs/b", "jobs/d.py")
    before = digest(tmp_path, without=without)
    assert digest(tmp_path, "a = 1", name, without=without) == before
