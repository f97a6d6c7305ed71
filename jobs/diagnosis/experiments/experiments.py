"""The step ``experiments``: whether each experiment may be read, and what it says.

Reads ``definitions``, ``visits``, of the answers in ``served`` what the guardrails need, the
number of ``items``, and the balanced assignments that ``make assign`` kept. Writes
``experiment_checks`` (a row per experiment and check), ``experiment_results`` (a row per arm,
measure and segment, against the control) and ``experiments_symptoms`` (one per experiment whose
assignment is broken, one per guardrail of it that has no number, and one per arm and guardrail that
is broken; a warning per arm that brings less money than the control).

Money a visit is the primary measure, and the only one by segment; the rate of orders and of clicks
are secondary, corrected together, as are the segments. Where several arms are held against the
control, money of everybody is corrected over the arms, so that one of them is called better or
worse by chance once in twenty experiments, not once in twenty arms. An experiment that began before
the window is read from the window's first day on: its fixed interval is then never valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import definitions, symptoms
from jobs.diagnosis.definitions import Definitions, Experiment
from jobs.diagnosis.experiments import assigning, effects, experiment_checks
from jobs.diagnosis.experiments.effects import Difference, Terms
from jobs.diagnosis.experiments.estimates import linearised
from jobs.diagnosis.experiments.experiment_checks import Check
from jobs.diagnosis.experiments.exposure import SUMS, Exposed, exposed
from jobs.diagnosis.experiments.power import LONGEST, SHORTEST, WEEK, duration, least_effect
from jobs.diagnosis.kpis.kpi_cells import ALL, SEGMENTS, Shown, days_of, encoded, ordinal
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

PRIMARY, CONVERSION, CTR, NOVELTY = "revenue_per_session", "conversion", "ctr", "novelty"
LATENCY, RETURNS, COVERAGE = GUARDRAILS = definitions.GUARDRAILS
MEASURES = (PRIMARY, CONVERSION, CTR, NOVELTY, *GUARDRAILS)
GUARDRAIL = "guardrail "  # how its check begins
BY_SEGMENT, SECONDARY, BY_ARM = FAMILIES = ("by segment", "secondary", "by arm")
BUCKETS = 20  # samples of visitors that coverage is counted in
CAPPED = 0.995  # of what was spent before: a few of the largest would set the slope alone


@dataclass(frozen=True)
class Params:
    """How experiments are planned and read."""

    # The day on which the fixed interval is read, once; whole weeks.
    planned_days: int = 28
    # The least effect worth finding, as a share of the control's; looks are made for it.
    effect: float = 0.05
    # How much worse a guardrail may be, as a share of the control's.
    margin: float = 0.05
    # A visitor's first days, which are held against the later ones.
    early_days: int = 7

    def __post_init__(self) -> None:
        check(
            SHORTEST <= self.planned_days <= LONGEST and self.planned_days % WEEK == 0,
            f"planned_days must be whole weeks, {SHORTEST} to {LONGEST} days",
        )
        check(0 < self.effect < 1, "effect must be a share above 0")
        check(0 < self.margin < 1, "margin must be a share above 0")
        check(1 <= self.early_days < SHORTEST, f"early_days must be 1 to {SHORTEST - 1}")


@dataclass(frozen=True)
class Measured:
    """A difference, and what the row says of it beside the numbers; ``family``: of tests that are
    corrected together."""

    arm: str
    measure: str
    segment_kind: str
    segment: str
    visits: int
    visitors: int
    found: Difference
    method: str
    family: str = ""


@dataclass(frozen=True)
class Judged:
    """Of one experiment: its checks, its rows of ``experiment_results``, and what is wrong."""

    checks: list[Check]
    results: list[dict[str, Any]]
    wrong: list[Symptom]


def run(night: Night, params: Params) -> None:
    """Stage the checks, the results and what is wrong."""
    agreed = definitions.read(night)
    last = night.as_of.date() - timedelta(days=1)
    begun = [one for one in agreed.experiments if one.starts.date() <= last]
    window = first_day(night) if begun else last
    found = {one.name: judged(night, one, agreed, window, last, params) for one in begun}
    night.notes["experiments"] = len(agreed.experiments)
    night.notes["experiments_not_begun"] = len(agreed.experiments) - len(begun)
    _write(night, found)


def judged(
    night: Night, defined: Experiment, agreed: Definitions, first: date, last: date, params: Params
) -> Judged:
    """One experiment; ``first``, ``last``: the window's days."""
    starts = defined.starts.date()
    whole = starts >= first  # the window reaches back to the experiment's first day
    columns = [name for name in agreed.segments if name in SEGMENTS]
    names = ["visitor", "day", "period", "arm", *SUMS, "before_value", "returning", *columns]
    who = exposed(night.arrow("visits", names, _rows_of(defined)), defined, columns)
    kept = assigning.kept(night.lake, defined)
    made = experiment_checks.checks(who, defined, whole, kept)
    broken = any(not one.passed and not one.warning for one in made)
    elapsed = (last - max(starts, first)).days + 1
    at_end = whole and elapsed == params.planned_days
    terms = Terms(at_end, broken, params.effect, params.margin)
    measured = list(of_visits(who, terms, params, whole))
    if agreed.guardrails and measured:
        measured += guardrails(night, who, defined, agreed.guardrails, terms)
        made += without_number(measured, who)
    made += powers(measured, who, defined, elapsed, params)
    results = list(table_rows(defined.name, measured, terms))
    return Judged(made, results, [*_of_checks(defined.name, made), *harms(defined, results, terms)])


def first_day(night: Night) -> date:
    """The first day of the window that the log reaches."""
    days = night.arrow("visits", ["day"], ds.field("period") != "last_year")["day"]
    return pc.min(days).as_py() or night.as_of.date()


def _rows_of(defined: Experiment) -> ds.Expression:
    return (ds.field("experiment") == defined.name) & (ds.field("period") != "last_year")


def _write(night: Night, found: dict[str, Judged]) -> None:
    rows = [
        {"experiment": name, "check": one.name, "value": one.value, "limit": one.limit,
         "passed": one.passed, "sentence": one.sentence}
        for name, experiment in found.items()
        for one in experiment.checks
    ]  # fmt: skip
    night.write("experiment_checks", pa.Table.from_pylist(rows, TABLES["experiment_checks"].schema))
    results = [row for experiment in found.values() for row in experiment.results]
    night.write(
        "experiment_results", pa.Table.from_pylist(results, TABLES["experiment_results"].schema)
    )
    wrong = [one for experiment in found.values() for one in experiment.wrong]
    night.write("experiments_symptoms", symptoms.table(wrong))


# --- what is measured ------------------------------------------------------------------------
def of_visits(who: Exposed, terms: Terms, params: Params, whole: bool) -> Iterator[Measured]:
    """The differences of every arm that come from visits."""
    visits, revenue = who.total("visits"), who.total("revenue")
    cap = np.quantile(who.before_value, CAPPED) if len(who.before_value) else 0.0
    before = np.minimum(who.before_value, cap)
    early = who.day - who.first_day[who.person] < params.early_days
    arms = len(who.arms) - 1  # as planned: also of those that nobody is in yet
    for place, arm, in_both in _pairs(who):
        for kind, segment, chosen in _segments(who, in_both):
            group = (who.arm[chosen] == place).astype(np.int64)
            found, less = effects.compare(
                group, revenue[chosen], visits[chosen], terms.effect, before[chosen]
            )
            method = f"ratio by visitor, CUPED (variance {-less:.0%}), Hall's interval"
            family = BY_SEGMENT
            if kind == ALL:
                family = BY_ARM if arms > 1 else ""
                found = replace(found, arms=arms)
                method += f" at 95 % over {arms} arms together" if arms > 1 else ""
            yield Measured(
                arm, PRIMARY, kind, segment, int(visits[chosen].sum()), len(group), found, method,
                family,
            )  # fmt: skip
        group, size = (who.arm[in_both] == place).astype(np.int64), int(visits[in_both].sum())
        for measure, total, count in (
            (CONVERSION, who.total("bought"), visits),
            (CTR, who.total("clicks"), who.total("requests")),
        ):
            found, _ = effects.compare(group, total[in_both], count[in_both], terms.effect)
            yield Measured(
                arm, measure, ALL, ALL, size, len(group), found,
                "ratio by visitor, Hall's interval", SECONDARY,
            )  # fmt: skip
        if whole and early.any() and not early.all():
            first, later = (
                (who.total("revenue", of)[in_both], who.total("visits", of)[in_both])
                for of in (early, ~early)
            )
            yield Measured(
                arm, NOVELTY, ALL, ALL, size, len(group),
                effects.novelty(group, first, later, terms.effect),
                f"money a visit in the first {params.early_days} days less later, by visitor",
            )  # fmt: skip


def guardrails(
    night: Night, who: Exposed, defined: Experiment, names: tuple[str, ...], terms: Terms
) -> Iterator[Measured]:
    """The differences in what must not become worse."""
    places = night.arrow("served", [
        "visitor", "day", "position", "mature", "item_id", "latency_ms", "bought", "returned",
    ], _rows_of(defined))  # fmt: skip
    since = days_of(places["day"]) >= ordinal(defined.starts.date())
    person = pc.fill_null(pc.index_in(places["visitor"], value_set=who.visitor), -1).to_numpy()
    kept = since & (person >= 0)
    places, person = places.filter(pa.array(kept)), person[kept].astype(np.int64)
    for place, arm, chosen in _pairs(who):
        group = (who.arm[chosen] == place).astype(np.int64)
        size = int(who.total("visits")[chosen].sum())
        for name in names:
            if name == COVERAGE:
                items = io.count_rows(night.published("catalogue").table("items"))
                generator = np.random.default_rng(night.seed)
                found = coverage(places, person, who.arm, place, items, generator, terms.effect)
                method = f"items shown by {BUCKETS} even samples of visitors, over the catalogue"
            else:
                total, count = _by_person(places, person, len(who.arm), name)
                found, _ = effects.compare(group, total[chosen], count[chosen], terms.effect)
                method = "ratio by visitor, Hall's interval"
            yield Measured(arm, name, ALL, ALL, size, len(group), found, method)


def without_number(measured: list[Measured], who: Exposed) -> Iterator[Check]:
    """A failed check for each guardrail that some arm has no number of; a warning where that may
    come with time: of the returns of purchases that are mature, or where few people are in each
    such arm."""
    counts = np.bincount(who.arm[who.arm >= 0], minlength=len(who.arms))
    for name in GUARDRAILS:
        mine = [one for one in measured if one.measure == name]
        none = [one for one in mine if not np.isfinite(one.found.both.value).all()]
        if none:
            # Of the arm itself that has none: its control may have thousands, and a number.
            people = max(
                int(counts[who.arms.index(arm)])
                for one in none
                for arm, value in zip((who.arms[0], one.arm), one.found.both.value, strict=True)
                if not np.isfinite(value)
            )
            yield Check(
                f"{GUARDRAIL}{name}", float(len(none)), 1.0, False,
                f"The guardrail {name} has no number in {' or '.join(one.arm for one in none)} or "
                f"in {who.arms[0]}, so that nobody knows whether it holds.",
                people, warning=name != LATENCY or people < experiment_checks.FEWEST,
            )  # fmt: skip


def coverage(
    places: pa.Table,
    person: np.ndarray,
    arms: np.ndarray,
    place: int,
    items: int,
    generator: np.random.Generator,
    effect: float,
) -> Difference:
    """The share of the catalogue that equally many visitors of both arms are shown: of more people
    an arm shows more items, whatever it does."""  # fmt: skip
    both = np.flatnonzero((arms == 0) | (arms == place))
    dealt, group = effects.buckets((arms[both] == place).astype(np.int64), generator, BUCKETS)
    bucket = np.full(len(arms), -1)
    bucket[both] = dealt
    shown = Shown(person, encoded(places["item_id"])[0])
    share = shown.distinct(bucket, 2 * BUCKETS) / max(items, 1)
    found, _ = linearised(group, share, np.ones(len(share)), 2)
    return effects.difference(found, effect)


def powers(
    measured: list[Measured], who: Exposed, defined: Experiment, elapsed: int, params: Params
) -> Iterator[Check]:
    """Whether the planned end is late enough for the effect that is looked for; ``elapsed``: the
    days in which people and variance were seen."""
    primary = [one for one in measured if one.measure == PRIMARY and one.segment_kind == ALL]
    enough = [one.found for one in primary if one.found.enough and one.found.both.value[0] > 0]
    if not enough:
        return
    found = max(enough, key=lambda one: float(one.apart.variance[0]))
    mean, people = float(found.both.value[0]), float(found.both.people[0])
    # People come evenly: by the planned day the variance falls as the days grow.
    then = float(found.apart.variance[0]) * elapsed / params.planned_days
    # At the level that the primary is read at, and that ``plan`` and ``duration`` have.
    least = least_effect(then, effects.ALPHA / found.arms) / mean
    plan = duration(
        mean, params.effect * mean, int((who.arm >= 0).sum()) / elapsed, defined.arms,
        defined.control, float(found.both.variance[0]) * people,
    )  # fmt: skip
    yield Check(
        "power", least, params.effect, least <= params.effect,
        f"By day {params.planned_days} a difference of {least:.1%} is found four times in five; "
        f"one of {params.effect:.1%} is looked for. {plan.sentence}",
    )  # fmt: skip


def _pairs(who: Exposed) -> Iterator[tuple[int, str, np.ndarray]]:
    """Each arm that can be compared with the control: its place, its name, and who is in either."""
    counts = np.bincount(who.arm[who.arm >= 0], minlength=len(who.arms))
    for place, arm in enumerate(who.arms[1:], start=1):
        if counts[0] and counts[place]:
            yield place, arm, (who.arm == 0) | (who.arm == place)


def _segments(who: Exposed, chosen: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """The whole, then every segment that has people of both arms."""
    yield ALL, ALL, chosen
    for kind, segments in who.segments.items():
        for code, name in enumerate(segments.names):
            inside = chosen & (segments.codes == code)
            if len(np.unique(who.arm[inside])) == 2:
                yield kind, name, inside


def _by_person(
    places: pa.Table, person: np.ndarray, people: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """(people,) the total and the count of a guardrail that is a ratio."""
    if name == LATENCY:  # of an answer, told with each of its places
        values = pc.fill_null(places["latency_ms"], np.nan).to_numpy()
        of = np.isfinite(values) & (places["position"].to_numpy() == 1)
        total = np.where(of, values, 0.0)
    else:
        assert name == RETURNS, name
        of = places["bought"].to_numpy() & places["mature"].to_numpy()
        total = of & places["returned"].to_numpy()
    return (
        np.bincount(person, total, minlength=people),
        np.bincount(person, of, minlength=people),
    )


# --- what is said of it ----------------------------------------------------------------------
def table_rows(name: str, measured: list[Measured], terms: Terms) -> Iterator[dict[str, Any]]:
    """The rows of ``experiment_results``; what has no number in one of the arms has no row."""
    known = [one for one in measured if np.isfinite(one.found.both.value).all()]
    q_values: dict[int, float] = {}
    for family in FAMILIES:
        tested = [n for n, one in enumerate(known) if one.family == family and one.found.enough]
        p_values = [known[n].found.p_value(terms) for n in tested]
        if family == BY_ARM and tested:
            adjusted = effects.stepped_down(p_values, known[tested[0]].found.arms)
        else:
            adjusted = effects.corrected(p_values)
        q_values |= dict(zip(tested, adjusted, strict=True))
    for number, one in enumerate(known):
        yield _row(name, one, q_values.get(number), terms)


def _row(name: str, one: Measured, q_value: float | None, terms: Terms) -> dict[str, Any]:
    found = one.found
    control, arm = (float(value) for value in found.both.value)
    p = _or_none(found.p_value(terms))
    (low, high), (always_low, always_high) = found.fixed, found.always
    valid = "fixed interval valid today" if terms.at_end else "always-valid interval holds today"
    return {
        "experiment": name, "arm": one.arm, "measure": one.measure,
        "segment_kind": one.segment_kind, "segment": one.segment, "visits": one.visits,
        "visitors": one.visitors, "mean_control": control, "mean_arm": arm,
        "difference": arm - control, "low": _or_none(low), "high": _or_none(high),
        "always_low": _or_none(always_low), "always_high": _or_none(always_high), "p_value": p,
        "q_value": q_value, "method": f"{one.method}; {valid}",
        "verdict": _verdict(one, q_value if one.family else p, terms),
    }  # fmt: skip


def _verdict(one: Measured, p: float | None, terms: Terms) -> str:
    if one.measure in GUARDRAILS:
        enough = one.visitors >= 2 * effects.FEWEST
        return effects.of_guardrail(one.found, enough, terms, one.measure != COVERAGE)
    if one.measure == NOVELTY:
        return effects.of_effect(one.found, p, terms, effects.FADES, effects.GROWS)
    return effects.of_effect(one.found, p, terms, effects.BETTER, effects.WORSE)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


# --- what is wrong with it -------------------------------------------------------------------
def _of_checks(name: str, made: list[Check]) -> Iterator[Symptom]:
    unmeasured = [one for one in made if one.name.startswith(GUARDRAIL)]
    yield from experiment_checks.unmeasured(name, unmeasured)
    rest = [one for one in made if one.name != "power" and one not in unmeasured]
    broken = experiment_checks.symptom(name, rest)
    if broken:
        yield broken


def harms(defined: Experiment, results: list[dict[str, Any]], terms: Terms) -> Iterator[Symptom]:
    """A symptom for each guardrail that an arm breaks, and a warning for each arm that brings less
    money, by everybody's rows of ``experiment_results``: of a broken assignment none says so.

    A guardrail is held against its margin, money against what chance may take, both in the
    measure's own unit.
    """
    for row in results:
        if row["segment_kind"] != ALL or row["verdict"] != effects.WORSE:
            continue
        if row["measure"] in GUARDRAILS:
            yield _broken_guardrail(defined, row, terms)
        elif row["measure"] == PRIMARY:
            yield _losing_arm(defined, row, terms)


def _broken_guardrail(defined: Experiment, row: dict[str, Any], terms: Terms) -> Symptom:
    effect, margin = abs(row["difference"]), terms.margin * abs(row["mean_control"])
    return Symptom(
        "guardrail_broken", f"{defined.name}, {row['arm']}: {row['measure']}", effect, margin,
        effect / max(margin, 1e-12), row["visitors"],
        f"{_differs(defined, row, terms)} It is a guardrail and may be worse by {margin:.4g} at "
        f"most, {terms.margin:.0%} of the control's.",
        row["p_value"],
    )  # fmt: skip


def _losing_arm(defined: Experiment, row: dict[str, Any], terms: Terms) -> Symptom:
    effect = -row["difference"]
    chance = _valid(row, terms)[1] + effect
    p = row["p_value"] if row["q_value"] is None else row["q_value"]
    # Of several arms one may be worse by Holm's level and not by its interval's: at the limit.
    severity = max(effect / max(chance, 1e-12), 1.0)
    return Symptom(
        "losing_arm", f"{defined.name}, {row['arm']}: {row['measure']}", effect, chance, severity,
        row["visitors"], _differs(defined, row, terms), p, warning=True,
    )  # fmt: skip


def _differs(defined: Experiment, row: dict[str, Any], terms: Terms) -> str:
    low, high = _valid(row, terms)
    return (
        f"The experiment {defined.name}: {row['measure']} is {row['mean_arm']:.4g} in {row['arm']} "
        f"and {row['mean_control']:.4g} in {defined.control}, a difference of "
        f"{row['difference']:+.4g} ({low:+.4g} to {high:+.4g} by the interval that is valid today)."
    )


def _valid(row: dict[str, Any], terms: Terms) -> tuple[float, float]:
    if terms.at_end:
        return row["low"], row["high"]
    return row["always_low"], row["always_high"]
