"""The step ``definitions``: what the team has agreed to call success, read from its metrics file.

Reads the file that the parameter names, else ``metrics.yaml`` in the source's folder. Writes
``definitions``, one row per definition with its value as JSON, and one per fault. There are no
defaults: what the file leaves out or contradicts is a fault, and the gate behind this step is red.

    kpi: revenue_per_session        # or conversion, average_order_value, returning_customers
    model_metric: {name: ndcg, at: 10}          # or recall, hit_rate
    label:
      event: purchase               # or click
      attribution: request          # or window: also what the person did without the list's link
      within_hours: 72              # from the request to the outcome
      maturity_days: 7              # until outcomes have arrived; not below within_hours
      returns: subtract             # or keep
    decision:                       # which scores are acted on, and what that costs
      threshold: null               # the least probability that is shown; null shows all
      capacity: 20                  # the most places a request
      value_of_hit: 1.0
      cost_of_show: 0.02            # below value_of_hit
    segments: [region, segment, tenure, key_type, category]  # what the source fills
    baseline: popularity            # what the system replaced: or fallback, previous_release
    guardrails: [latency_ms]        # or returns, coverage
    experiments:                    # [] where there are none; each with a salt of its own
      - {name: homepage, salt: winter, starts: 2024-01-15, control: old, arms: {old: 0.5, new: 0.5}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from jobs.diagnosis.baseline import BASELINES
from jobs.night import Night
from jobs.tables import TABLES

FILE = "metrics.yaml"
KPIS = ("revenue_per_session", "conversion", "average_order_value", "returning_customers")
METRICS = ("ndcg", "recall", "hit_rate")
LABELS = ("purchase", "click")
ATTRIBUTIONS = ("request", "window")
RETURNS = ("subtract", "keep")
SLICES = ("region", "segment", "tenure", "key_type", "category", "channel", "surface")
GUARDRAILS = ("latency_ms", "returns", "coverage")


@dataclass(frozen=True)
class Params:
    """``file``: the metrics file; empty takes ``metrics.yaml`` in the source's folder."""

    file: str = ""


@dataclass(frozen=True)
class Label:
    """What an outcome is; see the module's docstring."""

    event: str
    attribution: str
    within_hours: float
    maturity_days: float
    returns: str


@dataclass(frozen=True)
class Decision:
    """What showing costs and brings; ``threshold``: the least score shown, None for no limit."""

    threshold: float | None
    capacity: int
    value_of_hit: float
    cost_of_show: float


@dataclass(frozen=True)
class Experiment:
    """An experiment: who is in which arm is decided by a hash of ``salt`` and the person."""

    name: str
    salt: str
    starts: datetime
    control: str
    arms: dict[str, float]


@dataclass(frozen=True)
class Definitions:
    """The whole agreement; ``metric`` and ``at``: the model's metric and its list length."""

    kpi: str
    metric: str
    at: int
    label: Label
    decision: Decision
    segments: tuple[str, ...]
    baseline: str
    guardrails: tuple[str, ...]
    experiments: tuple[Experiment, ...]


def run(night: Night, params: Params) -> None:
    """Read the file and stage what it says."""
    path = Path(params.file).expanduser() if params.file else night.source_folder() / FILE
    given, found = load(path)
    faults = found or check(given)
    rows = [
        {"name": name, "value": json.dumps(value, default=str), "fault": None}
        for name, value in given.items()
        if name in PARTS
    ] + [{"name": where, "value": "", "fault": fault} for where, fault in faults.items()]
    once = {row["name"]: row for row in rows}  # a part with a fault stands as its fault
    schema = TABLES["definitions"].schema
    night.notes["metrics_file"] = str(path)
    night.write("definitions", pa.Table.from_pylist(list(once.values()), schema))


def read(night: Night) -> Definitions:
    """What the published table says. Its gate has held it to be whole."""
    rows = night.arrow("definitions").to_pylist()
    return build({row["name"]: json.loads(row["value"]) for row in rows})


def build(given: Mapping[str, Any]) -> Definitions:
    """The agreement of a file without faults."""
    metric, label, decision = given["model_metric"], given["label"], given["decision"]
    return Definitions(
        kpi=given["kpi"],
        metric=metric["name"],
        at=metric["at"],
        label=Label(**label),
        decision=Decision(**decision),
        segments=tuple(given["segments"]),
        baseline=given["baseline"],
        guardrails=tuple(given["guardrails"]),
        experiments=tuple(
            Experiment(**(one | {"starts": _instant(one["starts"])}))
            for one in given["experiments"]
        ),
    )


# --- faults ----------------------------------------------------------------------------------
MERGE = "tag:yaml.org,2002:merge"  # the key <<, which may stand beside what it is merged with


class _Once(yaml.SafeLoader):
    """Refuses a name that stands twice, of which YAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE]
        twice = [name for n, name in enumerate(names) if name in names[:n]]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} stands there twice", node.start_mark
            )
        return dict(super().construct_mapping(node, deep))


def load(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a metrics file holds by name, and why it cannot be read."""
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _Once)  # noqa: S506 a safe loader
    except FileNotFoundError:
        return {}, {"file": f"there is no {path}; write what success is (see the README) there"}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return {}, {"file": f"{path} cannot be read: {' '.join(str(error).split())}"}
    if not isinstance(given, dict):
        return {}, {"file": f"{path} holds no definitions by name"}
    return given, {}


def check(given: Mapping[str, Any]) -> dict[str, str]:
    """Every fault of a file's content: where, and what is wrong."""
    found = {
        str(name): f"is not known; there are {', '.join(PARTS)}"
        for name in given
        if name not in PARTS
    }
    for name, part in PARTS.items():
        if name not in given:
            found[name] = "is missing; nothing is taken for granted"
            continue
        try:
            part(given[name])
        except (ValueError, TypeError, KeyError) as error:
            found[name] = str(error)
    if "label" not in found and "experiments" not in found and "segments" not in found:
        found |= _contradictions(given)
    return found


def _contradictions(given: Mapping[str, Any]) -> dict[str, str]:
    label, found = given["label"], {}
    if label["maturity_days"] * 24 < label["within_hours"]:
        found["label"] = (
            f"matures after {label['maturity_days']:g} days, before the {label['within_hours']:g} "
            "hours in which an outcome counts are over"
        )
    if given.get("kpi") == "average_order_value" and label["event"] == "click":
        found["kpi"] = "average_order_value is of purchases, but the label is a click"
    wrong = list(_alike(given["experiments"]))
    if wrong:
        found["experiments"] = "; ".join(wrong)
    return found


def _alike(experiments: list[dict[str, Any]]) -> Iterator[str]:
    """Experiments that cannot be told apart: by name, or by effect. A definition has no end, so
    that all that the file has run side by side once they have begun."""
    names = [one["name"] for one in experiments]
    if len(set(names)) < len(names):
        yield "two of them have one name"
        return
    for salt in dict.fromkeys(one["salt"] for one in experiments):
        same = [one["name"] for one in experiments if one["salt"] == salt]
        if len(same) > 1:
            yield (
                f"{' and '.join(same)} have one salt, {salt!r}, which puts the same people side by "
                "side in each, so that neither's effect can be told from the other's; give the one "
                "that has not begun a salt of its own, or take out the one that is over"
            )


def _one_of(known: tuple[str, ...]) -> Callable[[Any], None]:
    def check_one(value: Any) -> None:
        if value not in known:
            raise ValueError(f"is {value!r}, not one of {', '.join(known)}")

    return check_one


def _some_of(known: tuple[str, ...]) -> Callable[[Any], None]:
    def check_some(value: Any) -> None:
        if not isinstance(value, list):
            raise ValueError(f"is {value!r}, not a list")
        strange = [one for one in value if one not in known]
        if strange:
            raise ValueError(f"names {strange}, and there are {', '.join(known)}")

    return check_some


def _metric(value: Any) -> None:
    _fields("model_metric", value, name=str, at=int)
    _one_of(METRICS)(value["name"])
    _above(value, "at")


def _label(value: Any) -> None:
    _fields(
        "label", value, event=str, attribution=str, within_hours=float, maturity_days=float,
        returns=str,
    )  # fmt: skip
    for name, known in (
        ("event", LABELS), ("attribution", ATTRIBUTIONS), ("returns", RETURNS),
    ):  # fmt: skip
        if value[name] not in known:
            raise ValueError(f"{name} is {value[name]!r}, not one of {', '.join(known)}")
    _above(value, "within_hours", "maturity_days")


def _decision(value: Any) -> None:
    unlimited = isinstance(value, dict) and value.get("threshold") is None
    _fields(
        "decision", value, threshold=None if unlimited else float, capacity=int,
        value_of_hit=float, cost_of_show=float,
    )  # fmt: skip
    _above(value, "capacity", "value_of_hit")
    if value["cost_of_show"] < 0:
        raise ValueError("cost_of_show is below 0")
    if value["cost_of_show"] >= value["value_of_hit"]:
        raise ValueError(
            f"cost_of_show is {value['cost_of_show']:g}, value_of_hit {value['value_of_hit']:g}: "
            "no place would be worth showing, however sure; give both in one unit"
        )
    if value["threshold"] is not None and not 0 <= value["threshold"] <= 1:
        raise ValueError("threshold is a probability, from 0 to 1")


def _experiments(value: Any) -> None:
    if not isinstance(value, list):
        raise ValueError(f"is {value!r}, not a list; write [] where there are none")
    for one in value:
        _fields("experiment", one, name=str, salt=str, starts=None, control=str, arms=dict)
        _instant(one["starts"])
        shares = one["arms"]
        if len(shares) < 2 or one["control"] not in shares:
            raise ValueError(f"{one['name']} needs two arms, its control {one['control']!r} too")
        right = all(isinstance(share, int | float) and share > 0 for share in shares.values())
        if not right or abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"the shares of {one['name']} are not above 0 and 1 together")


def _fields(what: str, value: Any, **kinds: type | None) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"is {value!r}; it holds {', '.join(kinds)}")
    missing = [name for name in kinds if name not in value]
    strange = [str(name) for name in value if name not in kinds]
    if missing or strange:
        said = [f"lacks {', '.join(missing)}"] if missing else []
        said += [f"has no {', '.join(strange)}"] if strange else []
        raise ValueError(f"{what} {' and '.join(said)}")
    for name, kind in kinds.items():
        got = value[name]
        fits = kind is None or isinstance(got, (int, float) if kind is float else kind)
        if not fits or isinstance(got, bool):
            raise ValueError(
                f"{what}.{name} is {got!r}, expected a {kind.__name__ if kind else ''}"
            )
        if isinstance(got, float) and not math.isfinite(got):
            raise ValueError(f"{what}.{name} is {got!r}, which is no number")


def _above(value: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if not value[name] > 0:
            raise ValueError(f"{name} is {value[name]!r}, not above 0")


def _instant(value: Any) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


PARTS: dict[str, Callable[[Any], None]] = {
    "kpi": _one_of(KPIS),
    "model_metric": _metric,
    "label": _label,
    "decision": _decision,
    "segments": _some_of(SLICES),
    "baseline": _one_of(BASELINES),
    "guardrails": _some_of(GUARDRAILS),
    "experiments": _experiments,
}
