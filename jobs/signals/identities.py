"""Keys become persons: one person per account, with the keys that exact links tie to it.

Reads ``events`` and the contract tables ``identity_links`` and ``people``. Writes ``identities``
(a row per key), ``persons`` (a row per person) and ``identity_counts`` (a row per kind of link and
what became of it).

A wrong merge is worse than a missed one: a group of keys that would join two accounts is not
joined at all; its keys stay apart and are counted. Household and probabilistic links never merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jobs.night import Night
from jobs.params import check
from jobs.sources import contract

KEY = ["key_type", "key"]


@dataclass(frozen=True)
class Params:
    """Which links are exact, and which keys found a person."""

    # A key of one of these types is a person of its own; no link merges two of them.
    account_types: tuple[str, ...] = ("account",)
    # Below this confidence a link is a guess, and guesses do not merge here.
    exact_confidence: float = 1.0
    # Sources of links that say who lives together or who looks alike, not who is the same person.
    never_merging_sources: tuple[str, ...] = ("household", "probabilistic")

    def __post_init__(self) -> None:
        check(len(self.account_types) > 0, "account_types must name at least one key type")
        check(0 < self.exact_confidence <= 1, "exact_confidence must be in (0, 1]")


def run(night: Night, params: Params) -> None:
    """Stage ``identities``, ``persons`` and ``identity_counts``."""
    source, events = night.source_folder(), night.frame("events")
    links = contract.read(night.spark, source, "identity_links")
    people = contract.read(night.spark, source, "people")
    keys = known_keys(events, people).toArrow().to_pandas()
    admitted = (
        judge_links(links, night.as_of, params).toArrow().to_pandas()
        if links is not None
        else pd.DataFrame(columns=["key_type_a", "key_a", "key_type_b", "key_b", "outcome"])
    )
    identities, counts = resolve(keys, admitted, params)
    night.write("identities", identities)
    night.write("identity_counts", counts)
    resolved = night.spark.read.parquet(str(night.staged / "identities"))
    night.write("persons", persons(resolved, events, people))


def known_keys(events: DataFrame, people: DataFrame | None) -> DataFrame:
    """Every key of an event or of the people table, with its first event's time."""
    of_events = events.groupBy(*KEY).agg(F.min("event_time").alias("first_seen"))
    if people is None:
        return of_events
    of_people = people.where(F.col("key").isNotNull() & F.col("key_type").isNotNull())
    return of_events.join(of_people.select(*KEY).distinct(), on=KEY, how="full")


def judge_links(links: DataFrame, as_of: datetime, params: Params) -> DataFrame:
    """The state at ``as_of`` of each link, with an outcome: admitted, or why not.

    The last action seen on an unordered pair from one source counts, so an unlink takes a link
    back.
    """
    now = F.lit(as_of)
    known = F.coalesce("received_time", "observed_time") < now
    a = F.struct(F.col("key_type_a").alias("key_type"), F.col("key_a").alias("key"))
    b = F.struct(F.col("key_type_b").alias("key_type"), F.col("key_b").alias("key"))
    ends = links.where(known).withColumns({"low": F.least(a, b), "high": F.greatest(a, b)})
    newest = Window.partitionBy("low", "high", "source").orderBy(
        F.col("observed_time").desc(), (F.col("action") == "unlink").desc(), F.col("confidence")
    )
    last = ends.withColumn("place", F.row_number().over(newest)).where(F.col("place") == 1)
    bad = F.col("confidence").isNull() | ~F.col("confidence").between(0, 1)
    outcome = (
        F.when(F.coalesce(F.col("action"), F.lit("link")) == "unlink", "unlinked")
        .when(F.col("low") == F.col("high"), "self_link")
        .when(bad, "confidence_outside_0_1")
        .when(F.col("source").isin(*params.never_merging_sources), "not_an_identity_link")
        .when(F.col("confidence") < params.exact_confidence, "not_exact")
        .otherwise("admitted")
    )
    return last.select(
        F.col("low.key_type").alias("key_type_a"), F.col("low.key").alias("key_a"),
        F.col("high.key_type").alias("key_type_b"), F.col("high.key").alias("key_b"),
        outcome.alias("outcome"),
    )  # fmt: skip


def resolve(keys: pd.DataFrame, links: pd.DataFrame, params: Params) -> tuple[pa.Table, pa.Table]:
    """Connected components over the admitted links; a component with two accounts stays apart.

    ``keys``: key_type, key, first_seen. ``links``: key_type_a, key_a, key_type_b, key_b, outcome.
    Returns the tables ``identities`` and ``identity_counts``. The person id is the founding key's
    ``key_type:key``: the account's, else the first seen (ties by type and key).
    """
    keys = keys.sort_values(KEY, ignore_index=True)
    names = pd.MultiIndex.from_frame(keys[KEY])
    links = links.copy()
    left = names.get_indexer(pd.MultiIndex.from_frame(links[["key_type_a", "key_a"]]))
    right = names.get_indexer(pd.MultiIndex.from_frame(links[["key_type_b", "key_b"]]))
    unknown = ((left < 0) | (right < 0)) & (links["outcome"] == "admitted").to_numpy()
    links.loc[unknown, "outcome"] = "unknown_key"
    used = (links["outcome"] == "admitted").to_numpy()
    graph = coo_array(
        (np.ones(int(used.sum()), dtype=np.int8), (left[used], right[used])),
        shape=(len(keys), len(keys)),
    )
    _, component = connected_components(graph, directed=False)
    is_account = keys["key_type"].isin(params.account_types).to_numpy()
    accounts = np.bincount(component, weights=is_account, minlength=component.max(initial=0) + 1)
    apart = accounts[component] > 1
    group = np.where(apart, component.max(initial=0) + 1 + np.arange(len(keys)), component)
    links.loc[used & _either(apart, left, right), "outcome"] = "would_join_two_accounts"
    order = np.lexsort(
        (np.arange(len(keys)), keys["first_seen"].fillna(pd.Timestamp.max.tz_localize("UTC")),
         ~is_account, group)
    )  # fmt: skip
    founders = order[np.unique(group[order], return_index=True)[1]]
    founder_of = pd.Series(founders, index=group[founders])
    founder = founder_of.loc[group].to_numpy()
    ids = (keys["key_type"] + ":" + keys["key"]).to_numpy()
    identities = pa.table(
        {
            "key_type": pa.array(keys["key_type"]),
            "key": pa.array(keys["key"]),
            "person_id": pa.array(ids[founder]) if len(keys) else pa.array([], pa.string()),
            "first_seen": pa.array(keys["first_seen"], pa.timestamp("us", tz="UTC")),
        }
    )
    tally = links["outcome"].value_counts().sort_index()
    counts = pa.table(
        {
            "outcome": ["keys", "persons", *(f"link: {name}" for name in tally.index)],
            "rows": [len(keys), len(founders), *tally.tolist()],
        }
    )
    return identities, counts


def persons(identities: DataFrame, events: DataFrame, people: DataFrame | None) -> DataFrame:
    """The table ``persons``: what is known of each, over all of its keys.

    Where keys disagree the stricter word counts: one refused consent is a refusal, restrictions
    add up. A region that the people table does not give is the one most of the events name.
    """
    mine = events.join(identities.select(*KEY, "person_id"), on=KEY, how="inner")
    seen = mine.groupBy("person_id").agg(
        F.min("event_time").alias("first_seen"),
        F.max("event_time").alias("last_seen"),
        F.mode("region", deterministic=True).alias("seen_region"),
    )
    keys = identities.groupBy("person_id").agg(F.count(F.lit(1)).cast("int").alias("keys"))
    rows = keys.join(seen, on="person_id", how="left")
    none = F.array().cast("array<string>")
    if people is None:
        return rows.select(
            "person_id", F.col("seen_region").alias("region"),
            F.lit(None).cast("string").alias("segment"), F.lit(True).alias("personalised"),
            none.alias("restrictions"), "keys", "first_seen", "last_seen",
        )  # fmt: skip
    consented = F.col("consents").isNull() | F.array_contains("consents", "personalisation")
    told = (
        people.join(identities.select(*KEY, "person_id"), on=KEY, how="inner")
        .groupBy("person_id")
        .agg(
            F.min("region").alias("region"),
            F.min("segment").alias("segment"),
            F.min(consented).alias("personalised"),
            F.array_sort(F.array_distinct(F.flatten(F.collect_list("restrictions")))).alias(
                "restrictions"
            ),
        )
    )
    return rows.join(told, on="person_id", how="left").select(
        "person_id", F.coalesce("region", "seen_region").alias("region"), "segment",
        F.coalesce("personalised", F.lit(True)).alias("personalised"),
        F.coalesce("restrictions", none).alias("restrictions"),
        "keys", "first_seen", "last_seen",
    )  # fmt: skip


def _either(flags: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether the flag is set at either end of each link; unknown ends (-1) do not count."""
    padded = np.append(flags, False)
    return padded[left] | padded[right]
