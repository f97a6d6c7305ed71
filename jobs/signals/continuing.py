"""The night before, and the part of the graph that tonight's links and keys touch.

What becomes of a key depends on its raw component alone (``components``), so a night whose past
did not change computes anew the raw components that a changed link or key is in, and copies the
rest; the rows are those of a full run. Whether the past is the same is asked of the source each
night: a fingerprint of every link known before the earlier run date, and of the policy, is compared
with the one that the earlier night left in its manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.night import Night
from jobs.signals import components, links
from jobs.signals.links import KEY, PAIR

if TYPE_CHECKING:
    from jobs.signals.identities import Params

NOTE = "identities"
# Raise this with every change to what links, components or households decide.
RULES = 4
LINK = [*PAIR, "source"]
# Parameters that say where persons are computed, not who they are.
PLACES = (
    "engine", "array_links", "incremental_links", "clock_tolerance_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Before:
    """The newest earlier night: its tables, the ``folder`` that they lie in, and what its manifest
    says of them."""

    as_of: datetime
    folder: Path
    changes: pa.Table
    note: dict[str, Any]

    @staticmethod
    def find(night: Night) -> Before | None:
        """The night before, where there is one whose tables this code can read."""
        found = night.previous(tables.TABLES["identities"].step)
        manifest = found.manifest if found else {}
        if found is None or NOTE not in manifest.get("notes", {}):
            return None
        return Before(
            io.parse_as_of(manifest["as_of"]),
            found.folder,
            io.read_arrow(found.table("identity_changes")),
            manifest["notes"][NOTE],
        )

    def keys(self, spark: SparkSession) -> DataFrame:
        """Its identities."""
        return io.frame(spark, self.folder / "identities")

    def links(self, spark: SparkSession) -> DataFrame:
        """Its links."""
        return io.frame(spark, self.folder / "identity_links")

    def differs(self, policy: str, past: list[int]) -> str | None:
        """Why tonight cannot continue from it: ``policy`` or ``data``; None where it can."""
        if self.note["policy"] != policy:
            return "policy"
        return None if self.note["known"] == past else "data"


def policy(params: Params) -> str:
    """A digest of everything that decides who is whom, but the data."""
    chosen = {
        name: value for name, value in dataclasses.asdict(params).items() if name not in PLACES
    }
    text = json.dumps([RULES, chosen], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Touched:
    """What tonight computes anew, and what it copies.

    ``states``: every link known tonight, as ``links.STATE``, with ``was`` and ``was_detail``, its
    outcome and detail of the night before; ``outcome`` is null where it may merge; they lie in
    ``folder``. ``keys`` (those that are named) and
    ``candidates``: the touched part of the graph. ``copied``: the identities of all other keys.
    """

    states: DataFrame
    folder: Path
    keys: DataFrame
    candidates: DataFrame
    copied: DataFrame


def touched(
    before: Before, named: DataFrame, rows: DataFrame, cut: datetime, params: Params, home: Path
) -> Touched:
    """Find what tonight touches.

    ``named``: the keys that events and people name, with first_seen; ``rows``: as of
    ``links.usable``.
    """
    since, now = F.lit(before.as_of), F.lit(cut)
    keys_before, links_before = (read(named.sparkSession) for read in (before.keys, before.links))
    # A link seen ahead of the clock becomes another one when the clock comes to it.
    stirred = rows.where(
        (F.col("known_time") < now)
        & ((F.col("known_time") >= since) | (F.col("observed_time") >= since))
    )
    stirred = io.kept(stirred.select(*LINK).distinct(), home / "stirred")
    moved_keys = io.kept(_moved_keys(before, named, params), home / "moved-keys")

    fresh = links.state(rows.join(stirred, on=LINK, how="semi"), cut, params)
    old = links_before.withColumns({"was": F.col("outcome"), "was_detail": F.col("detail")})
    earlier = old.select(*LINK, "was", "was_detail", F.col("confidence").alias("was_confidence"))
    fresh = fresh.join(earlier, on=LINK, how="left")
    settled = old.join(stirred, on=LINK, how="anti").withColumn("outcome", _reopened(params))
    settled = settled.withColumn("was_confidence", F.col("confidence")).drop("detail")
    states = fresh.unionByName(settled)
    # Only these can have gained or lost an end; of the others both are known as before.
    unsure = (
        _with_end_in(states, moved_keys)
        .unionByName(states.join(stirred, on=LINK, how="semi"))
        .distinct()
    )
    waiting = F.col("outcome") == "unknown_key"
    unsure = unsure.withColumn("outcome", F.when(~waiting, F.col("outcome")))
    unsure = io.kept(unsure, home / "unsure")
    few = named.join(links.ends(unsure), on=KEY, how="semi")
    judged = links.judge(unsure, few, params)
    judged = unsure.drop("outcome").join(judged.select(*LINK, "outcome"), on=LINK, how="inner")
    states = io.kept(states.join(unsure, on=LINK, how="anti").unionByName(judged), home / "states")
    may, might = F.col("outcome").isNull(), _merging("was")
    changed = states.where(
        (may != might) | (may & might & ~F.col("confidence").eqNullSafe(F.col("was_confidence")))
    )
    seeds = links.ends(changed).unionAll(moved_keys.select(*KEY)).distinct()
    groups = keys_before.join(seeds, on=KEY, how="semi").select("component").distinct()
    reached = keys_before.join(groups, on="component", how="semi").select(*KEY)
    reached = io.kept(reached.unionAll(seeds).distinct(), home / "reached")
    candidates = _with_end_in(states.where(may), reached)
    return Touched(
        states,
        home / "states",
        named.join(reached, on=KEY, how="semi"),
        candidates,
        keys_before.join(reached, on=KEY, how="anti"),
    )


def _moved_keys(before: Before, named: DataFrame, params: Params) -> DataFrame:
    """Keys that came, went or are now seen first at another time: key_type, key."""
    linking = links.ends(before.links(named.sparkSession).where(_merging("outcome"))).where(
        F.col("key_type").isin(*params.linking_types)
    )
    now = named.withColumn("now", F.lit(True)).join(
        linking.withColumn("tied", F.lit(True)), on=KEY, how="full"
    )
    then = before.keys(named.sparkSession).select(
        *KEY, F.col("first_seen").alias("seen"), F.lit(True).alias("then")
    )
    both = now.join(then, on=KEY, how="full")
    there = F.col("now").isNotNull() | F.col("tied").isNotNull()
    same = there & F.col("then").isNotNull() & F.col("first_seen").eqNullSafe(F.col("seen"))
    return both.where(~same).select(*KEY)


def _merging(column: str) -> Column:
    """Whether an outcome of the night before is one of a link that may merge."""
    return F.coalesce(F.col(column).isin(*components.OUTCOMES), F.lit(False))


def _reopened(params: Params) -> Column:
    """The outcome of a link as ``links.judge`` gave it, from the one it ended with."""
    household = F.col("source").isin(*params.household_sources)
    grouped = F.col("outcome").isin("household", "household_too_large", "unknown_key")
    return (
        F.when(household & grouped, "household")
        .when(_merging("outcome"), F.lit(None))
        .otherwise(F.col("outcome"))
    )


def _with_end_in(rows: DataFrame, keys: DataFrame) -> DataFrame:
    """The links with at least one end among the keys."""
    found = []
    for end in ("a", "b"):
        mine = keys.select(
            F.col("key_type").alias(f"key_type_{end}"), F.col("key").alias(f"key_{end}")
        )
        hit = rows.join(mine, on=[f"key_type_{end}", f"key_{end}"], how="semi")
        found.append(hit.select(*LINK))
    return rows.join(found[0].unionAll(found[1]).distinct(), on=LINK, how="semi")
