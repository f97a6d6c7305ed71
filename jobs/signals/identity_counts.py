"""What became of every key and link: the table ``identity_counts``, which a gate judges."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.signals import links
from jobs.signals.links import PAIR

if TYPE_CHECKING:
    from jobs.signals.identities import Params


def tally(
    rows: DataFrame | None, cut: datetime, before: datetime | None, params: Params
) -> dict[str, int]:
    """The counts of ``links.tally`` by name; all 0 where the source has no links."""
    if rows is None:
        return dict.fromkeys(links.TALLIED, 0)
    return links.tally(rows, cut, before, params).toArrow().to_pylist()[0]


def of_tables(identities: DataFrame, judged: DataFrame, params: Params) -> DataFrame:
    """The counts of the tables: keys, persons, households and components, admitted links that
    close a cycle (harmless: the keys are one person without them), and links by outcome.

    ``over_cap``: persons who hold more keys of a type than one may. ``without_accounts``: admitted
    links where no key at all is of a type that founds persons, so that nothing keeps two apart.
    ``unnamed_types``: persons who hold several keys of a type that no parameter names.
    """
    names = ("keys", "persons", "households", "components")
    founds = F.col("key_type").isin(*params.account_types)
    of_keys = identities.agg(
        F.count(F.lit(1)).alias("keys"),
        *(
            F.count_distinct(column).alias(name)
            for name, column in zip(
                names[1:], ("person_id", "household_id", "component"), strict=True
            )
        ),
        F.count_if(founds).alias("founding"),
    )
    held = (
        identities.where(founds)
        .groupBy("person_id", "key_type")
        .agg(F.count(F.lit(1)).alias("held"))
    )
    most = F.lit(0)
    for name in params.account_types:
        most = F.when(F.col("key_type") == name, params.max_of_type[name]).otherwise(most)
    unnamed = (
        identities.where(~F.col("key_type").isin(*params.named_types))
        .groupBy("person_id", "key_type")
        .agg(F.count(F.lit(1)).alias("held"))
        .agg(F.count_if(F.col("held") > 1).alias("unnamed_types"))
    )
    of_caps = held.agg(F.count_if(F.col("held") > most).alias("over_cap"))
    admitted = judged.where(F.col("outcome") == "admitted")
    pairs = admitted.agg(F.count_distinct(*PAIR).alias("pairs"))
    every = of_keys.crossJoin(pairs).crossJoin(of_caps).crossJoin(unnamed).withColumns({
        "cycles": F.col("pairs") - F.col("keys") + F.col("persons"),
        "without_accounts": F.when(F.col("founding") == 0, F.col("pairs")).otherwise(0),
    })  # fmt: skip
    rows = [
        F.struct(F.lit(name).alias("outcome"), F.col(name).alias("rows"))
        for name in (*names, "cycles", "over_cap", "without_accounts", "unnamed_types")
    ]
    return every.select(F.explode(F.array(*rows)).alias("one")).select("one.*").unionAll(
        judged.groupBy(F.concat(F.lit("link: "), "outcome").alias("outcome")).agg(
            F.count(F.lit(1)).alias("rows")
        )
    )  # fmt: skip
