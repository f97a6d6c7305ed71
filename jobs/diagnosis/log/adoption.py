"""The step ``adoption``: whether the page showed what it was given, in that order.

Reads ``served``. Writes ``adoption`` (a row per surface, period and measure) and
``adoption_symptoms``. A log that never says what the page showed is told as such: nothing can be
known of adoption then, and it is not taken for granted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.diagnosis import symptoms
from jobs.diagnosis.symptoms import Symptom
from jobs.evaluation.metrics import wilson
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

TOLD, SHOWN, IN_ORDER, FIRST = MEASURES = (
    "says what was shown", "shown at all", "in the order given", "begins with the first place",
)  # fmt: skip
REASON = "override: "
COLUMNS = ["request_id", "position", "shown_position", "override_reason", "surface", "period"]


@dataclass(frozen=True)
class Params:
    """How much of what a page does to lists is left to it."""

    # The share of answers, beyond what the weeks before had, that may be hidden or reordered.
    more: float = 0.05
    # The share that may be at all; a page that never follows its lists is bypassed from the start.
    most: float = 0.30
    # Fewer answers than this do not say what a page does.
    requests: int = 200

    def __post_init__(self) -> None:
        check(0 < self.more <= self.most < 1, "more and most must be 0 < more <= most < 1")
        check(self.requests > 0, "requests must be positive")


def run(night: Night, params: Params) -> None:
    """Stage what the page made of the answers."""
    rows = night.arrow("served", COLUMNS, ds.field("period") != "last_year")
    found = measured(rows)
    night.write("adoption", pa.Table.from_pylist(found, TABLES["adoption"].schema))
    night.write("adoption_symptoms", symptoms.table(wrong(found, params)))


def measured(rows: pa.Table) -> list[dict[str, object]]:
    """The rows of ``adoption``.

    An answer is shown where one of its places was; in order where the places that were shown stand
    as they were given; it begins with the first where the page's first item is the answer's. Of
    surfaces whose log tells what was shown, an answer without any shown place was hidden.
    """
    found: list[dict[str, object]] = []
    for surface in sorted(pc.unique(rows["surface"]).to_pylist()):
        mine = rows.filter(pc.equal(rows["surface"], surface))
        tells = pc.any(pc.is_valid(mine["shown_position"])).as_py()
        for period in sorted(pc.unique(mine["period"]).to_pylist()):
            now = mine.filter(pc.equal(mine["period"], period))
            found += _measures(now, surface, period, tells)
    return found


def _measures(
    rows: pa.Table, surface: str, period: str, tells: bool
) -> Iterator[dict[str, object]]:
    _, request = np.unique(rows["request_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    count = int(request.max()) + 1
    given = rows["position"].to_numpy()
    place = rows["shown_position"].fill_null(0).to_numpy()
    seen = place > 0
    shown = np.bincount(request[seen], minlength=count) > 0

    def row(measure: str, hits: int, of: int) -> dict[str, object]:
        low, high = wilson(hits, of)
        return {
            "surface": surface, "period": period, "measure": measure, "requests": of,
            "share": hits / of, "low": low, "high": high,
        }  # fmt: skip

    yield row(TOLD, count if tells else 0, count)
    reasons = rows["override_reason"].fill_null("").to_numpy(zero_copy_only=False)
    for reason in np.unique(reasons[reasons != ""]):
        hits = len(np.unique(request[reasons == reason]))
        yield row(REASON + str(reason), hits, count)
    if not tells:
        return
    yield row(SHOWN, int(shown.sum()), count)
    if not shown.any():
        return
    order = np.lexsort((place[seen], request[seen]))
    whose, along = request[seen][order], given[seen][order]
    beside = whose[1:] == whose[:-1]
    wrong = np.zeros(count, bool)
    wrong[whose[1:][beside & (along[1:] < along[:-1])]] = True
    yield row(IN_ORDER, int((shown & ~wrong).sum()), int(shown.sum()))
    starts = np.r_[True, ~beside]
    yield row(FIRST, int((along[starts] == 1).sum()), int(shown.sum()))


def wrong(found: list[dict[str, object]], params: Params) -> list[Symptom]:
    """A symptom per surface whose page hides or reorders more answers than it did, or than most."""
    share = {(r["surface"], r["period"], r["measure"]): r for r in found}
    told = []
    for (surface, period, measure), row in share.items():
        if period != "current" or int(str(row["requests"])) < params.requests:
            continue
        requests = int(str(row["requests"]))
        if measure == TOLD and row["share"] == 0:
            told.append(Symptom(
                "not_told", str(surface), 1.0, 1.0, 1.0, requests,
                f"The log of {surface} never says at which place an item was shown: nothing is "
                "known of whether its lists were seen.",
            ))  # fmt: skip
        if measure not in (SHOWN, IN_ORDER, FIRST):
            continue
        off, sure = 1 - float(str(row["share"])), 1 - float(str(row["high"]))
        before = share.get((surface, "reference", measure))
        was = 1 - float(str(before["share"])) if before else 0.0
        limit = min(was + params.more, params.most)
        if sure > limit:
            told.append(Symptom(
                "bypassed", f"{surface}: {measure}", off, limit, off / limit, requests,
                f"On {surface}, {off:.1%} of {requests:,} answers are not “{measure}”, against "
                f"{was:.1%} in the weeks before: the page bypasses its lists.",
            ))  # fmt: skip
    return told
