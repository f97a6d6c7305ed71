"""What became of the rows of the log, of the answers to it and of who asked, and what of it is a
symptom: a log that lacks what it should hold is counted and named, never averaged away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.diagnosis.definitions import Definitions
from jobs.diagnosis.symptoms import Symptom
from jobs.tables import TABLES

READ = "rows of the log"
KEPT = "kept"
INCOMPLETE = "dropped: a key, an item, a place, a request or a release is missing"
UNDATED = "dropped: neither a time nor a release says of which day a row is"
REPEATED = "dropped: a repeat of a place or of an item"
NO_RELEASE = "kept: of a release that was never published here"
RETIRED = "kept: of a release that was published and whose tables are gone"
NO_PROPENSITY = "kept: without propensity"
NO_FEATURES = "kept: a scored place without features"
NO_PERSON = "kept: of a key that its release did not know"
ANSWERS = "answers: counted"
BEFORE = "answers: before their request"
TOO_LATE = "answers: too late to count"
STRAY = "answers: to a request or an item that the log lacks"
TWO_FORMS = "days: with features on some answers and in another form on others"
TWO_ARMS = "visitors: in two arms of an experiment"
NO_ARM = "arms: defined and never seen"
NOT_AN_ARM = "arms: seen and not defined"

# Shares above which a log is no longer a basis to judge by; below, single rows are the noise of
# any delivery.
LIMITS = {
    INCOMPLETE: 0.01, REPEATED: 0.10, NO_FEATURES: 0.10, BEFORE: 0.01, STRAY: 0.05,
    NO_PERSON: 0.90,
}  # fmt: skip
NO_RELEASE_LIMIT = 0.05
# Requests by visitors who came up lately, above what the weeks before had, in shares of requests.
YOUNG_LIMIT = 0.06
YOUNG_SIGMAS = 5.0  # of the spread between days
# And of visitors a day at least half as many more are young, and fewer are not: the same people
# under more keys. A campaign brings newcomers and takes nobody away, and newcomers who ask more
# often are no more of them.
EXCHANGED = YOUNG_LIMIT / 2
WEEK = 7


def counts(
    rows: DataFrame, served: DataFrame, answers: DataFrame, naming: DataFrame,
    agreed: Definitions, untimed: Mapping[str, int],
) -> pa.Table:  # fmt: skip
    """The table ``log_counts``.

    ``rows``: the log of the periods with ``outcome`` and ``has_features``; ``served``: what was
    kept; ``answers``: with ``in_time`` and ``before``; ``naming``: event_id of the events that name
    a request, their ``period``, and ``known``, whether the log has its place; ``untimed``: rows of
    the log without a time, by the period in which their release served, and ``UNDATED``.
    """
    scored = F.col("fallback").isNull() & F.col("score").isNotNull()
    kept = F.col("outcome") == KEPT
    of_log = _sums(
        rows,
        kept=kept,
        incomplete=F.col("outcome") == INCOMPLETE,
        repeated=F.col("outcome") == REPEATED,
        scored=kept & scored,
        propensity=kept & F.col("propensity").isNull(),
        features=kept & ~F.col("has_features") & scored,
    )
    whose = _sums(served, published=~F.col("published"), gone=F.col("published")
                  & F.col("night").isNull(), person=F.col("person_id").isNull())  # fmt: skip
    form = F.count_distinct(F.when(scored, F.coalesce("feature_version", F.lit(""))))
    days = rows.where(kept).groupBy("period", F.to_date("request_time")).agg(
        (form > 1).alias("two")
    )  # fmt: skip
    forms = _sums(days, two=F.col("two"))
    asked = _answers(served, answers, naming)
    arms = _arms(served, agreed)
    found: list[dict[str, object]] = []
    for period, told in of_log.items():
        extra = untimed.get(period, 0)
        read, who = told["rows"] + extra, whose.get(period, _nothing("published", "gone", "person"))

        def row(outcome: str, count: int, whole: int, period: str = period) -> None:
            found.append(
                {"period": period, "outcome": outcome, "rows": count,
                 "share": count / max(whole, 1)}
            )  # fmt: skip

        row(READ, read, read)
        row(KEPT, told["kept"], read)
        row(INCOMPLETE, told["incomplete"] + extra, read)
        row(REPEATED, told["repeated"], read)
        if period == "current":
            lost = untimed.get(UNDATED, 0)
            row(UNDATED, lost, read + lost)
        row(NO_PROPENSITY, told["propensity"], told["kept"])
        row(NO_FEATURES, told["features"], told["scored"])
        row(NO_RELEASE, who["published"], told["kept"])
        row(RETIRED, who["gone"], told["kept"])
        row(NO_PERSON, who["person"], told["kept"])
        two = forms.get(period, _nothing("two", "rows"))
        row(TWO_FORMS, two["two"], two["rows"])
        for outcome, (count, whole) in {**asked.get(period, {}), **arms.get(period, {})}.items():
            row(outcome, count, whole)
    return pa.Table.from_pylist(found, TABLES["log_counts"].schema)


def _nothing(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 0)


def _sums(rows: DataFrame, **conditions: Column) -> dict[str, dict[str, int]]:
    """By period, how many rows there are, and of how many each condition holds."""
    sums = [F.sum(held.cast("long")).alias(name) for name, held in conditions.items()]
    found = rows.groupBy("period").agg(F.count("*").alias("rows"), *sums).collect()
    return {
        told["period"]: {name: told[name] or 0 for name in ("rows", *conditions)} for told in found
    }


def _answers(
    served: DataFrame, answers: DataFrame, naming: DataFrame
) -> dict[str, dict[str, tuple[int, int]]]:
    """By period, events that name a request, to a place of the log, in time or not, or to nothing
    known: how many, and of how many."""
    place = served.select("request_id", "position", "period")
    placed = answers.join(place, on=["request_id", "position"], how="inner")
    told = _sums(placed, counted=F.col("in_time"), before=F.col("before"))
    stray = _sums(naming, known=F.col("known"))
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for period in {*told, *stray}:
        mine = told.get(period, _nothing("rows", "counted", "before"))
        named = stray.get(period, _nothing("rows", "known"))
        unknown = named["rows"] - named["known"]
        whole = mine["rows"] + unknown
        late = mine["rows"] - mine["counted"] - mine["before"]
        found[period] = {
            ANSWERS: (mine["counted"], whole), BEFORE: (mine["before"], whole),
            TOO_LATE: (late, whole), STRAY: (unknown, whole),
        }  # fmt: skip
    return found


def _arms(served: DataFrame, agreed: Definitions) -> dict[str, dict[str, tuple[int, int]]]:
    """By period, visitors in two arms, and arms that are defined or seen and not both."""
    named = served.where(F.col("experiment").isNotNull())
    whose = named.groupBy("period", "experiment", "visitor").agg(
        F.count_distinct("arm").alias("arms")
    )
    split = _sums(whose, several=F.col("arms") > 1)
    seen: dict[str, set[tuple[str, str]]] = {}
    for row in named.select("period", "experiment", "arm").distinct().collect():
        seen.setdefault(row["period"], set()).add((row["experiment"], row["arm"]))
    meant = {(one.name, arm) for one in agreed.experiments for arm in one.arms}
    return {
        period: {
            TWO_ARMS: (split[period]["several"], split[period]["rows"]),
            NO_ARM: (len(meant - arms), len(meant)),
            NOT_AN_ARM: (len(arms - meant), len(arms)),
        }
        for period, arms in seen.items()
    }


def days(served: DataFrame) -> pa.Table:
    """period, day, requests, young (by visitors who came up lately), unknown (of a release that
    was never published here), visitors, and newcomers among them: what is told day by day."""
    young = F.col("tenure").isin("stranger", "new")
    return (
        served.groupBy("period", "day")
        .agg(
            F.count_distinct("request_id").alias("requests"),
            F.count_distinct(F.when(young, F.col("request_id"))).alias("young"),
            F.count_distinct(F.when(~F.col("published"), F.col("request_id"))).alias("unknown"),
            F.count_distinct("visitor").alias("visitors"),
            F.count_distinct(F.when(young, F.col("visitor"))).alias("newcomers"),
        )
        .toArrow()
    )


def found(counted: pa.Table, by_day: pa.Table) -> list[Symptom]:
    """The symptoms of the log itself, in the current period."""
    now = counted.filter(pc.equal(counted["period"], "current")).to_pylist()
    share = {row["outcome"]: row["share"] for row in now}
    rows = {row["outcome"]: row["rows"] for row in now}
    return [*_missing(share, rows), *_releases(by_day), *_strangers(by_day)]


def _missing(share: Mapping[str, float], rows: Mapping[str, int]) -> Iterator[Symptom]:
    for outcome, limit in LIMITS.items():
        if share.get(outcome, 0.0) > limit:
            yield Symptom(
                "incomplete_log", outcome, share[outcome], limit, share[outcome] / limit,
                rows[outcome],
                f"{share[outcome]:.1%} of the log's rows or answers, {rows[outcome]:,}, are "
                f"“{outcome}”; more than {limit:.0%} is no basis to judge by.",
            )  # fmt: skip
    if share.get(UNDATED, 0.0) > LIMITS[INCOMPLETE]:
        yield Symptom(
            "incomplete_log", UNDATED, share[UNDATED], LIMITS[INCOMPLETE],
            share[UNDATED] / LIMITS[INCOMPLETE], rows[UNDATED],
            f"{rows[UNDATED]:,} rows of the log have neither a time nor a release: nobody knows of "
            f"which day they are, and none counts them; beside the current period's rows they are "
            f"{share[UNDATED]:.1%}.",
            warning=True,
        )  # fmt: skip
    if rows.get(TWO_FORMS):
        yield Symptom(
            "incomplete_log", TWO_FORMS, share[TWO_FORMS], 0.0, 1.0 + share[TWO_FORMS],
            rows[TWO_FORMS],
            f"On {rows[TWO_FORMS]} days scored places were logged in two forms: of two feature "
            "versions, or some without one. Two servers answer, and one is not up to date.",
            warning=True,
        )  # fmt: skip


def _releases(by_day: pa.Table) -> Iterator[Symptom]:
    now = _periods(by_day)["current"]
    requests = int(now["requests"].sum())
    share = float(now["unknown"].sum() / max(requests, 1))
    if share > NO_RELEASE_LIMIT:
        yield Symptom(
            "unknown_release", "releases", share, NO_RELEASE_LIMIT, share / NO_RELEASE_LIMIT,
            requests,
            f"{share:.1%} of {requests:,} requests name a release that was never published here: "
            "nobody knows what they were answered from.",
        )  # fmt: skip


def _strangers(by_day: pa.Table) -> Iterator[Symptom]:
    """Known people under new keys, in the current period or in its last week alone: what began
    in the middle makes days differ so much that the period as a whole would hide it."""
    periods = _periods(by_day)
    if "reference" not in periods or len(periods["reference"]["requests"]) < WEEK:
        return
    then, whole = periods["reference"], periods["current"]
    lately = {name: values[-WEEK:] for name, values in whole.items()}
    found = [
        one
        for days, said in ((whole, ""), (lately, f" of the last {WEEK} days"))
        for one in _exchanged_keys(days, then, said)
    ]
    yield from sorted(found, key=lambda one: -one.severity)[:1]


def _exchanged_keys(
    days: dict[str, np.ndarray], reference: dict[str, np.ndarray], said: str
) -> Iterator[Symptom]:
    now, then = (one["young"] / np.maximum(one["requests"], 1) for one in (days, reference))
    more = float(now.mean() - then.mean())
    noise = float(np.sqrt(now.var(ddof=1) / len(now) + then.var(ddof=1) / len(then)))
    if more > YOUNG_LIMIT and more > YOUNG_SIGMAS * noise and _exchanged(days, reference):
        yield Symptom(
            "split_persons", "keys", more, YOUNG_LIMIT, more / YOUNG_LIMIT,
            int(days["requests"].sum()),
            f"{now.mean():.1%} of requests{said} come from people who came up lately, against "
            f"{then.mean():.1%} in the weeks before, and from those known for long fewer: known "
            "people come under keys that nothing links to them.",
        )  # fmt: skip


def _exchanged(days: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> bool:
    """Whether as many more visitors a day are young as others stay away."""
    now, then = (
        {name: float(one[name].mean()) for name in ("visitors", "newcomers")}
        for one in (days, reference)
    )
    came = now["newcomers"] - then["newcomers"]
    stayed_away = (then["visitors"] - then["newcomers"]) - (now["visitors"] - now["newcomers"])
    return min(came, stayed_away) > EXCHANGED * max(then["visitors"], 1.0)


def _periods(by_day: pa.Table) -> dict[str, dict[str, np.ndarray]]:
    """Per period the columns of ``days``, as arrays by day."""
    found = {}
    for period in by_day["period"].unique().to_pylist():
        rows = by_day.filter(pc.equal(by_day["period"], period)).sort_by("day")
        found[period] = {
            name: rows[name].to_numpy().astype(float)
            for name in ("requests", "young", "unknown", "visitors", "newcomers")
        }
    return found
