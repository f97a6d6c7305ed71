"""What ``make faults`` makes of its file and of what was found: one error, one table, no case
diagnosed twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from jobs import io
from jobs.errors import Fault
from tools import fault_results, faults, planted, planting, world
from tools.fault_results import Diagnosed, Kept
from tools.planted import Case
from tools.planting import Planted

ROOT = Path(__file__).resolve().parents[2]
FIRST, END = date(2024, 1, 12), date(2024, 3, 1)
START = date(2024, 2, 16)


def read(tmp_path: Path, text: str) -> list[Case]:
    path = tmp_path / "faults.yaml"
    path.write_text(text, encoding="utf-8")
    return planted.read(path, FIRST, END)


def test_the_files_own_cases_are_whole_and_hold_every_kind_from_faint_to_gross():
    chosen = world.World()
    found = planted.read(
        Path(faults.__file__).with_name("faults.yaml"), chosen.nights()[0], chosen.end
    )
    grades = {(one.kinds, one.severity) for one in found}
    for kind in set(planting.KINDS) - {"clean"}:
        assert {((kind,), severity) for severity in (0.15, 0.5, 1.0)} <= grades
    assert sum(len(one.kinds) == 2 for one in found) >= 4
    assert sum(not one.kinds for one in found) >= 30


def test_a_case_is_read_with_its_scope(tmp_path):
    one, two = read(
        tmp_path,
        "- {name: a, kind: late_feed, start: 2024-02-16, severity: 0.5, scope: {channel: app}}\n"
        "- {name: b, kinds: [unit_change, bypassed], start: 2024-02-20, severity: 1,"
        " scope: {feature: value, how: hidden, region: [north, east]}}\n",
    )
    assert one == Case("a", (Planted("late_feed", START, 0.5, {"channel": "app"}),))
    assert [dict(fault.scope) for fault in two.faults] == [
        {"feature": "value", "region": ["north", "east"]},
        {"how": "hidden", "region": ["north", "east"]},
    ]
    assert (two.kinds, two.severity) == (("unit_change", "bypassed"), 1.0)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{kind: late_feed, start: 2024-02-16, severity: 0.5}", "case 1 has no name"),
        ("{name: a, start: 2024-02-16, severity: 0.5}", r"case 1 \(a\) needs a kind"),
        ("{name: a, kind: late, start: 2024-02-16, severity: 0.5}", "has the kind 'late'; there"),
        ("{name: a, kind: bypassed, start: soon, severity: 0.5}", "starts on 'soon', which is no"),
        ("{name: a, kind: bypassed, start: 2024-03-01, severity: 0.5}", "starts on 2024-03-01; li"),
        ("{name: a, kind: bypassed, start: 2024-02-16, severity: 2}", "has the severity 2, which"),
        ("{name: a, kind: bypassed, start: 2024-02-16, severity: yes}", "has the severity True"),
        ("{name: a, kind: bypassed, start: 2024-02-16}", "has the severity None"),
        ("{name: a, kind: bypassed, start: 2024-02-16, severity: 1, when: 1}", "has no when; ther"),
        ("{name: a, kind: bypassed, start: 2024-02-16, severity: 1, scope: {to: x}}",
         "has 'to' in its scope; there are channel, how, key_type, region, segment"),
        ("{name: a, kind: bypassed, start: 2024-02-16, severity: 1, scope: {how: x}}",
         "has the how 'x'; there are hidden, reordered, both, cut, pushed"),
        ("{name: a, kind: unit_change, start: 2024-02-16, severity: 1, scope: {feature: age}}",
         "names the unknown features age"),
        ("{name: a, kind: unit_change, start: 2024-02-16, severity: 1, scope: {factor: ten}}",
         "has the factor 'ten', which is no number"),
        ("{name: a, kind: bypassed, start: 2024-02-16, severity: 1, scope: north}",
         "has the scope 'north'; it holds names and values"),
        ("bypassed", "case 1 is 'bypassed'; it holds name, kind"),
    ],
)  # fmt: skip
def test_a_case_that_cannot_be_planted_is_named(tmp_path, line, sentence):
    with pytest.raises(Fault, match=sentence):
        read(tmp_path, f"- {line}\n")


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    with pytest.raises(Fault) as told:
        read(
            tmp_path,
            "- {name: a, kind: none, start: 2024-02-16, severity: 0.5}\n"
            "- {name: a, kind: bypassed, start: 1, severity: -1}\n",
        )
    text = str(told.value)
    for part in ("case 1 (a) has the kind 'none'", "case 2 (a) starts on 1", "severity -1",
                 "the name 'a' is given to several cases"):  # fmt: skip
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "is no list of cases"), ("a: 1", "is no list of cases"), ("- {a: [", "is not YAML")],
)
def test_a_file_that_is_no_list_is_one_clear_error(tmp_path, text, sentence):
    with pytest.raises(Fault, match=sentence):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(Fault, match="cannot be read"):
        planted.read(tmp_path / "none.yaml", FIRST, END)


# --- what was found --------------------------------------------------------------------------
def symptom(kind: str, warning: bool = False) -> dict:
    return {"kind": kind, "warning": warning, "subject": "x", "step": "parity", "sentence": "It."}


def diagnosed(kinds: list[str], severity: float, *found: dict, red: str | None = None) -> Diagnosed:
    each = tuple(Planted(kind, START, severity) for kind in kinds or ["clean"])
    return Diagnosed(Case(f"{kinds} {severity}", each), list(found), red, {})


def test_a_fault_is_named_where_the_first_that_is_no_warning_is_one_of_those_planted():
    right = diagnosed(["lost_join"], 0.5, symptom("lost_join"), symptom("threshold"))
    assert right.right
    assert not diagnosed(["lost_join"], 0.5, symptom("threshold"), symptom("lost_join")).right
    assert diagnosed(["lost_join", "bypassed"], 0.5, symptom("bypassed")).right
    assert diagnosed(["lost_join"], 0.5, symptom("lost_join", warning=True)).first == "nothing"
    assert diagnosed(["lost_join"], 0.5, red="events").first == "red gate: events"
    assert diagnosed([], 1.0, symptom("lost_join", warning=True)).right
    assert not diagnosed([], 1.0, symptom("lost_join")).right


def test_shares_are_of_medium_and_above_and_alarms_of_clean_worlds():
    found = [
        diagnosed(["lost_join"], 0.15),
        diagnosed(["lost_join"], 0.5, symptom("lost_join")),
        diagnosed(["threshold"], 1.0, symptom("miscalibrated")),
        diagnosed([], 1.0),
        diagnosed([], 1.0, symptom("label_drift")),
    ]
    assert fault_results.shares(found) == {
        "medium and above": {"cases": 2, "right": 1},
        "faint": {"cases": 1, "right": 0},
        "clean": {"cases": 2, "alarms": 1},
    }
    text = "\n".join(fault_results.report(found, "World w, code c."))
    assert "1 of 2 faults of medium severity and above were named rightly first (50%)" in text
    assert "1 of 2 worlds without a fault raised an alarm" in text
    assert "World w, code c." in text
    assert "| threshold | 1 | 1 | 0 | miscalibrated |" in text
    assert "- **['threshold'] 1.0** (threshold, 1): miscalibrated." in text
    assert "    - miscalibrated of x (parity): It." in text


# --- what is kept ------------------------------------------------------------------------------
def test_a_case_draws_by_its_name_wherever_it_stands():
    one, other = (Case(name, (Planted("bypassed", START, 0.5),)) for name in ("one", "other"))
    again = Case("one", (Planted("bypassed", START, 1.0),))
    assert faults.seed_of(one) == faults.seed_of(again)
    assert faults.seed_of(one) != faults.seed_of(other)


def test_results_of_several_files_are_told_together_and_those_of_other_code_or_worlds_are_not(
    tmp_path,
):
    right = diagnosed(["lost_join"], 0.5, symptom("lost_join"))
    missed = diagnosed(["threshold"], 0.5, symptom("miscalibrated", warning=True))
    kept = Kept(tmp_path, "world", "code")
    kept.add(right)
    Kept(tmp_path, "world", "code").add(missed)
    assert Kept(tmp_path, "world", "code").all() == [right, missed]
    assert kept.holds(right.case)
    for other in (Kept(tmp_path, "world", "other"), Kept(tmp_path, "other", "code")):
        assert not other.holds(right.case)
        assert other.all() == []
    graver = Case(right.case.name, (Planted("lost_join", START, 1.0),))
    assert not kept.holds(graver)
    told = io.read_json(tmp_path / "results.json")
    assert told["medium and above"] == {"cases": 2, "right": 1}
    assert [one["first"] for one in told["cases"]] == ["lost_join", "nothing"]
    assert "1 of 2 faults of medium severity" in (tmp_path / "report.md").read_text()


def test_a_run_goes_on_where_one_was_ended(tmp_path, monkeypatch, capsys):
    file = tmp_path / "three.yaml"
    file.write_text("".join(
        f"- {{name: {name}, kind: bypassed, start: 2024-02-16, severity: 0.5}}\n" for name in "abc"
    ))  # fmt: skip
    monkeypatch.setattr(world, "built", lambda chosen, home: world.Built(chosen, home))
    asked: list[list[str]] = []

    def until(count: int):
        def found(built, chosen, root, master):
            asked.append([case.name for case in chosen])
            for case in chosen[:count]:
                yield Diagnosed(case, [symptom("bypassed")], None, {})
            if count < len(chosen):
                raise KeyboardInterrupt

        return found

    values = {"LAKE": str(tmp_path / "lake"), "FILE": str(file)}
    monkeypatch.setattr(faults, "diagnosed", until(2))
    with pytest.raises(KeyboardInterrupt):
        faults.run(values)
    assert "2 of 2 faults" in (tmp_path / "lake" / "report.md").read_text()
    monkeypatch.setattr(faults, "diagnosed", until(3))
    assert faults.run(values) == 0
    assert faults.run(values) == 0
    assert asked == [["a", "b", "c"], ["c"]]
    assert "3 of 3 faults" in capsys.readouterr().out


WAITING = """
import signal, sys, time
from pathlib import Path
from tools import by_hand, faults, world

class Waiting(list):
    def __iter__(self):
        print("running", flush=True)
        time.sleep(300)
        return super().__iter__()

root = Path(sys.argv[1])
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
with by_hand.stoppable():
    list(faults.diagnosed(world.Built(world.World(), root), Waiting(), root, "local[1]"))
"""


def engines(root: Path) -> list[int]:
    """The processes of engines whose folders are in ``root``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if b"SparkConnectServer" in line and str(root).encode() in line:
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_ends_its_engine(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        assert engines(tmp_path)
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert engines(tmp_path) == []
    finally:
        process.kill()
        process.wait()
        for pid in engines(tmp_path):
            os.kill(pid, signal.SIGKILL)
