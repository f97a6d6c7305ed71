"""From keys and candidate links to persons, by arrays on one machine or by Spark on many.

Both give the same rows, since both follow the policy of ``components``. A frame of keys has
``key_type``, ``key``, ``first_seen`` (null last in the order of founding); a frame of candidates
has the columns ``CANDIDATE``, both ends of each among the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from jobs import io
from jobs.signals import components
from jobs.signals.components import Caps, Graph, Verdicts
from jobs.signals.links import PAIR

CANDIDATE = [*PAIR, "source", "confidence", "guess"]
WIDE = pa.large_string()  # offsets of 64 bits: ten million keys outgrow those of 32


@dataclass(frozen=True)
class Resolved:
    """``keys``: key_type, key, person_id, component, first_seen. ``links``: PAIR, source, outcome,
    detail."""

    keys: pa.Table
    links: pa.Table


def resolve(
    spark: SparkSession, keys: Path, candidates: Path, out: Path, caps: Caps, engine: str, most: int
) -> str:
    """Read the keys and the candidates in two folders and write ``keys`` and ``links`` to ``out``,
    as in :class:`Resolved`; says which engine did it.

    ``engine``: array, spark, or auto, which takes arrays up to ``most`` keys or links.
    """
    size = max(io.count_rows(keys), io.count_rows(candidates))
    if engine == "array" or (engine == "auto" and size <= most):
        found = on_arrays(io.read_arrow(keys), io.read_arrow(candidates), caps)
        io.write_arrow(out / "keys", found.keys)
        io.write_arrow(out / "links", found.links)
        return "array"
    raise NotImplementedError


def on_arrays(keys: pa.Table, links: pa.Table, caps: Caps) -> Resolved:
    """Persons by arrays. About 1.5 GB for ten million links."""
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


def _joined(*parts: pa.Array | pa.ChunkedArray | str) -> pa.Array | pa.ChunkedArray:
    """The parts of each row as one text."""
    wide = [pa.scalar(part, WIDE) if isinstance(part, str) else part.cast(WIDE) for part in parts]
    return pc.binary_join_element_wise(*wide, pa.scalar("", WIDE))


def _one(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
