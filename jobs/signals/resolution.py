"""From keys and candidate links to persons, by arrays on one machine or by Spark on many.

Both give the same rows, since both follow the policy of ``components``. A frame of keys has
``key_type``, ``key``, ``first_seen`` (null last in the order of founding); a frame of candidates
has the columns ``CANDIDATE``, both ends of each among the keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import cloudpickle
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import io
from jobs.signals import components, stars
from jobs.signals.components import Caps, Graph, Verdicts
from jobs.signals.links import PAIR

CANDIDATE = [*PAIR, "source", "confidence", "guess"]
WIDE = pa.large_string()  # offsets of 64 bits: ten million keys outgrow those of 32


@dataclass(frozen=True)
class Resolved:
    """``keys``: key_type, key, person_id, component, first_seen. ``links``: PAIR, source, outcome,
    detail. ``components``: how many raw components there are."""

    keys: pa.Table
    links: pa.Table
    components: int


def resolve(
    spark: SparkSession, keys: Path, candidates: Path, out: Path, caps: Caps, engine: str, most: int
) -> tuple[str, int]:
    """Read the keys and the candidates in two folders and write ``keys`` and ``links`` to ``out``,
    as in :class:`Resolved`; gives which engine did it, and the number of raw components.

    ``engine``: array, spark, or auto, which takes arrays up to ``most`` keys or links.
    """
    size = max(io.count_rows(keys), io.count_rows(candidates))
    if engine == "array" or (engine == "auto" and size <= most):
        found = on_arrays(io.read_arrow(keys), io.read_arrow(candidates), caps)
        io.write_arrow(out / "keys", found.keys)
        io.write_arrow(out / "links", found.links)
        return "array", found.components
    graph = io.frame(spark, keys), io.frame(spark, candidates)
    return "spark", on_spark(*graph, out, caps)


def on_arrays(keys: pa.Table, links: pa.Table, caps: Caps) -> Resolved:
    """Persons by arrays."""
    keys = in_order(keys)
    graph = encode(keys, links, caps)
    settled = components.resolve(graph, caps)
    ids = key_ids(keys["key_type"], keys["key"])
    outcomes = pa.array(components.OUTCOMES).take(pa.array(settled.verdicts.outcome))
    return Resolved(
        pa.table(
            {
                "key_type": keys["key_type"], "key": keys["key"],
                "person_id": ids.take(pa.array(settled.person)),
                "component": ids.take(pa.array(settled.component)),
                "first_seen": keys["first_seen"],
            }
        ),
        # Spark would believe the schema that the metadata of its own files carries.
        links.select([*PAIR, "source"])
        .replace_schema_metadata()
        .append_column("outcome", outcomes)
        .append_column("detail", details(settled.verdicts, ids, caps)),
        int((settled.component == np.arange(keys.num_rows)).sum()),
    )  # fmt: skip


def in_order(keys: pa.Table) -> pa.Table:
    """The keys in the order of founding: first seen first, ties by type and key, unseen ones last.

    A key's place here is its number in the arrays.
    """
    by = [(name, "ascending", "at_end") for name in ("first_seen", "key_type", "key")]
    return keys.take(pc.sort_indices(keys, sort_keys=by))


def encode(keys: pa.Table, links: pa.Table, caps: Caps) -> Graph:
    """The arrays of a graph from its tables; ``keys`` in the order of founding."""
    types = pc.unique(keys["key_type"])
    named = _one(_exact(keys["key_type"], keys["key"], types))
    left, right = (
        pc.index_in(_exact(links[f"key_type_{end}"], links[f"key_{end}"], types), value_set=named)
        for end in ("a", "b")
    )
    kinds = pc.fill_null(
        pc.index_in(types, value_set=pa.array(caps.types[:-1], types.type)), len(caps.types) - 1
    )
    kind_of = kinds.take(pc.index_in(keys["key_type"], value_set=types))
    return Graph(
        kinds=kind_of.to_numpy(),
        left=left.to_numpy(),
        right=right.to_numpy(),
        confidence=links["confidence"].to_numpy(),
        guess=links["guess"].to_numpy(),
    )


def _exact(types: pa.ChunkedArray, keys: pa.ChunkedArray, known: pa.Array) -> pa.ChunkedArray:
    """One text per key that differs wherever type or key differ, whatever they hold."""
    number = pc.index_in(types, value_set=known).cast(WIDE)
    return _joined(number, ":", keys)


def key_ids(types: pa.ChunkedArray, keys: pa.ChunkedArray) -> pa.Array:
    """The ids ``key_type:key``; a colon in a type is written %3A, so that no two keys share one."""
    known = pc.unique(types)
    plain = pc.replace_substring(pc.replace_substring(known, "%", "%25"), ":", "%3A")
    return _one(_joined(plain.take(pc.index_in(types, value_set=known)), ":", keys))


def details(verdicts: Verdicts, ids: pa.Array, caps: Caps) -> pa.Array:
    """Which cap each refused link broke, in words; null where it is admitted."""
    refused = verdicts.outcome != components.ADMITTED
    chosen = np.flatnonzero(refused)
    kinds = pa.array(caps.types).take(pa.array(np.maximum(verdicts.kind[chosen], 0)))
    count, cap = (pa.array(each[chosen]) for each in (verdicts.count, verdicts.cap))
    at_key = verdicts.key[chosen] >= 0
    of_kind = verdicts.kind[chosen] >= 0
    key = ids.take(pa.array(np.maximum(verdicts.key[chosen], 0)))
    texts = pc.if_else(
        pa.array(at_key),
        _joined(key, " joins ", count, " keys of type ", kinds, "; at most ", cap),
        pc.if_else(
            pa.array(of_kind),
            _joined(count, " keys of type ", kinds, " in one person; at most ", cap),
            _joined(count, " keys in one person; at most ", cap),
        ),
    )
    empty = pa.nulls(len(refused), WIDE)
    return pc.replace_with_mask(empty, pa.array(refused), texts).cast(pa.string())


# --- Spark -----------------------------------------------------------------------------------
Concerned = Callable[[Column, Column], Column]
BROKEN = "what string, id long, person long, outcome int, kind int, count long, cap long"


def on_spark(keys: DataFrame, candidates: DataFrame, out: Path, caps: Caps) -> int:
    """Persons by Spark: writes ``keys`` and ``links`` to ``out`` as in :class:`Resolved`, and gives
    the number of raw components.

    Components by stars, caps by group-bys; only the groups that break a cap meet Python, each as a
    whole and by the function that the arrays use.
    """
    work = out / "work"
    numbered = io.kept(number(keys, caps), work / "numbered")
    edges = io.kept(_edges(candidates, numbered), work / "edges")
    judged = io.kept(_cap_degrees(edges, caps), work / "judged")
    component = io.kept(stars.connect(edges, work / "raw"), work / "component")
    open_links = judged.where(F.col("reason").isNull())
    group = component
    if not judged.where(F.col("reason").isNotNull()).isEmpty():
        group = io.kept(stars.connect(open_links, work / "capped"), work / "group")
    broken = _broken(numbered, group, caps)
    tied = open_links.join(
        group.select(F.col("number").alias("left"), F.col("least").alias("group")),
        on="left", how="inner",
    ).join(broken, on="group", how="semi")  # fmt: skip
    settled = io.kept(tied.groupBy("group").applyInArrow(_settling(caps), BROKEN), work / "settled")
    _write_keys(numbered, component, group, settled, out / "keys")
    _write_links(judged, numbered, settled, caps, out / "links")
    linked = io.read_arrow(work / "component", ["number", "least"])
    joined = int(pc.sum(pc.not_equal(linked["number"], linked["least"])).as_py() or 0)
    return io.count_rows(work / "numbered") - joined


def number(keys: DataFrame, caps: Caps) -> DataFrame:
    """The keys with a ``number`` that grows in the order of founding, their ``id`` and ``kind``."""
    kind = F.lit(len(caps.types) - 1)
    for place, name in enumerate(caps.types[:-1]):
        kind = F.when(F.col("key_type") == name, place).otherwise(kind)
    return keys.orderBy(F.col("first_seen").asc_nulls_last(), "key_type", "key").select(
        "key_type", "key", "first_seen", F.monotonically_increasing_id().alias("number"),
        key_id().alias("id"), kind.alias("kind"),
    )  # fmt: skip


def key_id() -> Column:
    """What :func:`key_ids` gives."""
    plain = F.replace(F.replace("key_type", F.lit("%"), F.lit("%25")), F.lit(":"), F.lit("%3A"))
    return F.concat(plain, F.lit(":"), F.col("key"))


def _edges(candidates: DataFrame, numbered: DataFrame) -> DataFrame:
    """The candidates with an ``edge`` number, ``left`` and ``right`` and their kinds."""
    rows = candidates
    for end, side in (("a", "left"), ("b", "right")):
        keys = numbered.select(
            F.col("key_type").alias(f"key_type_{end}"), F.col("key").alias(f"key_{end}"),
            F.col("number").alias(side), F.col("kind").alias(f"kind_{side}"),
        )  # fmt: skip
        rows = rows.join(keys, on=[f"key_type_{end}", f"key_{end}"], how="inner")
    return rows.withColumn("edge", F.monotonically_increasing_id())


def _cap_degrees(edges: DataFrame, caps: Caps) -> DataFrame:
    """The edges with the ``reason`` why step 1 refuses them, null where it does not."""
    sides = (("left", "right"), ("right", "left"))
    one, other = (
        edges.select(
            F.col(near).alias("key"), F.col(f"kind_{near}").alias("of"),
            F.col(far).alias("far"), F.col(f"kind_{far}").alias("kind"), "guess",
        )
        for near, far in sides
    )  # fmt: skip
    neighbours = one.unionAll(other).groupBy("key", "of", "far", "kind").agg(
        F.min("guess").alias("guess")
    )  # fmt: skip
    limits = edges.sparkSession.createDataFrame(
        [
            (of, kind, int(caps.joined[of, kind]), kind in caps.founding())
            for of in range(len(caps.types))
            for kind in range(len(caps.types))
        ],
        "of int, kind int, cap long, founding boolean",
    )
    degrees = neighbours.groupBy("key", "of", "kind").agg(
        F.count_if(~F.col("guess")).alias("exact"), F.count(F.lit(1)).alias("joined")
    )
    over = (
        degrees.join(F.broadcast(limits), on=["of", "kind"], how="inner")
        .where(F.col("joined") > F.col("cap"))
        .groupBy("key")
        .agg(F.collect_list(F.struct("kind", "exact", "joined", "cap", "founding")).alias("over"))
        .withColumn("over", F.sort_array("over"))
    )
    for side, _ in sides:
        named = over.select(F.col("key").alias(side), F.col("over").alias(f"over_{side}"))
        edges = edges.join(named, on=side, how="left")
    guess = F.col("guess")

    def first(side: str, far: str, count: str, concerned: Concerned) -> Column:
        found = F.filter(
            f"over_{side}",
            lambda x: (x[count] > x["cap"]) & concerned(x, x["kind"] == F.col(f"kind_{far}")),
        )
        first = F.try_element_at(found, F.lit(1))
        return F.when(
            first.isNotNull(),
            F.struct(
                F.col(side).alias("key"), first["kind"].alias("kind"),
                first[count].alias("count"), first["cap"].alias("cap"),
            ),
        )  # fmt: skip

    exactly = [
        first(near, far, "exact", lambda x, fits: x["founding"] | (~guess & fits))
        for near, far in sides
    ]
    together = [first(near, far, "joined", lambda x, fits: fits & guess) for near, far in sides]
    return edges.withColumn("reason", F.coalesce(*exactly, *together)).drop(
        "over_left", "over_right"
    )


def _broken(numbered: DataFrame, group: DataFrame, caps: Caps) -> DataFrame:
    """The groups that break a cap: one column, ``group``."""
    founding = caps.founding()
    sizes = (
        group.join(numbered.select("number", "kind"), on="number", how="inner")
        .groupBy(F.col("least").alias("group"))
        .agg(
            F.count(F.lit(1)).alias("keys"),
            *(F.count_if(F.col("kind") == kind).alias(f"kind_{kind}") for kind in founding),
        )
    )
    breaks = F.col("keys") > caps.keys
    for kind in founding:
        breaks = breaks | (F.col(f"kind_{kind}") > int(caps.of_type[kind]))
    return sizes.where(breaks).select("group")


def _settling(caps: Caps) -> Callable[[pa.Table], pa.Table]:
    """The function that settles a whole group: a row per key and a row per link of it."""
    # Workers of a cluster need not have this package: what they run travels with the call.
    cloudpickle.register_pickle_by_value(components)

    def settle(rows: pa.Table) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        left, right = rows["left"].to_numpy(), rows["right"].to_numpy()
        numbers, first = np.unique(np.concatenate([left, right]), return_index=True)
        kinds = np.concatenate([rows[f"kind_{side}"].to_numpy() for side in ("left", "right")])
        graph = components.Graph(
            kinds[first], np.searchsorted(numbers, left), np.searchsorted(numbers, right),
            rows["confidence"].to_numpy(), rows["guess"].to_numpy(),
        )  # fmt: skip
        person, why = components.settle(graph, caps)
        keys, links = len(numbers), rows.num_rows
        unset = np.full(keys, -1)
        return pa.table(
            {
                "what": pa.array(["key"] * keys + ["link"] * links),
                "id": np.concatenate([numbers, rows["edge"].to_numpy()]),
                "person": np.concatenate([numbers[person], np.full(links, -1)]),
                "outcome": np.concatenate([unset, why.outcome]).astype(np.int32),
                "kind": np.concatenate([unset, why.kind]).astype(np.int32),
                "count": np.concatenate([unset, why.count]),
                "cap": np.concatenate([unset, why.cap]),
            }
        )

    return settle


def _write_keys(
    numbered: DataFrame, component: DataFrame, group: DataFrame, settled: DataFrame, folder: Path
) -> None:
    mended = settled.where(F.col("what") == "key").select(
        F.col("id").alias("number"), F.col("person").alias("mended")
    )
    of_key = (
        component.withColumnRenamed("least", "component")
        .join(group.withColumnRenamed("least", "group"), on="number", how="left")
        .join(mended, on="number", how="left")
        .select("number", "component", F.coalesce("mended", "group", "number").alias("person"))
    )
    rows = numbered.join(of_key, on="number", how="left")
    for name in ("person", "component"):
        ids = numbered.select(F.col("number").alias(name), F.col("id").alias(f"{name}_name"))
        rows = rows.join(ids, on=name, how="left")
    rows.select(
        "key_type", "key", F.coalesce("person_name", "id").alias("person_id"),
        F.coalesce("component_name", "id").alias("component"), "first_seen",
    ).write.parquet(str(folder))  # fmt: skip


def _write_links(
    judged: DataFrame, numbered: DataFrame, settled: DataFrame, caps: Caps, folder: Path
) -> None:
    verdict = settled.where(F.col("what") == "link").select(
        F.col("id").alias("edge"), F.col("outcome").alias("code"),
        F.struct("kind", "count", "cap").alias("found"),
    )  # fmt: skip
    at_key = numbered.select(F.col("number").alias("at"), F.col("id").alias("at_id"))
    types = F.array(*[F.lit(name) for name in caps.types])
    names = F.array(*[F.lit(name) for name in components.OUTCOMES])
    rows = (
        judged.withColumn("at", F.col("reason.key"))
        .join(verdict, on="edge", how="left")
        .join(at_key, on="at", how="left")
    )

    def words(*parts: Column | str) -> Column:
        return F.concat(*[F.lit(part) if isinstance(part, str) else part for part in parts])

    reason, found = F.col("reason"), F.col("found")
    of_kind = F.get(types, F.greatest(reason["kind"], F.lit(0)))
    in_person = F.get(types, F.greatest(found["kind"], F.lit(0)))
    text = (
        F.when(
            reason.isNotNull(),
            words(F.col("at_id"), " joins ", reason["count"].cast("string"), " keys of type ",
                  of_kind, "; at most ", reason["cap"].cast("string")),
        )
        .when(
            (F.col("code") > 0) & (found["kind"] >= 0),
            words(found["count"].cast("string"), " keys of type ", in_person,
                  " in one person; at most ", found["cap"].cast("string")),
        )
        .when(
            F.col("code") > 0,
            words(found["count"].cast("string"), " keys in one person; at most ",
                  found["cap"].cast("string")),
        )
    )  # fmt: skip
    refused_by_key = F.when(reason.isNotNull(), components.OUTCOMES[components.TOO_MANY_OF_TYPE])
    outcome = F.coalesce(refused_by_key, F.get(names, F.col("code")), F.lit(components.OUTCOMES[0]))
    rows.select(*PAIR, "source", outcome.alias("outcome"), text.alias("detail")).write.parquet(
        str(folder)
    )


def _joined(*parts: pa.Array | pa.ChunkedArray | str) -> pa.Array | pa.ChunkedArray:
    """The parts of each row as one text."""
    wide = [pa.scalar(part, WIDE) if isinstance(part, str) else part.cast(WIDE) for part in parts]
    return pc.binary_join_element_wise(*wide, pa.scalar("", WIDE))


def _one(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
