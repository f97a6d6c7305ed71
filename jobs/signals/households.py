"""Households: persons whom household links group, and who stay the persons they are.

It is the policy of persons one level up: the keys are the persons' founding keys, all links are
exact, and a group of too many persons (an office, a dormitory) is no household. In memory
``resolving`` does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io
from jobs.night import Night
from jobs.signals import links, resolution
from jobs.signals.links import KEY

if TYPE_CHECKING:
    from jobs.signals.identities import Params

COLUMNS = [*KEY, "person_id", "household_id", "component", "first_seen"]


@dataclass(frozen=True)
class Grouped:
    """The table ``identities``, and the household links with their outcomes and details."""

    identities: DataFrame
    links: DataFrame


def alone(resolved: DataFrame, states: DataFrame) -> Grouped:
    """Everybody is a household of their own; no link of ``states`` is a household's."""
    identities = resolved.withColumn("household_id", F.col("person_id")).select(*COLUMNS)
    none = states.where(F.lit(False)).select(
        *links.STATE, F.lit(None).cast("string").alias("detail")
    )
    return Grouped(identities, none)


def group(night: Night, resolved: DataFrame, household_links: DataFrame, params: Params) -> Grouped:
    """Persons connected by household links are one household, named after its first-seen person.

    ``resolved``: key_type, key, person_id, component, first_seen.
    """
    home = night.scratch("households")
    pairs = household_links
    for end in ("a", "b"):
        owner = resolved.select(
            F.col("key_type").alias(f"key_type_{end}"), F.col("key").alias(f"key_{end}"),
            F.col("person_id").alias(f"person_{end}"),
        )  # fmt: skip
        pairs = pairs.join(owner, on=[f"key_type_{end}", f"key_{end}"], how="left")
    pair = ("person_a", "person_b")
    pairs = pairs.withColumns({"low": F.least(*pair), "high": F.greatest(*pair)})
    pairs = io.kept(pairs, home / "pairs")
    unknown = F.col("person_a").isNull() | F.col("person_b").isNull()
    known = pairs.where(~unknown)
    members = known.select(F.explode(F.array(*pair)).alias("key")).distinct()
    seen = resolved.groupBy(F.col("person_id").alias("key")).agg(
        F.min("first_seen").alias("first_seen")
    )
    io.kept(
        members.join(seen, on="key", how="inner").select(
            F.lit("").alias("key_type"), "key", "first_seen"
        ),
        home / "keys",
    )
    io.kept(
        known.select(
            F.lit("").alias("key_type_a"), F.col("low").alias("key_a"),
            F.lit("").alias("key_type_b"), F.col("high").alias("key_b"),
            F.lit("household").alias("source"), F.lit(1.0).alias("confidence"),
            F.lit(False).alias("guess"),
        ).distinct(),
        home / "candidates",
    )  # fmt: skip
    resolution.resolve(
        night.spark, home / "keys", home / "candidates", home / "grouped", params.household_caps,
        params.engine, params.array_links,
    )  # fmt: skip
    of_person = io.frame(night.spark, home / "grouped" / "keys").select(
        F.col("key").alias("person_id"), F.expr("substring(person_id, 2)").alias("household_id")
    )
    identities = (
        resolved.join(of_person, on="person_id", how="left")
        .withColumn("household_id", F.coalesce("household_id", "person_id"))
        .select(*COLUMNS)
    )
    verdict = io.frame(night.spark, home / "grouped" / "links").select(
        F.col("key_a").alias("low"), F.col("key_b").alias("high"),
        (F.col("outcome") == "person_too_large").alias("too_large"),
        F.replace("detail", F.lit("keys in one person"), F.lit("persons in one household")).alias(
            "detail"
        ),
    )  # fmt: skip
    outcome = (
        F.when(unknown, "unknown_key")
        .when(F.col("too_large"), "household_too_large")
        .otherwise("household")
    )
    judged = pairs.join(verdict, on=["low", "high"], how="left").withColumn("outcome", outcome)
    return Grouped(identities, judged.select(*links.STATE, "detail"))
