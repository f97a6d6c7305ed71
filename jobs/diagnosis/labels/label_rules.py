"""Whether a label means the same everywhere: in every channel and region, told twice, corrected.

A check compares a part of the shop with the rest and with its own past, and says what it found. It
has failed where the difference is beyond its limit and beyond chance; what was as bad before is a
warning, for it explains no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jobs.diagnosis import clusters
from jobs.diagnosis.symptoms import Symptom

# What a unit may be off by: cents for money, thousands, dozens.
FACTORS = (10.0, 12.0, 100.0, 1000.0)
NEAR = 0.06  # of log10: within 15 % of the factor
# Points by which a share may differ before it is another definition and not another clientele.
SHARE_LIMIT = 0.05
SURE = 1e-4  # adjusted for all parts that are looked at; thirty days are then without a false one
FEWEST = 200  # rows of a part, below which shares of a few hundredths say nothing
RATE_LIMIT = 10.0  # times; a channel's share of buyers never moves so far by itself
FEWEST_EXPECTED = 20.0  # outcomes that must have been expected to call their absence one
REACH = 28.0  # days of labels that may be rewritten: as long as the reference usually is
BOOKS = 34.0  # days from one close of books to the next: the longest month, and a weekend
WAS_SO = 0.5  # of the difference: so much of it before makes it nothing new


@dataclass(frozen=True)
class Check:
    """One check of one part: a row of ``label_checks``. ``effect`` and ``limit`` as of a symptom,
    ``always``: it was so before."""

    check: str
    subject: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    passed: bool
    sentence: str
    effect: float
    limit: float
    rows: int
    p_value: float | None = None
    always: bool = False

    def row(self) -> dict[str, object]:
        return {
            "check": self.check, "subject": self.subject, "before": self.before,
            "after": self.after, "low": self.low, "high": self.high, "passed": self.passed,
            "sentence": self.sentence,
        }  # fmt: skip


def symptoms(checks: list[Check]) -> Iterator[Symptom]:
    """The failed checks as symptoms."""
    for one in checks:
        if not one.passed:
            yield Symptom(
                "inconsistent_labels", f"{one.check}: {one.subject}", one.effect, one.limit,
                one.effect / one.limit, one.rows, one.sentence, one.p_value, one.always,
            )  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """One way to divide rows: ``kind`` (channel, region, …), (n,) ``code`` and the ``names``."""

    kind: str
    code: np.ndarray
    names: list[str]


def shares(
    check: str, what: str, marked: np.ndarray, current: np.ndarray, group: np.ndarray,
    divisions: list[Parts],
) -> list[Check]:  # fmt: skip
    """Whether more rows of a part are ``marked``, that is amiss, than of all others.

    ``marked``, ``current``: (n,) bool; ``group``: (n,) random groups of customers. ``what`` reads
    "of the purchases have no value".
    """
    found = []
    for parts in divisions:
        size = len(parts.names)
        sums = {
            name: clusters.by_group(np.where(period, parts.code, -1), group, weight, size)
            for name, period, weight in (
                ("now", current, None), ("marked", current, marked.astype(float)),
                ("then", ~current, None), ("marked then", ~current, marked.astype(float)),
            )
        }  # fmt: skip
        differ, error = clusters.jackknife(_against_rest, sums["marked"], sums["now"])
        was, _ = clusters.jackknife(_against_rest, sums["marked then"], sums["then"])
        rows = sums["now"].sum(axis=1)
        share = _share(sums["marked"].sum(axis=1), rows)
        before = _share(sums["marked then"].sum(axis=1), sums["then"].sum(axis=1))
        # A share of 0 or 1 without spread still rests on so many rows.
        floor = 1 / np.maximum(rows, 1)
        # What is marked is amiss, so that only more of it than elsewhere counts: where one part has
        # much of it, all others have less than the rest.
        p = clusters.holm(clusters.p_values(differ / np.maximum(error, floor), sides=1))
        reach = clusters.reach(0.95) * np.maximum(error, floor)
        for place in np.flatnonzero((rows >= FEWEST) & (rows < rows.sum())):
            off = float(max(differ[place], 0.0))
            found.append(Check(
                check, f"{parts.kind} {parts.names[place]}", _number(before[place]),
                float(share[place]), float(max(0.0, share[place] - reach[place])),
                float(min(1.0, share[place] + reach[place])),
                passed=off < SHARE_LIMIT or p[place] > SURE,
                sentence=f"In {parts.kind} {parts.names[place]} {share[place]:.1%} {what}, against "
                f"{share[place] - differ[place]:.1%} elsewhere and {_percent(before[place])} in "
                "the weeks before.",
                effect=off, limit=SHARE_LIMIT, rows=int(rows[place]), p_value=float(p[place]),
                always=bool(was[place] >= WAS_SO * off),
            ))  # fmt: skip
    return found


def units(
    value: np.ndarray, item: np.ndarray, current: np.ndarray, divisions: list[Parts]
) -> list[Check]:
    """Whether the money a unit of a part is a round factor off the rest's, at the same items.

    ``value``: (n,) float64 money a unit, only rows above 0 count; ``item``: (n,) codes.
    """
    known = value > 0
    level = np.zeros(len(value))
    level[known] = np.log10(value[known])
    level[known] -= _medians(level[known], item[known])[item[known]]
    now, then = known & current, known & ~current
    whole = Parts("all", np.zeros(len(value), np.int32), ["purchases"])
    found = list(_unit_checks(whole, level, now, then))
    for parts in divisions:
        found += _unit_checks(parts, level, now, then)
    return found


def _unit_checks(
    parts: Parts, level: np.ndarray, now: np.ndarray, then: np.ndarray
) -> Iterator[Check]:
    for code, name in enumerate(parts.names):
        mine = parts.code == code
        # A part is held against the rest of its time, the whole against its own past.
        rest = now & ~mine if parts.kind != "all" else then
        if (now & mine).sum() < FEWEST or rest.sum() < FEWEST:
            continue
        off = float(np.median(level[now & mine]) - np.median(level[rest]))
        was = _gap(level, then & mine, then & ~mine)
        factor = min(FACTORS, key=lambda f: abs(abs(off) - np.log10(f)))
        is_unit = abs(abs(off) - np.log10(factor)) < NEAR
        times = f"{factor:g} times" if off > 0 else f"1/{factor:g} of"
        against = "those elsewhere" if parts.kind != "all" else "those of the weeks before"
        said = f"are {times} {against}, item by item: the unit differs" if is_unit else (
            f"are {10**off:.3g} times {against}, item by item"
        )  # fmt: skip
        subject = f"{parts.kind} {name}"
        yield Check(
            "value of a unit", subject, _number(10**was), 10**off, None, None, not is_unit,
            f"Purchases of {subject} {said}.", effect=float(10 ** abs(off)),
            limit=factor * 10**-NEAR, rows=int((now & mine).sum()),
            always=bool(is_unit and abs(was - off) < 2 * NEAR),
        )  # fmt: skip


def rates(bought: np.ndarray, current: np.ndarray, parts: Parts) -> list[Check]:
    """Whether a part has lost its outcomes, or has ten times as many, while the rest has not.

    ``bought``, ``current``: (n,) bool of mature places that were shown.
    """
    size = len(parts.names)
    rows, then = (np.bincount(parts.code[of], minlength=size) for of in (current, ~current))
    hits, were = (
        np.bincount(parts.code[of & bought], minlength=size) for of in (current, ~current)
    )
    found = []
    for place in np.flatnonzero((rows >= FEWEST) & (then >= FEWEST) & (were > 0)).tolist():
        expected = float(were[place] / then[place] * rows[place])
        ratio = float(hits[place] / expected)
        others = _rest_ratio(hits, rows, were, then, place)
        off = max(ratio, 1 / max(ratio, 1e-3))
        subject = f"{parts.kind} {parts.names[place]}"
        passed = expected < FEWEST_EXPECTED or off < RATE_LIMIT or not 0.5 < others < 2
        found.append(Check(
            "outcomes per place", subject, float(were[place] / then[place]),
            float(hits[place] / rows[place]), None, None, passed,
            f"{subject} has {hits[place]:,} outcomes where {expected:,.0f} were to be expected by "
            f"the weeks before, and the rest {others:.2f} times what it had.",
            effect=off, limit=RATE_LIMIT, rows=int(rows[place]),
        ))  # fmt: skip
    return found


def twice(
    pair: np.ndarray, value: np.ndarray, current: np.ndarray, group: np.ndarray
) -> list[Check]:
    """Whether two sources label the same purchase, and whether they agree.

    ``pair``: (n,) codes of request and item of every delivered purchase; ``value``: (n,) money;
    ``group``: (n,) random groups of customers.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for period, of in (("now", current), ("before", ~current)):
        _, first, of_pair, size = np.unique(
            pair[of], return_index=True, return_inverse=True, return_counts=True
        )
        high, low = np.full(len(size), -np.inf), np.full(len(size), np.inf)
        np.maximum.at(high, of_pair, value[of])
        np.minimum.at(low, of_pair, value[of])
        two = size > 1
        unlike = two & (high - low > 0.01 * np.maximum(abs(high), abs(low)))
        whose = group[of][first]
        found[period] = {
            name: _by_group(whose[kept])
            for name, kept in (("pairs", size > 0), ("two", two), ("unlike", unlike))
        }
    return [
        _agreement(
            "labelled twice", "of the purchases are told by two events", found, "two", "pairs"
        ),
        _agreement(
            "two labels disagree", "of what two events tell differs in value", found, "unlike",
            "two",
        ),
    ]  # fmt: skip


def corrections(
    revision: np.ndarray, lag: np.ndarray, age: np.ndarray, current: np.ndarray, group: np.ndarray,
    days: float,
) -> Check:  # fmt: skip
    """Whether labels are read again with another content more often, within ``days``.

    ``revision``: (n,) ints; ``lag``, ``age``: (n,) days from the first delivery to the newest one,
    and to the run date; ``group``: (n,) random groups of customers. Only labels older than ``days``
    count, so that both periods had equal time.
    """
    old = age >= days
    corrected = (revision > 0) & (lag <= days) & old
    found = {
        period: {"labels": _by_group(group[old & of]), "again": _by_group(group[corrected & of])}
        for period, of in (("now", current), ("before", ~current))
    }
    return _agreement("read again", f"of the labels changed within {days:g} days of their first "
                       f"delivery{_after(lag[corrected])}", found, "again", "labels")  # fmt: skip


def rewritten(
    revision: np.ndarray, told: np.ndarray, newest: np.ndarray, group: np.ndarray,
    split: float, whole: float, days: float,
) -> Check:  # fmt: skip
    """Whether more labels of earlier weeks were read again with another content, weeks after.

    ``revision``: (n,) ints; ``told``, ``newest``: (n,) days before the run date of the first and of
    the newest delivery; ``group``: (n,) random groups of customers; ``split``, ``whole``: days of
    the current period and of both. The last days' rewritings are held against the stretch of equal
    length that had most, of the reference and as far back as the last but one close of books lies
    (``BOOKS``), since these are often closed once a month; changes within ``days`` are
    :func:`corrections`.
    """
    length = min(split, whole - split)
    late = (revision > 0) & (told - newest > days)

    def stretch(end: float) -> dict[str, np.ndarray]:
        begin = end + length
        old = (told > begin) & (told <= begin + REACH)
        again = old & late & (newest > end) & (newest <= begin)
        return {"labels": _by_group(group[old]), "again": _by_group(group[again])}

    last = max(whole - length, BOOKS)
    before = [stretch(end) for end in [*np.arange(split, last, max(length, 1.0)), last]]
    before = [one for one in before if one["labels"].sum() >= FEWEST]
    none = {name: np.zeros(clusters.GROUPS) for name in ("labels", "again")}
    most = max(before, key=lambda one: one["again"].sum() / one["labels"].sum(), default=none)
    return _agreement(
        "rewritten weeks after", f"of the labels of the {REACH:g} days before the last "
        f"{length:g} were rewritten in these, more than {days:g} days after their first delivery",
        {"now": stretch(0.0), "before": most}, "again", "labels",
    )  # fmt: skip


def _after(lag: np.ndarray) -> str:
    return f" (half of them after {np.median(lag):.1f} days)" if len(lag) else ""


def _agreement(
    check: str, what: str, found: Mapping[str, Mapping[str, np.ndarray]], part: str, whole: str
) -> Check:
    """Whether a share rose; ``found``: by period and name (groups,) counts, of which ``part`` is
    among ``whole``."""
    now, before = found["now"], found["before"]
    rows, rows_before = int(now[whole].sum()), int(before[whole].sum())
    share, was = now[part].sum() / max(rows, 1), before[part].sum() / max(rows_before, 1)
    differ, error = clusters.jackknife(
        lambda a, b, c, d: np.nan_to_num(_share(a, b)) - np.nan_to_num(_share(c, d)),
        now[part], now[whole], before[part], before[whole],
    )  # fmt: skip
    more = float(differ)
    noise = max(float(error), 1 / max(min(rows, rows_before), 1))
    reach = clusters.reach(0.95) * noise
    p = float(clusters.p_values(np.array([more / noise]), sides=1)[0])
    few = min(rows, rows_before) < FEWEST
    return Check(
        check, "purchases", float(was) if rows_before else None, float(share),
        float(max(0.0, share - reach)), float(min(1.0, share + reach)),
        passed=few or more < SHARE_LIMIT or p > SURE,
        sentence=f"{share:.1%} {what}, against "
        f"{_percent(was if rows_before else np.nan)} in the weeks before.",
        effect=max(more, 0.0), limit=SHARE_LIMIT, rows=rows, p_value=p,
    )  # fmt: skip


# --- arithmetic ------------------------------------------------------------------------------
def _against_rest(marked: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The share of marked rows of each part less that of all other parts; parts come first."""
    others = rows.sum(axis=0) - rows
    rest = _share(marked.sum(axis=0) - marked, others)
    return np.nan_to_num(_share(marked, rows) - rest)


def _by_group(group: np.ndarray) -> np.ndarray:
    """(groups,) rows of each."""
    return np.bincount(group, minlength=clusters.GROUPS).astype(float)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _rest_ratio(
    hits: np.ndarray, rows: np.ndarray, were: np.ndarray, then: np.ndarray, place: int
) -> float:
    """Outcomes of all parts but one, over what their rates before lead to expect; 1 without any."""
    others = np.arange(len(rows)) != place
    expected = (_over(were, then) * rows)[others].sum()
    return float(hits[others].sum() / expected) if expected > 0 else 1.0


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


def _medians(values: np.ndarray, code: np.ndarray) -> np.ndarray:
    """The lower median of the values of each code from 0 to the largest."""
    order = np.lexsort((values, code))
    size = np.bincount(code)
    middle = np.cumsum(size) - size + np.maximum(size - 1, 0) // 2
    return values[order][np.minimum(middle, len(values) - 1)] if len(values) else np.zeros(0)


def _gap(level: np.ndarray, mine: np.ndarray, rest: np.ndarray) -> float:
    if not mine.any() or not rest.any():
        return 0.0
    return float(np.median(level[mine]) - np.median(level[rest]))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _percent(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "nothing"
