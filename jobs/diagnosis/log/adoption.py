"""The step ``adoption``: whether the page showed what it was given, in that order.

Reads ``served`` and ``definitions``. Writes ``adoption`` (a row per surface, period and measure)
and ``adoption_symptoms``. A log that never says what the page showed is told as such: nothing can
be known of adoption then, and it is not taken for granted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.diagnosis import definitions, symptoms
from jobs.diagnosis.definitions import Decision
from jobs.diagnosis.symptoms import Symptom
from jobs.evaluation.metrics import wilson
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

TOLD, SHOWN, IN_ORDER, FIRST, PLACES = MEASURES = (
    "says what was shown", "shown at all", "in the order given", "begins with the first place",
    "places shown of those given",
)  # fmt: skip
OF_ANSWERS = (SHOWN, IN_ORDER, FIRST)
REASON = "override: "
COLUMNS = [
    "request_id", "position", "shown_position", "override_reason", "surface", "period", "score",
    "fallback",
]  # fmt: skip
# Of the reference's answers so many begin no lower on the page than its usual place: the rest is
# below what may be amiss, so that a page with two layouts is not bypassed by being as it was.
USUAL = 0.8
DEEPEST = 100  # places below are counted in this one; no page shows so many


@dataclass(frozen=True)
class Params:
    """How much of what a page does to lists is left to it."""

    # The share of answers, beyond what the weeks before had, that may be hidden or reordered.
    more: float = 0.05
    # The share that may be at all; a page that never follows its lists is bypassed from the start.
    most: float = 0.30
    # The share of the places shown before, at equal places given, that may be shown no more: with
    # the mix of screens, and with how far people scroll, it moves by less than a fifth.
    fewer: float = 0.20
    # Fewer answers than this do not say what a page does.
    requests: int = 200

    def __post_init__(self) -> None:
        check(0 < self.more <= self.most < 1, "more and most must be 0 < more <= most < 1")
        check(0 < self.fewer < 1, "fewer must be a share above 0")
        check(self.requests > 0, "requests must be positive")


def run(night: Night, params: Params) -> None:
    """Stage what the page made of the answers."""
    rows = night.arrow("served", COLUMNS, ds.field("period") != "last_year")
    found = measured(rows, definitions.read(night).decision)
    night.write("adoption", pa.Table.from_pylist(found, TABLES["adoption"].schema))
    night.write("adoption_symptoms", symptoms.table(wrong(found, params)))


def measured(rows: pa.Table, decision: Decision) -> list[dict[str, object]]:
    """The rows of ``adoption``.

    An answer is shown where one of its places was; in order where the places that were shown stand
    as they were given; it begins with the first where the first of them is the answer's first, and
    no lower on the page than the surface's lists began in the weeks before, since a page may have
    other surfaces above. Of surfaces whose log tells what was shown, an answer without any shown
    place was hidden. Of the answers that were shown, places are counted at equal ones, so that
    longer lists are no change.
    """
    found: list[dict[str, object]] = []
    for surface in sorted(pc.unique(rows["surface"]).to_pylist()):
        mine = rows.filter(pc.equal(rows["surface"], surface))
        tells = pc.any(pc.is_valid(mine["shown_position"])).as_py()
        usual = _usual_place(mine)
        places: dict[str, _Places] = {}
        for period in sorted(pc.unique(mine["period"]).to_pylist()):
            now = mine.filter(pc.equal(mine["period"], period))
            _, request = np.unique(
                now["request_id"].to_numpy(zero_copy_only=False), return_inverse=True
            )
            found += _measures(now, request, surface, period, usual if tells else None)
            places[period] = _Places.of(now, request, decision)
        found += _places_shown(places, surface)
    return found


def _usual_place(rows: pa.Table) -> int:
    """The place of the page by which a surface's lists begin, of the reference; of a surface that
    has none, of what there is, since nothing says where it should begin."""
    shown = rows.filter(pc.greater(pc.fill_null(rows["shown_position"], 0), 0))
    before = shown.filter(pc.equal(shown["period"], "reference"))
    begins = (before if before.num_rows else shown).group_by("request_id").aggregate(
        [("shown_position", "min")]
    )["shown_position_min"].to_numpy()  # fmt: skip
    return int(np.quantile(begins, USUAL, method="inverted_cdf")) if len(begins) else 1


@dataclass(frozen=True)
class _Places:
    """(DEEPEST + 1,) places by position, of the ``answers`` that were shown: those ``given``, that
    the agreed threshold and capacity leave to the page to show, and of these those ``shown``."""

    given: np.ndarray
    shown: np.ndarray
    answers: int

    @staticmethod
    def of(rows: pa.Table, request: np.ndarray, decision: Decision) -> _Places:
        position = rows["position"].to_numpy()
        seen = pc.fill_null(rows["shown_position"], 0).to_numpy() > 0
        of_shown = (np.bincount(request, seen) > 0)[request]
        own = pc.and_(pc.is_valid(rows["score"]), pc.is_null(rows["fallback"])).to_numpy()
        score = pc.fill_null(rows["score"], 0.0).to_numpy()
        below = own & (score < (decision.threshold or 0.0))
        due = of_shown & ~below & (position <= decision.capacity)
        at = np.minimum(position, DEEPEST)
        return _Places(
            np.bincount(at[due], minlength=DEEPEST + 1),
            np.bincount(at[due & seen], minlength=DEEPEST + 1),
            len(np.unique(request[of_shown])),
        )


def _places_shown(places: dict[str, _Places], surface: str) -> Iterator[dict[str, object]]:
    """The share of the places given that was shown, by period; every period's at the places that
    all periods were given, weighed as the current one's."""
    if not all(one.answers for one in places.values()):
        return
    weight = places.get("current", next(iter(places.values()))).given
    common = np.all([one.given > 0 for one in places.values()], axis=0)
    if not common.any():
        return
    for period, one in places.items():
        shown = one.shown[common] / one.given[common]
        share = min(float(np.average(shown, weights=weight[common])), 1.0)
        # Places of one answer are hidden together: the evidence is that of so many answers.
        yield _row(surface, period, PLACES, share * one.answers, one.answers)


def _row(surface: str, period: str, measure: str, hits: float, of: int) -> dict[str, object]:
    low, high = wilson(hits, of)
    return {
        "surface": surface, "period": period, "measure": measure, "requests": of,
        "share": hits / of, "low": low, "high": high,
    }  # fmt: skip


def _measures(
    rows: pa.Table, request: np.ndarray, surface: str, period: str, usual: int | None
) -> Iterator[dict[str, object]]:
    """What holds of whole answers; ``request``: (n,) which one each row is of, from 0; ``usual``:
    of :func:`_usual_place`, None where the log does not tell what was shown."""
    count = int(request.max()) + 1
    given = rows["position"].to_numpy()
    place = rows["shown_position"].fill_null(0).to_numpy()
    seen = place > 0
    shown = np.bincount(request[seen], minlength=count) > 0

    def row(measure: str, hits: int, of: int) -> dict[str, object]:
        return _row(surface, period, measure, hits, of)

    yield row(TOLD, 0 if usual is None else count, count)
    reasons = rows["override_reason"].fill_null("").to_numpy(zero_copy_only=False)
    for reason in np.unique(reasons[reasons != ""]):
        hits = len(np.unique(request[reasons == reason]))
        yield row(REASON + str(reason), hits, count)
    if usual is None:
        return
    yield row(SHOWN, int(shown.sum()), count)
    if not shown.any():
        return
    order = np.lexsort((place[seen], request[seen]))
    whose, along, at = request[seen][order], given[seen][order], place[seen][order]
    beside = whose[1:] == whose[:-1]
    wrong = np.zeros(count, bool)
    wrong[whose[1:][beside & (along[1:] < along[:-1])]] = True
    yield row(IN_ORDER, int((shown & ~wrong).sum()), int(shown.sum()))
    starts = np.r_[True, ~beside]
    first = (along[starts] == 1) & (at[starts] <= usual)
    yield row(FIRST, int(first.sum()), int(shown.sum()))


def wrong(found: list[dict[str, object]], params: Params) -> list[Symptom]:
    """A symptom per surface whose page hides or reorders more than it did, or than most; of the
    reasons that it gives a warning, since somebody meant them."""
    share = {(r["surface"], r["period"], r["measure"]): r for r in found}
    told = _too_few(found, params)
    answers = Counter[bool]()
    for row in found:
        if row["period"] == "current" and row["measure"] == TOLD:
            answers[row["share"] != 0] += int(str(row["requests"]))
    # A mail never reports what was seen; of a shop that hardly ever does, nobody knows anything.
    mute = answers[False] > answers[True]
    for (surface, period, measure), row in share.items():
        if period != "current" or int(str(row["requests"])) < params.requests:
            continue
        before = share.get((surface, "reference", measure))
        if measure == TOLD and row["share"] == 0:
            told.append(Symptom(
                "not_told", str(surface), 1.0, 1.0, 1.0, int(str(row["requests"])),
                f"The log of {surface} never says at which place an item was shown: nothing is "
                "known of whether its lists were seen.",
                warning=not mute,
            ))  # fmt: skip
        if measure in OF_ANSWERS:
            told += _of_answers(row, before, params)
        elif measure == PLACES and before and int(str(before["requests"])) >= params.requests:
            told += _of_places(row, before, params)
        elif str(measure).startswith(REASON):
            told += _of_reasons(row, before, params)
    return told


def _too_few(found: list[dict[str, object]], params: Params) -> list[Symptom]:
    """The warning of the surfaces whose page is not judged."""
    few = {
        str(row["surface"]): int(str(row["requests"]))
        for row in found
        if row["period"] == "current" and row["measure"] == TOLD
    }
    few = {name: count for name, count in few.items() if count < params.requests}
    if not few:
        return []
    listed = ", ".join(f"{name} ({count:,})" for name, count in sorted(few.items()))
    return [symptoms.unjudged(
        "adoption_unjudged", "answers", max(few.values()), params.requests,
        f"Nothing says what the page makes of these lists: {listed}; {params.requests:,} answers "
        "of the current period are needed.",
    )]  # fmt: skip


def _of_answers(
    row: dict[str, object], before: dict[str, object] | None, params: Params
) -> Iterator[Symptom]:
    off, sure = 1 - float(str(row["share"])), 1 - float(str(row["high"]))
    was = 1 - float(str(before["share"])) if before else 0.0
    limit = min(was + params.more, params.most)
    requests = int(str(row["requests"]))
    if sure > limit:
        yield Symptom(
            "bypassed", f"{row['surface']}: {row['measure']}", off, limit, off / limit, requests,
            f"On {row['surface']}, {off:.1%} of {requests:,} answers are not “{row['measure']}”, "
            f"against {was:.1%} in the weeks before: the page bypasses its lists.",
        )  # fmt: skip


def _of_places(
    row: dict[str, object], before: dict[str, object], params: Params
) -> Iterator[Symptom]:
    now, was = float(str(row["share"])), float(str(before["share"]))
    gone, requests = 1 - now / was if was else 0.0, int(str(row["requests"]))
    if was and 1 - float(str(row["high"])) / was > params.fewer:
        yield Symptom(
            "bypassed", f"{row['surface']}: {PLACES}", gone, params.fewer, gone / params.fewer,
            requests,
            f"On {row['surface']}, the page shows {now:.1%} of the places of the {requests:,} "
            f"answers that it does not hide, against {was:.1%} of equal places in the weeks "
            "before: it replaces the rest.",
        )  # fmt: skip


def _of_reasons(
    row: dict[str, object], before: dict[str, object] | None, params: Params
) -> Iterator[Symptom]:
    share, was = float(str(row["share"])), float(str(before["share"])) if before else 0.0
    limit, requests = was + params.more, int(str(row["requests"]))
    if float(str(row["low"])) > limit:
        yield Symptom(
            "bypassed", f"{row['surface']}: {row['measure']}", share, limit, share / limit,
            requests,
            f"On {row['surface']}, the page gives “{str(row['measure']).removeprefix(REASON)}” as "
            f"its reason to override {share:.1%} of {requests:,} answers, against {was:.1%} in the "
            "weeks before.",
            warning=True,
        )  # fmt: skip
