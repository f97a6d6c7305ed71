"""What follows from staleness curves: the drift window, refresh periods, and how they are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.evaluation import curves
from jobs.evaluation.ageing import KINDS, NDCG_AT, RECALL_AT, TIERS
from jobs.evaluation.curves import Curve
from jobs.tables import F64, I64, S, Table

CURVE = Table(
    "curve", "staleness", "one row per table that ages, tier of items and age",
    ("kind", "tier", "age_days"),
    pa.schema([
        pa.field("kind", S, False), pa.field("tier", S, False), pa.field("age_days", F64, False),
        pa.field("people", I64, False),
        *(pa.field(f"{name}{end}", F64, False)
          for name in ("ndcg", "recall", "loss", "recall_loss") for end in ("", "_low", "_high")),
        # The share of those who bought that had no signal yet when the table was refreshed.
        pa.field("no_list_yet", F64, False),
    ]),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The curves of one table and tier."""

    kind: str
    tier: str
    ndcg: Curve
    recall: Curve


def estimated(
    values: np.ndarray, ages: np.ndarray, drawn: np.ndarray, min_people: int
) -> list[Found]:
    """The curves of every table and tier with enough people; ``values`` come from :func:`judge`."""
    return [
        Found(
            name, tier_name,
            curves.curve(ages, values[kind, 0, tier], drawn),
            curves.curve(ages, values[kind, 1, tier], drawn),
        )
        for kind, name in enumerate(KINDS)
        for tier, tier_name in enumerate(TIERS)
        if np.isfinite(values[kind, 0, tier, :, 0]).sum() >= min_people
    ]  # fmt: skip


def conclusions(found: Sequence[Found], accepted: float) -> dict[str, Any]:
    """The drift window (of all items, as interactions age) and a refresh period per table and
    tier; days that have no end are None."""
    whole = next(each for each in found if (each.kind, each.tier) == ("interactions", "all"))
    drift, decay = curves.window(whole.ndcg, accepted), curves.decay(whole.ndcg)
    return {
        "drift_window_days": drift.days,
        "low": drift.low,
        "high": drift.high,
        "verdict": drift.verdict,
        "largest_age_days": float(whole.ndcg.ages[-1]),
        "accepted_loss": accepted,
        **_decay_facts(decay),
        "cadence": [_cadence(each, accepted) for each in found],
    }


def _cadence(each: Found, accepted: float) -> dict[str, Any]:
    allowed = curves.window(each.ndcg, accepted)
    advised = curves.cadence(each.ndcg, allowed)
    return {
        "table": each.kind,
        "tier": each.tier,
        "cadence": advised.name,
        "every_days": advised.days,
        "loss": advised.loss,
        "loss_low": advised.low,
        "loss_high": advised.high,
        "window_days": allowed.days,
        "low": allowed.low,
        "high": allowed.high,
        "verdict": allowed.verdict,
        **_decay_facts(curves.decay(each.ndcg)),
        "people": each.ndcg.people,
        "fresh_ndcg": float(each.ndcg.mean[0]),
    }


def _decay_facts(decay: curves.Decay | None) -> dict[str, float | None]:
    ends = {} if decay is None else {"tau_days": decay.tau, "tau_low": decay.low,
                                     "tau_high": decay.high}  # fmt: skip
    return {
        name: ends[name] if np.isfinite(ends.get(name, np.inf)) else None
        for name in ("tau_days", "tau_low", "tau_high")
    }


def read(folder: Path) -> tuple[dict[str, Any], pa.Table]:
    """What a measurement wrote: its facts and the table ``curve``."""
    return io.read_json(folder / "staleness.json"), io.read_arrow(folder / CURVE.name)


def page(folder: Path) -> str:
    """The name of a measurement's page."""
    return f"staleness-{folder.parent.name}-{folder.name}.html"


def rows_of(found: Sequence[Found], ages: Sequence[float], waiting: np.ndarray) -> pa.Table:
    """The table ``curve``."""
    rows = []
    for each in found:
        for place, age in enumerate(ages):
            row = {"kind": each.kind, "tier": each.tier, "age_days": float(age),
                   "people": each.ndcg.people, "no_list_yet": float(waiting[place])}  # fmt: skip
            for name, of, part in (
                ("ndcg", each.ndcg, ("mean", "low", "high")),
                ("recall", each.recall, ("mean", "low", "high")),
                ("loss", each.ndcg, ("loss", "loss_low", "loss_high")),
                ("recall_loss", each.recall, ("loss", "loss_low", "loss_high")),
            ):
                for end, field in zip(("", "_low", "_high"), part, strict=True):
                    row[f"{name}{end}"] = float(getattr(of, field)[place])
            rows.append(row)
    return pa.Table.from_pylist(rows, CURVE.schema)


def told(facts: Mapping[str, Any], rows: pa.Table) -> Iterator[str]:
    """The curves as a table and what follows from them, a line each."""
    ages = sorted(set(rows["age_days"].to_pylist()))
    yield f"NDCG@{NDCG_AT} of {facts['people']:,} people by the age of one table, days; in brackets"
    yield "what is lost since age 0, with its 95 % interval"
    yield ""
    for kind in KINDS:
        for tier in TIERS:
            mine = rows.filter((pc.field("kind") == kind) & (pc.field("tier") == tier)).to_pylist()
            if not mine:
                yield f"  {kind}, {tier} items: too few people"
                continue
            yield f"  {kind}, {tier} items ({mine[0]['people']:,} people)"
            for row in mine:
                lost = f"({row['loss']:+.4f}, {row['loss_low']:+.4f} to {row['loss_high']:+.4f})"
                yield (
                    f"    {row['age_days']:>5g}  {row['ndcg']:.4f}  "
                    f"{lost if row['age_days'] else '':36}  recall@{RECALL_AT} {row['recall']:.4f}"
                )
    shares = {row["age_days"]: row["no_list_yet"] for row in rows.to_pylist()}
    yield ""
    yield "Buyers without a list yet, by the age of the lists: " + ", ".join(
        f"{age:g} d {shares[age]:.1%}" for age in ages
    )
    yield ""
    yield from sentences(facts)


def sentences(facts: Mapping[str, Any]) -> Iterator[str]:
    """The recommendation, a sentence a line."""
    accepted, longest = facts["accepted_loss"], facts["largest_age_days"]
    yield f"Drift window: {window_words(facts, facts['drift_window_days'], longest, accepted)}"
    if facts["tau_days"]:
        span = _span(facts["tau_low"], facts["tau_high"])
        yield f"What fades, fades by 1/e in {facts['tau_days']:.3g} days (95 %: {span})."
    elif facts["tau_low"]:
        yield (
            f"What fades, fades by 1/e in {facts['tau_low']:.3g} days or more; ages up to "
            f"{longest:g} days cannot tell how slowly."
        )
    for row in facts["cadence"]:
        share = f"{row['loss']:.1%} ({row['loss_low']:.1%} to {row['loss_high']:.1%})"
        why = {
            "measured": "",
            "flat": "; no drift measurable",
            "unclear": "; too noisy to say more",
        }
        yield (
            f"Refresh {row['table']} for {row['tier']} items {row['cadence']}: costs {share} of "
            f"their NDCG by the end of the period{why[row['verdict']]}."
        )


def window_words(row: Mapping[str, Any], days: float, longest: float, accepted: float) -> str:
    """A window as a sentence; ``row`` has its verdict and interval."""
    if row["verdict"] == "flat":
        return f"at least {longest:g} days; no drift measurable up to there."
    if row["verdict"] == "unclear":
        return (
            f"no drift measurable up to {longest:g} days, but too noisy to say that there is none; "
            f"{row['low']:.3g} days are safe."
        )
    most = "or more" if days >= longest else f"(95 %: {_span(row['low'], row['high'])})"
    return f"{days:.3g} days {most} until {accepted:.0%} of the fresh NDCG is lost."


def _span(low: float, high: float | None) -> str:
    """An interval in days."""
    return f"{low:.3g} days or more" if high is None else f"{low:.3g} to {high:.3g} days"
