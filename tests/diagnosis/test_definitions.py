"""What a metrics file must say, and that nothing is taken for granted."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from jobs import gate, io
from jobs.diagnosis import definitions
from jobs.errors import GateRed
from jobs.io import Lake
from jobs.night import Night
from tests.conftest import AS_OF
from tests.expectations.good_diagnosis import AGREED


def changed(*path: str, to: Any) -> dict[str, Any]:
    """The good file with one value changed; ``...`` takes it out."""
    given = copy.deepcopy(AGREED)
    place = given
    for name in path[:-1]:
        place = place[name]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return given


def test_a_good_file_has_no_fault_and_becomes_an_agreement() -> None:
    assert definitions.check(AGREED) == {}
    agreed = definitions.build(AGREED)
    assert (agreed.metric, agreed.at, agreed.label.event) == ("ndcg", 10, "purchase")
    assert agreed.experiments[0].starts == datetime(2017, 10, 1, tzinfo=UTC)
    assert agreed.decision.threshold is None


@pytest.mark.parametrize("part", list(definitions.PARTS))
def test_whatever_is_left_out_is_a_fault(part: str) -> None:
    assert "missing" in definitions.check(changed(part, to=...))[part]


@pytest.mark.parametrize(
    ("path", "to", "where", "words"),
    [
        (("kpi",), "clicks", "kpi", "not one of"),
        (("model_metric", "at"), 0, "model_metric", "not above 0"),
        (("model_metric", "at"), True, "model_metric", "expected a int"),
        (("label", "maturity_days"), 2, "label", "before the 72 hours"),
        (("label", "returns"), ..., "label", "lacks returns"),
        (("decision", "threshold"), 1.5, "decision", "from 0 to 1"),
        (("decision", "capacity"), "many", "decision", "expected a int"),
        (("decision", "cost_of_show"), 1.0, "decision", "no place would be worth showing"),
        (("decision", "cost_of_show"), -0.1, "decision", "below 0"),
        (("decision", "cost_of_show"), float("nan"), "decision", "which is no number"),
        (("decision",), None, "decision", "it holds threshold"),
        (("segments",), ["colour"], "segments", "colour"),
        (("segments",), "region", "segments", "not a list"),
        (("guardrails",), ["noise"], "guardrails", "noise"),
        (("experiments",), {}, "experiments", "write []"),
        (("surprise",), 1, "surprise", "is not known"),
    ],
)
def test_a_fault_says_where_and_what(
    path: tuple[str, ...], to: Any, where: str, words: str
) -> None:
    found = definitions.check(changed(*path, to=to))
    assert list(found) == [where]
    assert words in found[where]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("arms", {"old": 0.7, "new": 0.7}, "not above 0 and 1 together"),
        ("arms", {"old": 1.0}, "needs two arms"),
        ("control", "nobody", "'nobody'"),
        ("starts", "soon", "soon"),
    ],
)
def test_an_experiment_that_cannot_be_run_is_a_fault(name: str, value: Any, words: str) -> None:
    broken = AGREED["experiments"][0] | {name: value}
    assert words in definitions.check(changed("experiments", to=[broken]))["experiments"]


def test_a_kpi_that_contradicts_the_label_is_a_fault() -> None:
    given = changed("label", "event", to="click") | {"kpi": "average_order_value"}
    assert "but the label is a click" in definitions.check(given)["kpi"]


def test_two_experiments_of_one_name_are_a_fault() -> None:
    given = changed("experiments", to=AGREED["experiments"] * 2)
    assert "one name" in definitions.check(given)["experiments"]


def test_two_experiments_of_one_salt_are_a_fault_that_names_them_whenever_they_begin() -> None:
    one = AGREED["experiments"][0]
    other = one | {"name": "basket", "starts": "2018-03-01", "arms": {"old": 0.2, "new": 0.8}}
    third = other | {"name": "mail", "salt": "of its own"}
    found = definitions.check(changed("experiments", to=[one, other, third]))["experiments"]
    assert "winter and basket have one salt, 'w'," in found
    assert "mail" not in found
    assert definitions.check(changed("experiments", to=[one, third])) == {}


def test_a_place_that_costs_just_less_than_a_hit_brings_may_be_worth_showing() -> None:
    assert definitions.check(changed("decision", "cost_of_show", to=0.99)) == {}


def test_a_metric_of_longer_lists_than_are_shown_is_no_contradiction() -> None:
    """Answers are judged to their end, of which a page may show less: a promise is of ten places,
    also where the page has six."""
    assert definitions.check(changed("decision", "capacity", to=6)) == {}


def step(tmp_path: Path, text: str | bytes | None) -> Night:
    """The step, run and closed, on a source whose metrics file has this text."""
    lake = Lake(tmp_path / "lake").open()
    folder = tmp_path / "shop"
    folder.mkdir()
    if text is not None:
        (folder / definitions.FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    staged = lake.staged("source", AS_OF)
    staged.mkdir(parents=True)
    io.write_json(staged / "source.json", {"folder": str(folder)})
    io.write_json(staged / "manifest.json", {})
    lake.publish("source", AS_OF, "one")
    night = Night(lake, AS_OF, "one", "shop", "definitions")
    night.reset()
    definitions.run(night, definitions.Params())
    night.close(definitions.Params(), "test")
    return night


def test_a_good_file_passes_its_gate_and_reads_back(tmp_path: Path) -> None:
    night = step(tmp_path, yaml.safe_dump(AGREED))
    gate.judge(night)
    later = Night(night.lake, AS_OF, "one", "shop", "served")
    assert definitions.read(later) == definitions.build(AGREED)


def test_parts_of_a_file_may_be_merged(tmp_path: Path) -> None:
    text = yaml.safe_dump(AGREED | {"experiments": []}).replace("experiments: []\n", "")
    common = "{salt: a, starts: 2017-10-01, control: old, arms: {old: 0.5, new: 0.5}}"
    text += f"experiments:\n- &first {common[:-1]}, name: one}}\n"
    text += "- {<<: *first, name: two, salt: b}\n"
    night = step(tmp_path, text)
    gate.judge(night)
    later = Night(night.lake, AS_OF, "one", "shop", "served")
    agreed = definitions.read(later).experiments
    assert [(one.name, one.salt, one.control) for one in agreed] == [
        ("one", "a", "old"), ("two", "b", "old"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no"),
        ("kpi: [", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("just words", "holds no definitions"),
        (yaml.safe_dump(AGREED) + "kpi: conversion\n", "'kpi' stands there twice"),
        (yaml.safe_dump(changed("kpi", to="fame")), "fame"),
    ],
)
def test_a_bad_file_is_a_red_gate_that_says_what_is_wrong(
    tmp_path: Path, text: str | bytes | None, words: str
) -> None:
    night = step(tmp_path, text)
    staged = io.read_arrow(night.staged / "definitions")
    assert any(words in (fault or "") for fault in staged["fault"].to_pylist())
    with pytest.raises(GateRed):
        gate.judge(night)


def test_the_table_has_the_fault_in_place_of_the_value(tmp_path: Path) -> None:
    night = step(tmp_path, yaml.safe_dump(changed("kpi", to="fame")))
    rows: pa.Table = io.read_arrow(night.staged / "definitions")
    broken = [row for row in rows.to_pylist() if row["fault"]]
    assert [row["name"] for row in broken] == ["kpi"]
    assert rows.num_rows == len(definitions.PARTS)
