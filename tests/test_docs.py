"""Data docs are whole pages of their own: nothing loaded, nothing executed, all of it escaped."""

from __future__ import annotations

import argparse
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import gate, io, steps, tables
from jobs.errors import Fault, GateRed
from jobs.io import Lake
from jobs.night import Night
from jobs.pages import audits, docs
from tests.expectations import good

NASTY = "<script>alert('x')</script>\n${y} $z_1$"


def judged(lake: Lake, step: str, run_id: str = "one", **changed: pa.Table) -> None:
    """Stage a step's good tables, some changed, and judge them."""
    night = Night(lake, good.AS_OF, run_id, "test", step)
    night.reset()
    rows = good.all_tables()
    for table in tables.of_step(step):
        io.write_arrow(night.staged / table.name, changed.get(table.name, rows[table.name]))
    io.write_json(night.staged / "manifest.json", {"step": step, "run_id": run_id})
    gate.judge(night)


def hostile(step: str) -> dict[str, pa.Table]:
    """Audit tables with a hostile channel, region, slice and category."""
    if step != "audits":
        return {}
    rows = {name: good.all_tables()[name].to_pylist() for name in audits.TABLES}
    rows["feed_freshness"][1]["channel"] = NASTY
    rows["signal_freshness"].append({**rows["signal_freshness"][0], "population": NASTY})
    rows["promises"].append({**rows["promises"][0], "slice_kind": "region", "slice": NASTY})
    rows["identity_coverage"][0] |= {"split": 9.0, "share": 0.045}
    rows["conversion_windows"][1] |= {"category": NASTY, "late": True}
    return {name: good.table(name, found) for name, found in rows.items()}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake whose night went well until the index, and whose delivery has a hostile source."""
    made = Lake(tmp_path_factory.mktemp("docs") / "lake").open()
    for step in ("source", "events", "catalogue", "audits", "ranker"):
        judged(made, step, **hostile(step))
    delivery = good.all_tables()["delivery"]
    named = pa.array(["buy_again", NASTY])
    for step in ("identities", "embeddings", "content_embeddings", "candidates", "filters"):
        judged(made, step)
    judged(made, "recommendations", delivery=delivery.set_column(1, "source", named))
    recall = good.all_tables()["index_recall"].to_pylist()
    recall[0] |= {"recall": 0.5, "stratum": NASTY}
    with pytest.raises(GateRed):
        judged(made, "index", index_recall=good.table("index_recall", recall))
    return made


@pytest.fixture(scope="module")
def pages(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("pages")
    docs.build(lake, out)
    return {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}


class Whole(HTMLParser):
    """Collects tags and what they point at; open tags must be closed in order."""

    VOID = ("meta", "link", "br", "img", "use", "path", "rect")

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.targets: set[str] = set()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.targets |= {found[name] or "" for name in ("href", "src") if name in found}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_there_is_an_index_and_three_pages_per_night(pages: dict[str, str]) -> None:
    night = {"2017-12-01.html", "report-2017-12-01.html", "audits-2017-12-01.html"}
    assert set(pages) == {"index.html", *night}


def test_pages_are_well_formed_and_load_nothing(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        page = Whole(text)
        assert page.open == [], name
        assert not page.tags & {"script", "link", "iframe", "img", "object"}, name
        for target in page.targets:
            assert re.match(r"^(#|[\w.-]+\.html)", target), (name, target)
        for target in page.targets:
            assert target.startswith("#") or target.partition("#")[0] in pages, (name, target)


def test_what_comes_from_the_data_is_escaped(pages: dict[str, str]) -> None:
    text = pages["2017-12-01.html"] + pages["report-2017-12-01.html"]
    assert "&lt;script&gt;alert(" in text
    assert "<script" not in text


def test_a_red_gate_is_shown_with_its_rows_and_what_it_breaks(pages: dict[str, str]) -> None:
    night = pages["2017-12-01.html"]
    assert "recall is at least 0.95 where kind is overall; 1 of 1 rows do not" in night
    assert "Searches miss more than they may" in night
    assert '<a class="red"\nhref="2017-12-01.html#index">index</a>' in pages["index.html"]
    assert re.search(r"served yet\.\sA red gate stops", pages["index.html"])


def test_the_night_shows_every_expectation_with_what_was_found(pages: dict[str, str]) -> None:
    night = pages["2017-12-01.html"]
    for step in ("events", "ranker", "recommendations"):
        assert f'id="{step}"' in night
    assert "ratio is at least 0.45 and at most 1.93" in night
    assert "0 of 1,000 rows failed" in night or "as expected" in night


def test_the_report_shows_the_evidence_with_intervals(pages: dict[str, str]) -> None:
    report = pages["report-2017-12-01.html"]
    assert "NDCG@10 of what is published, the ranker" in report
    assert "0.44" in report
    assert report.count("<svg") == 4, "evidence, reliability, importance, delivery; no index"
    assert "currentColor" in report
    assert "The fit" in report


def test_the_audits_have_a_page_that_all_others_link_to(pages: dict[str, str]) -> None:
    page = pages["audits-2017-12-01.html"]
    for title in (
        "Are the signals fresh?", "Is one customer one person?",
        "Did releases keep their promises?", "Do lists come before the decision?",
    ):  # fmt: skip
        assert title in page
    assert page.count("<svg") == 6, "ages, feeds, split people, rankings, slices, categories"
    assert page.count("<b>What to do.</b>") == 4
    assert "&lt;script&gt;alert(" in page
    assert "<script" not in page
    for name in ("index.html", "2017-12-01.html", "report-2017-12-01.html"):
        assert 'href="audits-2017-12-01.html"' in pages[name], name


def test_audits_that_stopped_a_night_are_shown_from_what_was_judged(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").open()
    feeds = good.all_tables()["feed_freshness"].to_pylist()
    feeds[0] |= {"late": True, "reason": "purchase events of account keys in web are silent"}
    with pytest.raises(
        GateRed, match=r"1 of 2 rows do not \(purchase events of account keys in web"
    ):
        judged(lake, "audits", feed_freshness=good.table("feed_freshness", feeds))
    docs.build(lake, tmp_path / "out")
    page = (tmp_path / "out" / "audits-2017-12-01.html").read_text()
    assert "The gate was red: these\nnumbers were never published." in page
    assert "(purchase events of account keys in web are silent)" in page
    assert page.count("<svg") == 4, "no people are split, and no slices were judged"


def test_a_night_without_audits_has_no_page_of_them(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").open()
    judged(lake, "source")
    docs.build(lake, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.html", "2017-12-01.html", "report-2017-12-01.html",
    }  # fmt: skip
    assert "audits-2017" not in (tmp_path / "out" / "index.html").read_text()


def test_pages_are_the_same_when_built_again(
    lake: Lake, pages: dict[str, str], tmp_path: Path
) -> None:
    docs.build(lake, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == pages


def test_a_second_attempt_is_shown_beside_the_first(lake: Lake, tmp_path: Path) -> None:
    judged(lake, "source", run_id="two")
    docs.build(lake, tmp_path)
    assert "Judged before in this night" in (tmp_path / "2017-12-01.html").read_text()


def test_the_command_says_where_the_pages_are(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs.main(argparse.Namespace(lake=str(lake.root), out=str(tmp_path / "out")))
    assert capsys.readouterr().out == f"data docs: {tmp_path}/out/index.html\n"


def test_a_lake_without_a_night_has_an_index_and_a_missing_lake_is_a_fault(tmp_path: Path) -> None:
    empty = Lake(tmp_path / "empty").open()
    assert "No gate has judged anything" in docs.build(empty, tmp_path / "out").read_text()
    with pytest.raises(Fault, match="run a night first"):
        docs.main(argparse.Namespace(lake=str(tmp_path / "nowhere"), out=None))


def test_every_step_of_the_registry_has_a_place_in_the_pages() -> None:
    assert {table.step for table in tables.TABLES.values()} <= set(steps.EVERY)
