"""Links between keys: the state of each at a cut, and which of them may join anything.

A link is known at a cut where it was received (else observed) strictly before it. Its state there
is the last action known on the unordered pair of keys from one source. What a link may do is
judged here row by row; what it does to a group of keys is judged in ``components``. As many links
as arrays take are judged in memory, by the same rules in ``linking``.

Every refusal is an outcome with a name, so that none is silent:

- not rows of the table, since nothing names them: ``no_key`` (an end without key or key type),
  ``no_source``, ``no_time``; they are counted;
- ``unlinked``: the last action took it back; ``unknown_action``: neither link nor unlink;
- ``observed_in_the_future``: a clock says that it has not happened yet;
- ``self_link``; ``confidence_outside_0_1``: null and NaN too;
- ``unknown_source``: a source of which the policy does not say what its links are worth;
- ``no_account``: a login on a key of a type that no parameter names, and on no account;
- ``below_threshold``: a guess that is not sure enough;
- ``household``: says who lives together, never who is the same person;
- ``unknown_key``: an end that no event and no person names.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from jobs.signals.identities import Params

KEY = ["key_type", "key"]
PAIR = ["key_type_a", "key_a", "key_type_b", "key_b"]
STATE = [*PAIR, "source", "confidence", "observed_time", "known_time", "outcome"]
LINK, UNLINK = "link", "unlink"
FINGERPRINTS = tuple(f"{at}_{part}" for at in ("past", "known") for part in ("rows", "high", "low"))
TALLIED = (
    "received", "no_key", "no_source", "no_time", "not_yet_known", "received_before_observed",
    "observed_after_as_of", *FINGERPRINTS,
)  # fmt: skip


def usable(links: DataFrame) -> DataFrame:
    """The rows that name two keys, a source and a time, their ends in order, with ``known_time``.

    ``source`` and ``action`` are read whatever their case and the spaces around them; ``action`` is
    null for a word that is neither link nor unlink.
    """
    a = F.struct(F.col("key_type_a").alias("key_type"), F.col("key_a").alias("key"))
    b = F.struct(F.col("key_type_b").alias("key_type"), F.col("key_b").alias("key"))
    said = F.lower(F.trim(F.coalesce("action", F.lit(LINK))))
    rows = links.where(_fault(links).isNull()).withColumns(
        {"low": F.least(a, b), "high": F.greatest(a, b), "known_time": known_time()}
    )
    return rows.select(
        F.col("low.key_type").alias("key_type_a"), F.col("low.key").alias("key_a"),
        F.col("high.key_type").alias("key_type_b"), F.col("high.key").alias("key_b"),
        F.lower(F.trim("source")).alias("source"), "confidence", "observed_time", "received_time",
        "known_time", F.when(said.isin(LINK, UNLINK), said).alias("action"),
    )  # fmt: skip


def known_time() -> Column:
    """When a link became known."""
    return F.coalesce("received_time", "observed_time")


def _fault(links: DataFrame) -> Column:
    """Why a row cannot be a row of the table, else null."""

    def blank(name: str) -> Column:
        return F.coalesce(F.trim(name) == "", F.lit(True))

    return (
        F.when(
            blank("key_type_a") | blank("key_a") | blank("key_type_b") | blank("key_b"), "no_key"
        )
        .when(blank("source"), "no_source")
        .when(known_time().isNull(), "no_time")
    )


def is_sound(confidence: str = "confidence") -> Column:
    """Whether a confidence is a number from 0 to 1; null and NaN are not."""
    return F.coalesce(F.col(confidence).between(0, 1), F.lit(False))


def is_self() -> Column:
    """Whether both ends are one key."""
    return (F.col("key_type_a") == F.col("key_type_b")) & (F.col("key_a") == F.col("key_b"))


def is_guess(params: Params) -> Column:
    """Whether a link says who looks alike: by its source, or by a confidence below 1."""
    return F.col("source").isin(*params.guessing_sources) | (F.col("confidence") < 1)


def is_unsure(params: Params) -> Column:
    """Whether a link is a guess that is not sure enough to merge."""
    return is_guess(params) & (F.col("confidence") < params.min_confidence)


def names_nobody(params: Params) -> Column:
    """Whether no end is of a type that founds persons, as an account does, and one may well be: it
    is of a type of which the policy says nothing."""
    ends = F.col("key_type_a"), F.col("key_type_b")
    a, b = (~end.isin(*params.account_types) for end in ends)
    strange_a, strange_b = (~end.isin(*params.named_types) for end in ends)
    return a & b & (strange_a | strange_b)


def clock() -> Column:
    """When a row says that something happened: by its observation, or its receipt where that was
    earlier."""
    return F.least(F.coalesce("observed_time", "known_time"), F.col("known_time"))


def state(links: DataFrame, cut: datetime, params: Params) -> DataFrame:
    """The state at ``cut`` of each pair and source: ``STATE``, ``outcome`` null for a link that may
    merge (if its ends are known, which :func:`judge` says).

    ``links``: rows of :func:`usable`. The last action is the one with the latest clock, which is
    the observation's or, where that lies after the receipt, the receipt's. Among equals an unlink
    counts before a link, nonsense before sense, and a lower confidence before a higher one. A link
    that a clock puts at or after the cut gives way to any other row; an unlink never waits.
    """
    now = F.lit(cut)
    ahead = F.coalesce(F.col("observed_time") >= now, F.lit(False)) & (F.col("action") == LINK)
    order = F.struct(
        (~F.coalesce(ahead, F.lit(False))).alias("happened"),
        clock().alias("clock"),
        F.coalesce(F.col("action") == UNLINK, F.lit(False)).alias("unlinks"),
        (F.col("action").isNull() | ~is_sound()).alias("odd"),
        (-F.col("confidence")).alias("doubt"),
        F.col("known_time"), F.col("observed_time"), F.col("confidence"), F.col("action"),
    )  # fmt: skip
    last = (
        links.where(F.col("known_time") < now)
        .groupBy(*PAIR, "source")
        .agg(F.max(order).alias("last"))
        .select(*PAIR, "source", "last.*")
    )
    household = F.col("source").isin(*params.household_sources)
    unsure = F.when(household, F.col("confidence") < params.household_confidence).otherwise(
        is_unsure(params)
    )
    outcome = (
        F.when(F.col("action") == UNLINK, "unlinked")
        .when(F.col("action").isNull(), "unknown_action")
        .when(~F.col("happened"), "observed_in_the_future")
        .when(is_self(), "self_link")
        .when(~is_sound(), "confidence_outside_0_1")
        .when(~F.col("source").isin(*params.sources), "unknown_source")
        .when(F.col("source").isin(*params.login_sources) & names_nobody(params), "no_account")
        .when(unsure, "below_threshold")
        .when(household, "household")
    )
    return last.withColumn("outcome", outcome).select(*STATE)


def judge(rows: DataFrame, keys: DataFrame, params: Params) -> DataFrame:
    """The rows of :func:`state`, ``unknown_key`` where a link that may merge has an end that no
    event and no person names; keys of the linking types exist only to link and need neither.

    ``keys``: key_type, key, a row per key that is named.
    """
    for end in ("a", "b"):
        named = keys.select(
            F.col("key_type").alias(f"key_type_{end}"), F.col("key").alias(f"key_{end}"),
            F.lit(True).alias(f"named_{end}"),
        )  # fmt: skip
        rows = rows.join(named, on=[f"key_type_{end}", f"key_{end}"], how="left")
    unknown = F.lit(False)
    for end in ("a", "b"):
        links_only = F.col(f"key_type_{end}").isin(*params.linking_types)
        unknown = unknown | (F.col(f"named_{end}").isNull() & ~links_only)
    merges = F.col("outcome").isNull()
    return rows.withColumn(
        "outcome", F.when(merges & unknown, "unknown_key").otherwise(F.col("outcome"))
    ).select(*STATE)


def ends(links: DataFrame) -> DataFrame:
    """The keys of links: key_type, key, one row each."""
    one, other = (
        links.select(F.col(f"key_type_{end}").alias("key_type"), F.col(f"key_{end}").alias("key"))
        for end in ("a", "b")
    )
    return one.unionAll(other).distinct()


def logins(links: DataFrame, cut: datetime, params: Params) -> DataFrame:
    """Every login seen before ``cut``, also of a pair that was linked before or is linked no more:
    ``PAIR``, observed_time, known_time and ``claims``, whether it says whose events were.

    One that is only guessed at does not, and none that an unlink of its pair and source took back:
    one no older than it. ``known_time`` is when that was known too. ``links``: rows of
    :func:`usable`.
    """
    now = F.lit(cut)
    rows = links.where(F.col("source").isin(*params.login_sources) & (F.col("known_time") < now))
    pair = [*PAIR, "source"]
    back = (
        rows.where(F.col("action") == UNLINK)
        .groupBy(*pair)
        .agg(F.max(clock()).alias("back"), F.max("known_time").alias("back_known"))
    )
    sound = is_sound() & ~is_self() & (F.col("action") == LINK)
    taken_back = F.coalesce(F.col("back") >= clock(), F.lit(False))
    return (
        rows.where(sound & (F.col("observed_time") < now))
        .join(back, on=pair, how="left")
        .select(
            *PAIR, "observed_time",
            F.when(taken_back, F.greatest("known_time", "back_known"))
            .otherwise(F.col("known_time")).alias("known_time"),
            (~taken_back & ~is_unsure(params)).alias("claims"),
        )
        .distinct()
    )  # fmt: skip


def tally(links: DataFrame, cut: datetime, before: datetime | None, params: Params) -> DataFrame:
    """One row of counts over the contract's rows.

    ``received``; ``no_key``, ``no_source``, ``no_time``; ``not_yet_known`` at the cut;
    ``received_before_observed`` and ``observed_after_as_of``, clocks that disagree by more than the
    tolerance, among the known ones; and a fingerprint, whatever the order of rows, of those known
    before ``before`` (``past_*``) and before ``cut`` (``known_*``).
    """
    now = F.lit(cut)
    tolerance = F.expr(f"INTERVAL {params.clock_tolerance_seconds} SECONDS")
    known = F.coalesce(known_time() < now, F.lit(False))
    earlier = F.coalesce(known_time() < F.lit(before), F.lit(False)) if before else F.lit(False)
    fault = _fault(links)
    hashed = row_hash(links.columns)

    def fingerprint(name: str, chosen: Column) -> list[Column]:
        high, low = halves(F.when(chosen, hashed))
        return [
            F.count_if(chosen).alias(f"{name}_rows"),
            high.alias(f"{name}_high"),
            low.alias(f"{name}_low"),
        ]

    return links.agg(
        F.count(F.lit(1)).alias("received"),
        *(F.count_if(fault == name).alias(name) for name in ("no_key", "no_source", "no_time")),
        F.count_if(known_time() >= now).alias("not_yet_known"),
        F.count_if(known & (F.col("observed_time") - tolerance > F.col("received_time"))).alias(
            "received_before_observed"
        ),
        F.count_if(known & (F.col("observed_time") - tolerance >= now)).alias(
            "observed_after_as_of"
        ),
        *fingerprint("past", earlier),
        *fingerprint("known", known),
    )


def row_hash(columns: list[str]) -> Column:
    """64 bits of a row's values; which are null is hashed too, since a null changes no hash."""
    return F.xxhash64(*columns, *[F.col(name).isNull() for name in columns])


def halves(hashed: Column) -> tuple[Column, Column]:
    """Sums over rows of a hash's upper and lower 32 bits: equal for equal rows in any order, and
    too small to overflow below two billion rows."""
    upper, lower = F.shiftrightunsigned(hashed, 32), hashed.bitwiseAND(F.lit(0xFFFFFFFF))
    return F.coalesce(F.sum(upper), F.lit(0)), F.coalesce(F.sum(lower), F.lit(0))
