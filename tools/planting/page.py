"""Faults of what the page does with a list, and the world without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tools.planting.tables import Planted, Tables, hidden, looked_at, luck, with_luck


def threshold(tables: Tables, fault: Planted) -> Tables:
    """A least score is set under which 80 % x severity of the scored places are, and the page
    leaves those out."""
    asked, log = tables.requests, tables.log
    scored = pc.is_valid(log["feature_hash"]).to_numpy()
    score = log["score"].to_numpy()
    shown = pc.is_valid(log["shown_position"]).to_numpy()
    limit = float(np.quantile(score[scored & shown], 0.8 * fault.severity))
    below = scored & shown & (score < limit) & asked.since(fault)[asked.of(log)]
    decision = {**tables.metrics["decision"], "threshold": min(limit, 1.0)}
    made = hidden(tables, below)
    return replace(made, metrics={**tables.metrics, "decision": decision})


def bypassed(tables: Tables, fault: Planted) -> Tables:
    """In a share of requests, the severity, the page hides the list (``how: hidden``), shows it
    from its end (``reordered``), shows its first place alone (``cut``), or puts as many items of
    its own above it as a list has (``pushed``); without ``how`` half are hidden and half reordered,
    some with a reason."""
    asked, log = tables.requests, tables.log
    how = fault.option("how", "both")
    drawn = luck(asked.ids, tables.seed, fault) / fault.severity
    chosen = asked.since(fault) & (drawn < 1.0)
    hides = chosen & ((how == "hidden") | ((how == "both") & (drawn < 0.5)))
    request = asked.of(log)
    turned = (chosen & ~hides & (how in ("reordered", "both")))[request]
    place = pc.fill_null(log["shown_position"], 0).to_numpy()
    if how in ("cut", "pushed"):
        hit = chosen[request] & (place > 0)
        if how == "cut":
            return hidden(tables, hit & (place > 1))
        below = np.where(hit, place + place.max(), place)
        return looked_at(
            tables.with_columns("log", shown_position=pa.array(below, mask=place == 0))
        )
    last = np.zeros(len(asked.ids), np.int64)
    np.maximum.at(last, request, place)
    new = np.where(turned & (place > 0), last[request] + 1 - place, place)
    reason = log["override_reason"].to_numpy(zero_copy_only=False).astype(object)
    reason[turned & (drawn[request] * 100 % 5 < 1)] = "page: campaign"
    made = tables.with_columns(
        "log", shown_position=pa.array(new, mask=place == 0), override_reason=reason.tolist()
    )
    return hidden(made, hides[request])


def clean(tables: Tables, fault: Planted) -> Tables:
    """No fault: the same people are asked again, with other luck (``seed``)."""
    asked = tables.requests
    rng = np.random.default_rng([tables.seed, 5, fault.option("seed", 0)])
    return with_luck(tables, asked.since(fault)[asked.of(tables.truth)], rng)
