"""Five gates in their order, and what to mend."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import gate, io, steps, tables
from jobs.diagnosis import symptoms, verdict
from jobs.diagnosis.symptoms import GATES, KINDS, REMEDIES, Symptom
from jobs.diagnosis.verdicts import Verdict
from jobs.io import Lake
from jobs.night import Night
from jobs.release import releases
from tests.conftest import AS_OF
from tests.expectations import good


def found(*kinds: str, severity: float = 2.0, warning: bool = False) -> list[dict[str, Any]]:
    made = [
        Symptom(kind, f"subject {kind}", 0.4, 0.2, severity, 100, f"{kind} is off.", None, warning)
        for kind in kinds
    ]
    return [{"step": "any", **row} for row in symptoms.table(made).to_pylist()]


def test_every_kind_has_a_gate_a_remedy_and_an_action() -> None:
    for kind in KINDS.values():
        assert kind.gate in GATES
        assert kind.remedy in REMEDIES
        assert kind.action.endswith(".")


def test_symptoms_read_back_as_they_were() -> None:
    one = Symptom("threshold", "0.2", 0.3, 0.1, 3.0, 9, "It is off.", 0.01)
    assert symptoms.read(symptoms.table([one])) == [one]


def test_nothing_wrong_is_go_at_every_gate() -> None:
    gates = verdict.judged([])
    assert [gate["gate"] for gate in gates] == list(GATES)
    assert all(gate["go"] and gate["classified"] is None for gate in gates)


def test_how_the_model_stands_against_its_baseline_is_evidence_of_decisioning() -> None:
    for rows in ([], found("threshold")):
        gates = {
            one["gate"]: one for one in verdict.judged(verdict.in_order(rows), "It is better.")
        }
        assert gates["decisioning"]["evidence"].endswith(" It is better.")
        assert [name for name, one in gates.items() if "better" in one["evidence"]] == [
            "decisioning"
        ]


def test_the_first_gate_that_fails_classifies_and_the_later_ones_do_not() -> None:
    gates = verdict.judged(verdict.in_order(found("concept_drift", "unit_change")))
    told = {gate["gate"]: gate["classified"] for gate in gates}
    assert told["replay"] == "fix the system"
    assert [name for name, words in told.items() if words] == ["replay"]
    assert not next(gate for gate in gates if gate["gate"] == "parity")["go"]


def test_gates_go_before_severity_and_severity_before_names() -> None:
    rows = found("concept_drift", severity=900.0) + found("late_feed", severity=1.1)
    rows += found("label_delay", severity=5.0)
    ordered = verdict.in_order(rows)
    assert [row["kind"] for row in ordered] == ["label_delay", "late_feed", "concept_drift"]
    assert [row["place"] for row in ordered] == [1, 2, 3]


def test_a_warning_fails_no_gate_and_stands_behind_what_does() -> None:
    rows = found("late_feed", severity=50.0, warning=True) + found("bypassed")
    ordered = verdict.in_order(rows)
    assert [row["kind"] for row in ordered] == ["bypassed", "late_feed"]
    gates = {gate["gate"]: gate for gate in verdict.judged(ordered)}
    assert gates["measurement"]["go"]
    assert "late_feed" in gates["measurement"]["evidence"]
    assert gates["adoption"]["classified"] == "fix the system"


def test_a_model_at_fault_is_called_so() -> None:
    gates = verdict.judged(verdict.in_order(found("concept_drift")))
    assert [gate["classified"] for gate in gates if gate["classified"]] == ["fix model"]


def test_a_model_is_not_trained_unasked_on_what_could_not_be_replayed() -> None:
    for kind in ("not_replayed", "not_compared"):
        ordered = verdict.in_order(found(kind, warning=True))
        one = Verdict("2017-12-01", "one", verdict.judged(ordered), ordered, Path("page.html"))
        assert one.failed is None
        (doubt,) = one.untrusted()
        assert f"{kind} is off." in doubt


def row(release: str, requests: int, verdict_: str = "go") -> dict[str, Any]:
    return {"release_id": release, "requests": requests, "verdict": verdict_}


def test_the_ledger_keeps_what_most_of_a_release_was_seen_by() -> None:
    known = verdict.ledger([], [row("a", 90), row("b", 10)])
    later = verdict.ledger(known, [row("a", 5, "replay"), row("b", 80, "replay"), row("c", 1)])
    told = {one["release_id"]: (one["requests"], one["verdict"]) for one in later}
    assert told == {"a": (90, "go"), "b": (80, "replay"), "c": (1, "go")}


def laid(tmp_path: Path, **made: pa.Table) -> Night:
    """A night whose steps before the verdict are published with these tables, others empty."""
    lake = Lake(tmp_path).open()
    for step in steps.DIAGNOSIS:
        if step == "verdict":
            continue
        for table in tables.of_step(step):
            rows = made.get(table.name, table.schema.empty_table())
            io.write_arrow(lake.staged(step, AS_OF) / table.name, rows)
        io.write_json(lake.staged(step, AS_OF) / "manifest.json", {})
        lake.publish(step, AS_OF, "one")
    night = Night(lake, AS_OF, "one", "shop", "verdict")
    night.reset()
    verdict.run(night, verdict.Params())
    night.close(verdict.Params(), "test")
    return night


def test_the_ledger_holds_what_every_step_found_of_a_release(tmp_path: Path) -> None:
    drift = Symptom("concept_drift", "due", 0.4, 0.2, 2.0, 100, "It means something else.")
    told = Symptom("label_drift", "all", 0.3, 0.2, 1.5, 100, "It is season.", warning=True)
    good_tables = good.all_tables()
    names = ("served", "replayed", "baseline_verdicts", "model_gains", "calibration_slices",
             "experiment_results", "shadow_candidates")  # fmt: skip
    night = laid(
        tmp_path, drift_symptoms=symptoms.table([drift, told]),
        **{name: good_tables[name] for name in names},
    )  # fmt: skip
    rows = io.read_arrow(night.staged / "evaluation_ledger").to_pylist()
    open_candidate, row = rows
    assert open_candidate["requests"] == 0
    assert row["drift"] == "concept_drift"
    whole = [one for one in good_tables["calibration_slices"].to_pylist()
             if one["slice_kind"] == "all" and one["bin"] == -1]  # fmt: skip
    assert row["calibration_error"] == (whole[0]["error"] if whole else None)
    assert row["baseline"] == "better (+0.05, +0.01 to +0.09)"
    gain = "better (+0.02, +0.01 to +0.03)"
    assert row["off_policy"] == f"basket: {gain}; homepage: {gain}"
    assert row["experiments"] == "homepage, new: insufficient evidence (+0.5, -0.1 to +1.1)"
    assert row["shadow"] == "promote, loses on 0 surfaces"
    gate.judge(night)


def test_a_candidate_that_serves_nobody_has_its_row_until_it_does(tmp_path: Path) -> None:
    good_tables = good.all_tables()
    compared = good_tables["shadow_candidates"].to_pylist()[0] | {"serves": False}
    of = [
        compared | {"candidate": "20180301T000000-rejected", "decision": "reject",
                    "reason": "loses in the north", "loses": 2},
        compared | {"candidate": "a file", "decision": "unreadable"},
    ]  # fmt: skip
    rows = pa.Table.from_pylist(of, good_tables["shadow_candidates"].schema)
    night = laid(tmp_path, served=good_tables["served"], shadow_candidates=rows)
    told = {row["release_id"]: row for row in
            io.read_arrow(night.staged / "evaluation_ledger").to_pylist()}  # fmt: skip
    assert len(told) == 2
    mine = told["20180301T000000-rejected"]
    assert mine["shadow"] == "reject, loses on 2 surfaces: loses in the north"
    assert (mine["requests"], mine["verdict"]) == (0, verdict.NOT_SERVED)
    gate.judge(night)
    served = row("20180301T000000-rejected", 9) | {"night": None, "judged_at": AS_OF}
    (kept,) = verdict.ledger([mine], [served, *verdict.candidates(night, of)])
    assert kept == served
    # One that served once, and of which the ledger saw nothing, is not called rejected.
    releases.record(night.lake, what="shadow promote", to="20180301T000000-rejected")
    assert list(verdict.candidates(night, of)) == []


def test_what_came_of_a_release_is_written_down_when_it_is_due() -> None:
    rows = [
        row("a", 90) | {"night": "2017-11-20", "judged_at": AS_OF},
        row("b", 10) | {"night": "2017-11-27", "judged_at": AS_OF},
        # The night before it was run again: nothing more comes of its release.
        row("old", 9) | {"night": "2017-11-20", "judged_at": AS_OF - timedelta(days=3)},
    ]
    due = {"night": "2017-11-20", "realised": 0.3, "realised_low": 0.2, "realised_high": 0.4}
    not_due = dict.fromkeys(due) | {"night": "2017-11-27"}
    told = verdict.fallen_due(rows, [due, not_due])
    assert told == [rows[0] | due, rows[1], rows[2]]


def test_the_ledger_tells_of_the_guardrails_that_an_arm_breaks_and_of_no_others(
    tmp_path: Path,
) -> None:
    good_tables = good.all_tables()
    money = good_tables["experiment_results"].to_pylist()[0] | {"verdict": "better"}
    of_arm = [
        money,
        money | {"measure": "latency_ms", "verdict": "worse"},
        money | {"measure": "coverage", "verdict": "not worse"},
        money | {"measure": "conversion", "verdict": "worse"},
    ]
    results = pa.Table.from_pylist(of_arm, good_tables["experiment_results"].schema)
    night = laid(tmp_path, served=good_tables["served"], experiment_results=results)
    (row,) = io.read_arrow(night.staged / "evaluation_ledger").to_pylist()
    by = "(+0.5, -0.1 to +1.1)"
    assert row["experiments"] == (
        f"homepage, new: better {by}; homepage, new: latency_ms worse {by}"
    )


def test_a_ledger_from_before_a_column_was_is_gone_on_with() -> None:
    old = row("a", 90) | {"judged_at": AS_OF}
    (kept,) = verdict.ledger([old], [])
    table = pa.Table.from_pylist([kept], tables.TABLES["evaluation_ledger"].schema)
    assert table["drift"].to_pylist() == [None]


def test_a_thing_that_two_steps_find_is_told_twice_and_passes_the_gate(tmp_path: Path) -> None:
    one = symptoms.table([Symptom("default_on_timeout", "due", 0.4, 0.2, 2.0, 100, "It is off.")])
    good_tables = good.all_tables()
    night = laid(
        tmp_path, replay_symptoms=one, parity_symptoms=one,
        **{name: good_tables[name] for name in ("baseline_verdicts", "model_gains")},
    )  # fmt: skip
    told = io.read_arrow(night.staged / "verdict_symptoms")
    assert told["step"].to_pylist() == ["parity", "replay"]
    gates = {one["gate"]: one for one in io.read_arrow(night.staged / "verdict_gates").to_pylist()}
    said = "Conversion is better. The model's order would bring more."
    assert said in gates["decisioning"]["evidence"]
    gate.judge(night)
