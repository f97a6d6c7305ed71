"""The page of a diagnosis says go or no-go first, whatever became of the run, and loads nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import io, steps, tables
from jobs.diagnosis.symptoms import GATES
from jobs.io import Lake
from jobs.night import Night
from jobs.pages import diagnosis, docs, plots
from jobs.pages.evidence import Run, part
from tests.expectations import good
from tests.expectations.good import AS_OF, table
from tests.expectations.good_diagnosis import AGREED
from tests.pages import told
from tests.pages.told import LABEL, NASTY, RENAMED, THRESHOLD, UNIT
from tests.test_docs import Whole

PAGE = f"diagnosis-{LABEL}.html"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").open()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots as a word, where a test looks at the words alone."""
    for name in ("intervals", "beside", "bars", "lines", "curves", "reliability"):
        monkeypatch.setattr(plots, name, lambda *_, **__: "<svg></svg>")


def page_of(lake: Lake, link: str = "") -> str:
    out = docs.build_one(lake, LABEL, lake.root / "docs", link)
    assert out == lake.root / "docs" / PAGE
    return out.read_text(encoding="utf-8")


def first_heading(page: str) -> str:
    found = re.search(r"<h[1-6][^>]*>(.*?)</h", page)
    assert found is not None
    return found[1]


def definitions_with(fault: str) -> pa.Table:
    rows = [{"name": name, "value": json.dumps(value)} for name, value in AGREED.items()]
    rows[0] |= {"value": "", "fault": fault}
    return table("definitions", rows)


def test_the_verdict_comes_first_with_its_reason_and_what_to_do(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    page = page_of(lake)
    assert first_heading(page) == "No-go: fix the system"
    order = [
        "No-go: fix the system", UNIT.sentence, "convert at one place", "The five gates",
        "All that was found", 'id="definitions"', 'id="served"', 'id="verdict"',
    ]  # fmt: skip
    places = [page.index(words) for words in order]
    assert places == sorted(places)
    assert "The first gate that fails is replay" in page


def test_symptoms_stand_in_the_verdicts_order_and_warnings_last(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told(THRESHOLD, RENAMED, UNIT))
    page = page_of(lake)
    listed = page[page.index('<ol class="symptoms">') :]
    places = [listed.index(io_text(one.sentence)) for one in (UNIT, RENAMED, THRESHOLD)]
    assert places == sorted(places)
    assert "effect 0.2 beyond a limit of 0.05, p = 1e-06, on 900,000 rows" in page


def io_text(sentence: str) -> str:
    return sentence.replace("'", "&#39;")


def test_every_step_has_its_section_in_the_order_of_the_run(lake: Lake) -> None:
    assert list(diagnosis.SECTIONS) == list(steps.DIAGNOSIS)
    told.lay(lake, told.told())
    page = page_of(lake)
    assert re.findall(r'<section id="(\w+)"', page) == list(steps.DIAGNOSIS)
    assert page.count("<b>What to do.</b>") == len(steps.DIAGNOSIS)
    assert page.count("<svg") == 26
    for threshold in (
        "limit, 0.5%", "limit, 20%", "limit, 0.1", "limit, 75%", "maturity agreed", "2 times off",
        "least, 70%", "as the control", "as what was shown",
    ):  # fmt: skip
        assert threshold in page, threshold


def test_the_least_that_the_suites_let_pass_makes_a_page(lake: Lake) -> None:
    told.lay(lake, good.all_tables())
    page = page_of(lake)
    assert first_heading(page) == "Go"
    assert re.findall(r'<section id="(\w+)"', page) == list(steps.DIAGNOSIS)


def test_a_day_without_symptoms_is_a_go_and_says_what_to_read_later(
    lake: Lake, undrawn: None
) -> None:
    told.lay(lake, told.told(THRESHOLD))
    page = page_of(lake)
    assert first_heading(page) == "Go"
    assert "All five gates hold. 1 warning below." in page


def test_the_baseline_and_what_is_not_told_by_segment_stand_on_the_page(
    lake: Lake, undrawn: None
) -> None:
    told.lay(lake, told.told())
    page = page_of(lake)
    assert "Against the baseline, fallback: the agreed KPI" in page
    assert "0.6 above the baseline" in page
    assert "model&#39;s order and in that by popularity" in page
    assert "KPIs are not told by category, which a visit has several of" in page


def test_tables_are_cut_and_say_of_how_many(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    page = page_of(lake)
    rows = 2 * len(tables.FEATURES)  # two pairs of sides
    said = f"Features, those with a finding first, then by PSI. The first 30 of {rows} rows."
    assert said in page
    assert part("All.", [{"a": n} for n in range(31)]).caption == "All. The first 30 of 31 rows."
    assert part("All.", [{"a": n} for n in range(30)]).caption == "All."


def test_no_person_and_no_request_is_named(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    assert told.PERSON not in page_of(lake)
    shown = part("", [{"person_id": "p", "request_id": "r", "item_id": "i"}])
    assert shown.rows is not None
    assert shown.rows.column_names == ["item id"]


def test_what_is_hostile_in_the_data_stays_text(lake: Lake) -> None:
    made = told.told()
    for name, rows in list(made.items()):
        texts = [
            field.name for field in rows.schema
            if field.type == pa.string()
            and field.name not in ("gate", "kind", "remedy", "period", "population", "pair", "name",
                                   "value", "step", "measure", "slice_kind", "segment_kind")
        ]  # fmt: skip
        changed = [row | dict.fromkeys(texts, NASTY) for row in rows.to_pylist()]
        made[name] = table(name, changed)
    # The parts of these that are looked up by name keep some rows that are.
    for name in ("log_counts", "adoption", "kpis"):
        made[name] = pa.concat_tables([made[name], told.told()[name]])
    told.lay(lake, made)
    page = page_of(lake, "javascript:alert(1)")
    whole = Whole(page)
    assert whole.open == []
    assert not whole.tags & {"script", "link", "iframe", "img", "object"}
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    assert "javascript:" not in page


def test_a_red_first_gate_is_the_verdict_and_names_every_fault(lake: Lake, undrawn: None) -> None:
    fault = f"is 'gut feeling', not one of conversion {NASTY}"
    told.lay(lake, told.told() | {"definitions": definitions_with(fault)}, red="definitions")
    assert lake.at("verdict", LABEL) is None
    page = page_of(lake)
    assert first_heading(page) == "No-go: the run stopped at definitions"
    assert "A metrics file that contradicts itself or leaves something out is mended" in page
    assert page.count("gut feeling") >= 2, "as the gate found it, and in the section"
    assert page.count("The run has not come this far.") == 4
    assert page.count("This run has nothing of this step.") == len(steps.DIAGNOSIS) - 1
    assert "<script" not in page


def test_a_verdict_that_a_later_run_did_not_reach_is_not_shown(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    broken = told.told() | {"definitions": definitions_with("is missing")}
    told.lay(lake, broken, red="definitions", run_id="two")
    assert lake.at("verdict", LABEL) is not None
    page = page_of(lake)
    assert first_heading(page) == "No-go: the run stopped at definitions"
    assert "fix the system" not in page.lower()
    assert page.count("This run has nothing of this step.") == len(steps.DIAGNOSIS) - 1


def test_a_gate_that_stops_in_the_middle_leaves_what_was_found_before_it(
    lake: Lake, undrawn: None
) -> None:
    made = told.told()
    rows = made["feature_parity"].to_pylist()
    made["feature_parity"] = table("feature_parity", [row | {"missing_left": 7.0} for row in rows])
    told.lay(lake, made, red="parity")
    page = page_of(lake)
    assert first_heading(page) == "No-go: the run stopped at parity"
    assert page.count("not judged") == len(GATES)
    assert io_text(UNIT.sentence) in page
    assert "The gate was red: these numbers were never published." in page
    after = list(steps.DIAGNOSIS)[list(steps.DIAGNOSIS).index("parity") + 1 :]
    assert page.count("This run has nothing of this step.") == len(after)


def test_a_run_under_way_has_no_verdict_yet(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    (lake.root / "tables" / "verdict" / LABEL / "PUBLISHED").unlink()
    page = page_of(lake)
    assert first_heading(page) == "No verdict yet"
    assert io_text(UNIT.sentence) in page


def test_a_step_judged_again_since_the_verdict_is_named(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    night = Night(lake, AS_OF, "two", "test", "labels")
    evidence = io.read_json(lake.evidence("labels", AS_OF, "one"))
    io.write_json(lake.evidence("labels", AS_OF, night.run_id), evidence | {"run_id": "two"})
    assert "another run has judged labels again" in page_of(lake)


@pytest.mark.parametrize("of", ["absent", "empty", "of another version"])
def test_every_section_bears_a_table_that_is(lake: Lake, of: str) -> None:
    made = told.told()
    kept = {"verdict_gates", "verdict_symptoms"}
    for name in [name for name in made if name not in kept]:
        if of == "absent":
            del made[name]
        elif of == "empty":
            made[name] = made[name].slice(0, 0)
        else:
            made[name] = made[name].rename_columns(
                [f"old_{column}" for column in made[name].column_names]
            )
    told.lay(lake, made)
    page = page_of(lake)
    assert first_heading(page) == "No-go: fix the system"
    assert re.findall(r'<section id="(\w+)"', page) == list(steps.DIAGNOSIS)
    assert "There is no row of it." in page


def test_columns_that_may_be_null_may_all_be(lake: Lake) -> None:
    made = told.told()
    for name, rows in list(made.items()):
        if name in ("verdict_gates", "definitions"):
            continue
        nullable = [field.name for field in tables.TABLES[name].schema if field.nullable]
        made[name] = table(name, [row | dict.fromkeys(nullable) for row in rows.to_pylist()])
    told.lay(lake, made)
    assert first_heading(page_of(lake)) == "No-go: fix the system"


def test_the_page_links_to_the_index_the_gates_and_the_run(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    page = page_of(lake, "https://airflow/dags/diagnose/runs/1?a=1&b=2")
    for target in (
        "index.html",
        f"{LABEL}.html",
        "https://airflow/dags/diagnose/runs/1?a=1&amp;b=2",
    ):
        assert f'href="{target}"' in page
    assert "Airflow run" not in page_of(lake)
    # The DAG builds this run date alone, and no link of its page is dead.
    out = lake.root / "docs"
    for target in Whole(page).targets:
        assert target.startswith(("#", "https:")) or (out / target).is_file(), target


def test_another_dates_broken_evidence_does_not_keep_this_page_from_being_built(
    lake: Lake, undrawn: None
) -> None:
    told.lay(lake, told.told())
    broken = lake.evidence("source", io.parse_as_of("2017-10-01"), "one")
    io.write_text(broken, "{")
    page_of(lake)
    assert broken.read_text() == "{"
    io.write_text(lake.evidence("source", AS_OF, "zz"), "{")
    with pytest.raises(ValueError, match="Expecting"):
        page_of(lake)


def test_the_index_and_the_gates_link_to_the_page(lake: Lake, undrawn: None) -> None:
    told.lay(lake, told.told())
    out = lake.root / "docs"
    docs.build(lake, out)
    for name in ("index.html", f"{LABEL}.html"):
        assert f'href="{PAGE}"' in (out / name).read_text(), name
    page = Whole((out / PAGE).read_text())
    for target in page.targets:
        assert target.startswith("#") or (out / target).is_file(), target
    assert {target[1:] for target in page.targets if target[0] == "#"} <= set(steps.DIAGNOSIS)


def test_a_night_that_was_not_diagnosed_has_no_page(lake: Lake) -> None:
    io.write_json(lake.evidence("source", AS_OF, "one"), {
        "step": "source", "as_of": AS_OF.isoformat(), "run_id": "one", "verdict": "green",
        "seconds": 0.1, "tables": {}, "expectations": [],
    })  # fmt: skip
    docs.build(lake, lake.root / "docs")
    assert not (lake.root / "docs" / PAGE).exists()


def test_thresholds_are_those_that_the_step_ran_with(lake: Lake) -> None:
    told.lay(lake, told.told())
    run = Run(lake, LABEL, {gate["step"]: gate for gate in docs.night(lake, LABEL)["gates"]})
    assert run.params("drift") == {"psi": 0.1}
    assert run.params("kpis") == {}
