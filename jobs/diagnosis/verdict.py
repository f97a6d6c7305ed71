"""The step ``verdict``: five gates in order, and what to mend.

Reads the symptoms of every step, ``replayed``, ``served``, ``baseline_verdicts``, ``model_gains``,
``calibration_slices``, ``experiment_results``, ``shadow_candidates`` and the ledger of the
diagnosis before.
Writes ``verdict_symptoms`` (all of them in the order in which to look at them), ``verdict_gates``
(go or no-go, with the evidence) and ``evaluation_ledger`` (a row per release that ever served, and
per candidate that was compared and did not).

The first gate that is not go says what is at fault: what comes after it is measured by what it
judges, so that a model is not blamed for data that are late, nor a page for a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io, steps
from jobs.diagnosis import baseline, shadow
from jobs.diagnosis.experiments.effects import WORSE
from jobs.diagnosis.experiments.experiments import GUARDRAILS, PRIMARY
from jobs.diagnosis.symptoms import DECISIONING, GATES
from jobs.night import Night
from jobs.release import releases
from jobs.tables import TABLES

GO = "go"
NOT_SERVED = "not served"  # of a candidate: no verdict was reached on what it would have done


@dataclass(frozen=True)
class Params:
    """None: what is wrong is decided by the steps before."""


def run(night: Night, params: Params) -> None:
    """Stage the verdict."""
    found = []
    for step in steps.DIAGNOSIS:
        name = f"{step}_symptoms"
        if name in TABLES and step != "verdict":
            rows = night.arrow(name)
            found += [{"step": step, **row} for row in rows.to_pylist()]
    ordered = in_order(found)
    gates = judged(ordered, against_baseline(night))
    night.write("verdict_symptoms", _table("verdict_symptoms", ordered))
    night.write("verdict_gates", _table("verdict_gates", gates))
    before = night.previous("verdict")
    known = io.read_arrow(before.table("evaluation_ledger")).to_pylist() if before else []
    compared = night.arrow("shadow_candidates").to_pylist()
    now = [*releases_now(night, gates, ordered, compared), *candidates(night, compared)]
    rows = fallen_due(ledger(known, now), night.arrow("replayed").to_pylist())
    night.write("evaluation_ledger", _table("evaluation_ledger", rows))


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, TABLES[name].schema)


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The symptoms with their ``place``: by gate, those that fail it first, by severity."""
    ordered = sorted(
        found,
        key=lambda row: (
            row["warning"], GATES.index(row["gate"]), -row["severity"], row["step"], row["kind"],
            row["subject"],
        ),
    )  # fmt: skip
    return [{"place": number, **row} for number, row in enumerate(ordered, start=1)]


def against_baseline(night: Night) -> str:
    """How the model stands against what it replaced, as evidence of the gate decisioning."""
    whole = ds.field("segment_kind") == "all"
    groups = night.arrow("baseline_verdicts", ["sentence"], whole)["sentence"].to_pylist()
    gains = night.arrow("model_gains", ["surface", "verdict", "sentence"]).sort_by("surface")
    known = gains.filter(pc.not_equal(gains["verdict"], baseline.INSUFFICIENT))
    return " ".join([*groups, *known["sentence"].to_pylist()])


def judged(ordered: list[dict[str, Any]], stands: str = "") -> list[dict[str, Any]]:
    """The five gates; the first that is not go classifies the fault. ``stands``: how the model does
    against its baseline, in sentences."""
    gates, classified = [], False
    for place, gate in enumerate(GATES, start=1):
        mine = [row for row in ordered if row["gate"] == gate]
        failing = [row for row in mine if not row["warning"]]
        first = failing[0] if failing else None
        told = first is not None and not classified
        gates.append({
            "gate": gate,
            "place": place,
            "go": first is None,
            "symptoms": len(failing),
            "warnings": len(mine) - len(failing),
            "evidence": " ".join(
                [first["sentence"] if first else _clear(mine)]
                + ([stands] if stands and gate == DECISIONING else [])
            ),
            "classified": f"fix {_mended(first)}" if told and first else None,
            "action": first["action"] if told and first else None,
        })  # fmt: skip
        classified = classified or told
    return gates


def _mended(first: dict[str, Any]) -> str:
    return f"the {first['remedy']}" if first["remedy"] == "system" else str(first["remedy"])


def _clear(warnings: list[dict[str, Any]]) -> str:
    if not warnings:
        return "Nothing found."
    return f"Nothing that fails it; look at: {warnings[0]['sentence']}"


# --- the ledger ------------------------------------------------------------------------------
def ledger(known: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that were known and those of now, a row per release: that of the diagnosis which
    saw most of its requests, since a release leaves the period day by day."""
    kept = {row["release_id"]: row for row in known}
    for row in now:
        before = kept.get(row["release_id"])
        if before is None or row["requests"] >= before["requests"]:
            kept[row["release_id"]] = row
    return [kept[name] for name in sorted(kept)]


def fallen_due(rows: list[dict[str, Any]], replayed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ledger's rows with what came of their lists, which is known weeks after they served."""
    due = {
        row["night"]: {name: row[name] for name in ("realised", "realised_low", "realised_high")}
        for row in replayed
        if row["realised"] is not None
    }
    # A night that was run again has two releases: what is known of it now is of the newer one.
    newest = {row["night"]: row["judged_at"] for row in sorted(rows, key=lambda r: r["judged_at"])}
    return [
        row | (due.get(row["night"], {}) if row["judged_at"] == newest[row["night"]] else {})
        for row in rows
    ]


# What the ledger takes over of a release's replay.
REPLAYED = (
    "promised", "realised", "realised_low", "realised_high", "features_same", "hash_same",
    "score_same", "order_same", "rebuilt_features_same",
)  # fmt: skip


def releases_now(
    night: Night, gates: list[dict[str, Any]], ordered: list[dict[str, Any]],
    compared: list[dict[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """A row of the ledger per release that served in the current period; ``compared``: rows of
    ``shadow_candidates``."""
    failed = next((gate for gate in gates if not gate["go"]), None)
    first = next((row["kind"] for row in ordered if not row["warning"]), None)
    said = of_steps(night, ordered)
    shadowed = {row["candidate"]: _shadowed(row) for row in compared}
    columns = ["request_id", "release_id", "night", "mature", "bought", "value"]
    shown = night.arrow("served", columns, ds.field("period") == "current")
    replayed = {row["night"]: row for row in night.arrow("replayed").to_pylist()}
    nothing = dict.fromkeys(TABLES["replayed"].schema.names)
    rows = []
    for came in what_came(shown):
        one = replayed.get(came["night"], nothing)
        rows.append({
            **{name: one[name] for name in REPLAYED},
            **came,
            **said,
            "shadow": shadowed.get(came["release_id"]),
            "judged_at": night.as_of,
            "verdict": failed["gate"] if failed else GO,
            "first": first,
        })  # fmt: skip
    return rows


def candidates(night: Night, compared: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row per candidate among those ``compared`` that never served: what was found of it, and
    what was decided and why."""
    served = releases.published_ids(night.lake)
    for row in compared:
        if row["decision"] != shadow.UNREADABLE and row["candidate"] not in served:
            why = f": {row['reason']}" if row["reason"] else ""
            yield {
                "release_id": row["candidate"], "night": None, "requests": 0,
                "judged_at": night.as_of,
                "shadow": f"{_shadowed(row)}{why}", "verdict": NOT_SERVED,
            }  # fmt: skip


def _shadowed(row: dict[str, Any]) -> str:
    return f"{row['decision']}, loses on {row['loses']} surfaces"


def of_steps(night: Night, ordered: list[dict[str, Any]]) -> dict[str, Any]:
    """What the steps say of the days that the releases served in, a text or a number each."""
    drifted = {row["kind"] for row in ordered if row["step"] == "drift" and not row["warning"]}
    whole = ds.field("segment_kind") == "all"
    calibrated = night.arrow(
        "calibration_slices", ["error"], (ds.field("slice_kind") == "all") & (ds.field("bin") == -1)
    )["error"].to_pylist()
    sizes = ["verdict", "gain", "low", "high"]
    against = night.arrow("baseline_verdicts", sizes, whole).to_pylist()
    gains = night.arrow("model_gains", ["surface", *sizes]).to_pylist()
    broken = ds.field("measure").isin(GUARDRAILS) & (ds.field("verdict") == WORSE)
    arms = night.arrow(
        "experiment_results",
        ["experiment", "arm", "measure", "verdict", "difference", "low", "high"],
        whole & ((ds.field("measure") == PRIMARY) | broken),
    ).to_pylist()  # fmt: skip
    return {
        "symptoms": _listed(
            {f"{row['gate']}: {row['kind']}" for row in ordered if not row["warning"]}
        ),
        "drift": _listed(drifted),
        "calibration_error": next(iter(calibrated), None),
        "baseline": next((f"{row['verdict']}{_sized(row, 'gain')}" for row in against), None),
        "off_policy": _listed(
            f"{row['surface']}: {row['verdict']}{_sized(row, 'gain')}" for row in gains
        ),
        "experiments": _listed(
            f"{row['experiment']}, {row['arm']}: "
            f"{'' if row['measure'] == PRIMARY else row['measure'] + ' '}{row['verdict']}"
            f"{_sized(row, 'difference')}"
            for row in arms
        ),
    }


def _sized(row: dict[str, Any], name: str) -> str:
    """By how much, with its interval, in words; nothing where that is not known."""
    if row[name] is None:
        return ""
    within = row["low"] is not None and row["high"] is not None
    return f" ({row[name]:+.3g}" + (
        f", {row['low']:+.3g} to {row['high']:+.3g})" if within else ")"
    )


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(sorted(texts)) or "none"


def what_came(shown: pa.Table) -> Iterator[dict[str, Any]]:
    """By release: its night, its requests, the share of the mature ones that bought, and money a
    request."""
    release = shown["release_id"].combine_chunks().dictionary_encode()
    request = shown["request_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    code = release.indices.to_numpy()
    bought = shown["bought"].to_numpy(zero_copy_only=False)
    ripe = shown["mature"].to_numpy(zero_copy_only=False)
    for number, release_id in enumerate(release.dictionary.to_pylist()):
        mine = code == number
        judged = mine & ripe
        conversion = value = None
        if judged.any():
            asked = len(np.unique(request[judged]))
            conversion = len(np.unique(request[judged & bought])) / asked
            value = float(shown["value"].to_numpy()[judged].sum() / asked)
        yield {
            "release_id": release_id,
            "night": shown["night"][int(np.flatnonzero(mine)[0])].as_py(),
            "requests": len(np.unique(request[mine])),
            "conversion": conversion,
            "value_per_request": value,
        }
