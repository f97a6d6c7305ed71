"""Whether the return policy changed: share and time of returns, in parts of the shop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis import clusters
from jobs.diagnosis.labels import label_rules, returns
from jobs.diagnosis.labels.label_rules import Check, Parts
from jobs.diagnosis.labels.returns import HORIZON, Change, Spells
from jobs.diagnosis.symptoms import Symptom

# Times as many or as few returns, at equal age, before it is another policy: seasons and
# promotions move them by a fifth to a third.
RATIO = 1.5
POINTS = 0.005  # of all purchases: below, the shop's numbers do not feel it
FEWEST = 10.0  # returns that the reference leads to expect
SURE = 1e-3  # adjusted for the ages, and among parts the parts, looked at
CANCELLED_DAYS = 0.5  # between a purchase and its return, within which nothing was delivered
OLD_ENOUGH = 28.0  # days a purchase has had to come back
WHOLE, ANY = "all purchases", "any age"
NEW, OLD = "purchases of the period", "purchases of any time"


@dataclass(frozen=True)
class Look:
    """One comparison: of which part, of which purchases and ages, and what came of it."""

    part: str
    of: str
    ages: str
    change: Change


def judge(
    rows: pa.Table, age: np.ndarray, known: np.ndarray, split: float, whole: float
) -> tuple[list[Check], list[Check], list[Symptom]]:
    """Checks of how many come back; of what parts of the shop call a return; and the symptoms of
    the first. The second are labels like others.

    A purchase is back when that is known: the last days' returns are still to be told, and those of
    the reference no more, so that dated by when they were made a constant lag would be a change.

    ``rows``: purchases and returns with key_type, key, item_id, channel, region, event_type, value;
    ``age``, ``known``: (n,) days before the run date when it was done and first received;
    ``split``, ``whole``: days of the current period and of both.
    """
    back = pc.equal(rows["event_type"], "return").to_numpy()
    whose, customer = _codes(rows)
    of = returns.linked(whose, back, -age)
    bought = np.flatnonzero(~back)
    place = np.full(len(age), -1, np.int64)
    place[bought] = np.arange(len(bought))
    hit = of >= 0
    days = returns.days_to_return(len(bought), place[of[hit]], age[of[hit]] - known[hit])
    divisions = [Parts(kind, *clusters.frequent(rows[kind])) for kind in ("channel", "region")]
    looks = _looks(age[bought], days, customer[bought], divisions, bought, split, whole)
    seen = _Seen(rows, age, split, divisions)
    others = [
        *_orphans(seen, back & (age <= whole), of),
        *_kinds(seen, np.flatnonzero(hit & (age <= whole)), of),
        *_never_back(seen, bought, np.flatnonzero(back), np.isfinite(days), whole),
    ]
    # The many parts are a family of looks of their own, so that they cost the whole no power.
    of_whole = _clear([one for one in looks if one.part == WHOLE])
    of_parts = _clear([one for one in looks if one.part != WHOLE])
    beyond = [one for one, _ in (*of_whole, *of_parts)]
    return [_check(one, one not in beyond) for one in looks], others, found(of_whole, of_parts)


def found(of_whole: list[tuple[Look, float]], of_parts: list[tuple[Look, float]]) -> list[Symptom]:
    """What is beyond the limits: of the whole shop if that is, else of the worst part."""
    clear = of_whole or of_parts
    if not clear:
        return []
    look, sure = max(clear, key=lambda one: (one[0].ages == ANY, _off(one[0].change)))
    off = _off(look.change)
    return [Symptom(
        "return_policy", look.part, float(np.exp(off)), RATIO, off / float(np.log(RATIO)),
        look.change.rows, _sentence(look), sure,
    )]  # fmt: skip


def _clear(looks: list[Look]) -> list[tuple[Look, float]]:
    """The looks of a family that are beyond the limits, and how sure that is."""
    p = clusters.holm(np.array([one.change.p_value for one in looks]))
    return [(one, float(sure)) for one, sure in zip(looks, p, strict=True) if _is_other(one, sure)]


def _codes(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(n,) codes of customer and item, and of customers."""
    kind, kinds = clusters.codes(rows["key_type"])
    key, _ = clusters.codes(rows["key"])
    item, items = clusters.codes(rows["item_id"])
    customer = key.astype(np.int64) * max(len(kinds), 1) + kind
    return customer * max(len(items), 1) + item, customer


def _looks(
    age: np.ndarray, days: np.ndarray, customer: np.ndarray, divisions: list[Parts],
    bought: np.ndarray, split: float, whole: float,
) -> list[Look]:  # fmt: skip
    """Every comparison that has enough returns: of purchases made in the periods, and of all that
    could come back in them; of these also the early and the late ones."""
    parts = [(WHOLE, np.ones(len(age), bool))]
    for one in divisions:
        code = one.code[bought]
        parts += [(f"{one.kind} {name}", code == place) for place, name in enumerate(one.names)]
    looks = []
    for part, of in parts:
        made = (age[of], days[of], customer[of], split, whole)
        any_time = returns.watched(*made, cohort=False)
        looks += [
            Look(part, NEW, ANY, returns.compare(returns.watched(*made, cohort=True))),
            Look(part, OLD, ANY, returns.compare(any_time)),
        ]
        if part == WHOLE:
            looks += _by_age(any_time)
    return [one for one in looks if one.change.expected >= FEWEST]


def _by_age(spells: Spells) -> list[Look]:
    middle = returns.median_age(spells.of(~spells.current))
    if not np.isfinite(middle):
        return []
    day = int(min(max(middle, 1), HORIZON - 1))
    return [
        Look(WHOLE, OLD, f"before day {day}", returns.compare(spells, 0, day)),
        Look(WHOLE, OLD, f"from day {day}", returns.compare(spells, day, HORIZON)),
    ]


def _is_other(look: Look, sure: float) -> bool:
    moved = abs(look.change.after - look.change.before)
    return sure <= SURE and _off(look.change) >= np.log(RATIO) and moved >= POINTS


def _off(change: Change) -> float:
    """How far the ratio is from 1, either way."""
    return abs(float(np.log(max(change.ratio, 1e-3))))


def _sentence(look: Look) -> str:
    change = look.change
    ages = "" if look.ages == ANY else f" {look.ages} of their age"
    return (
        f"Of {look.part} {change.after:.1%} come back{ages}, against {change.before:.1%} in the "
        f"weeks before at equal age: {change.ratio:.2f} times the {change.expected:,.0f} returns "
        "that those led to expect."
    )


def _check(look: Look, passed: bool) -> Check:
    change = look.change
    return Check(
        f"returns of {look.of}, {look.ages}", look.part, change.before,
        change.after, None, None, passed, _sentence(look), effect=change.ratio, limit=RATIO,
        rows=change.rows, p_value=change.p_value,
    )  # fmt: skip


# --- what a return is ------------------------------------------------------------------------
@dataclass(frozen=True)
class _Seen:
    """Purchases and returns, (n,) their days ``age`` before the run date, those of the current
    period, and the parts of the shop."""

    rows: pa.Table
    age: np.ndarray
    split: float
    divisions: list[Parts]

    def shares(
        self, check: str, what: str, of: np.ndarray, marked: np.ndarray, since: float | None = None
    ) -> list[Check]:
        """Whether more of the rows ``of``, (m,) their places, are ``marked``, (m,) bool, in a part
        than elsewhere; current are those at most ``since`` days old, or of the current period."""
        return label_rules.shares(
            check, what, marked, self.age[of] <= (self.split if since is None else since),
            clusters.groups(self.rows["key"].take(pa.array(of))),
            [Parts(one.kind, one.code[of], one.names) for one in self.divisions],
        )  # fmt: skip


def _orphans(seen: _Seen, recent: np.ndarray, of: np.ndarray) -> list[Check]:
    """Returns whose purchase is not known, by part."""
    back = np.flatnonzero(recent)
    what = "of the returns are of no purchase that is known"
    return seen.shares("return without purchase", what, back, of[back] < 0)


def _kinds(seen: _Seen, back: np.ndarray, of: np.ndarray) -> Iterator[Check]:
    """Cancellations and refunds that a part of the shop records as returns; ``back``: places of
    returns whose purchase is known."""
    money = np.abs(pc.fill_null(seen.rows["value"], 0.0).to_numpy())
    paid, given = money[of[back]], money[back]
    soon = seen.age[of[back]] - seen.age[back] < CANCELLED_DAYS
    for check, what, marked in (
        ("cancelled", "of the returns come within hours of their purchase: cancelled", soon),
        ("return without money", "of the returns do not say what was paid back", given == 0),
        ("refund of a part", "of the returns pay back less than nine tenths of the price",
         (given > 0) & (given < 0.9 * paid)),
    ):  # fmt: skip
        yield from seen.shares(check, what, back, marked)


def _never_back(
    seen: _Seen, bought: np.ndarray, back: np.ndarray, returned: np.ndarray, whole: float
) -> Iterator[Check]:
    """Parts that record no return at all, while of the others' purchases that had four weeks to
    come back some did; ``bought``: places of purchases, ``back``: of returns, ``returned``: whether
    each purchase came back."""
    recorded = {
        f"{one.kind} {one.names[code]}"
        for one in seen.divisions
        for code in np.unique(one.code[back])
    }
    old = (seen.age[bought] > OLD_ENOUGH) & (seen.age[bought] <= whole + HORIZON)
    what = "of the purchases of four weeks ago and more never came back"
    for one in seen.shares("no returns", what, bought[old], ~returned[old], since=whole):
        # Few returns are a clientele; none are a record that is not kept.
        yield replace(one, passed=True) if one.subject in recorded else one
