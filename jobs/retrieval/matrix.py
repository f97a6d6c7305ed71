"""The interaction matrix, and the border between ids and positions.

Inside the numeric core a person and an item are positions; here they get them and lose them
again. Positions follow the order of the ids, so equal tables make equal matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from jobs import tables
from jobs.errors import Fault


@dataclass(frozen=True)
class Interactions:
    """Who has how much intent for what, and when it last showed.

    ``matrix``: (n_people, n_items) float32 CSR with sorted columns, a weight above 0 a pair; row p
    is ``person_ids[p]``, column i is ``item_ids[i]``, both sorted. ``last_times``: (nnz,) int64,
    the last event of each stored pair in microseconds since 1970 UTC, in the matrix's order.
    """

    matrix: sp.csr_matrix
    last_times: np.ndarray
    person_ids: pa.StringArray
    item_ids: pa.StringArray

    def of_people(self, rows: np.ndarray) -> Interactions:
        """The same with these rows alone; ``rows``: (n,) ascending positions of people."""
        chosen = np.zeros(self.matrix.shape[0], bool)
        chosen[rows] = True
        kept = np.repeat(chosen, np.diff(self.matrix.indptr))
        return Interactions(
            self.matrix[rows],
            self.last_times[kept],
            self.person_ids.take(pa.array(rows)),
            self.item_ids,
        )


def build(rows: pa.Table) -> Interactions:
    """The matrix of the table ``interactions`` (person_id, item_id, weight, last_time).

    Raises ``Fault`` where a pair stands twice or a weight is not a positive number.
    """
    person_ids, people = encode(rows["person_id"])
    item_ids, items = encode(rows["item_id"])
    weights = rows["weight"].to_numpy().astype(np.float32)
    # A timezone is only a label here: the value is microseconds since 1970 UTC either way.
    times = rows["last_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    bad = int((~(np.isfinite(weights) & (weights > 0))).sum())
    order = np.lexsort((items, people))
    people, items = people[order], items[order]
    twice = int(((np.diff(people) == 0) & (np.diff(items) == 0)).sum())
    if bad or twice:
        raise Fault(
            f"interactions: {bad} weights are not positive numbers and {twice} pairs stand twice; "
            "run the step interactions again"
        )
    starts = np.searchsorted(people, np.arange(len(person_ids) + 1))
    matrix = sp.csr_matrix(
        (weights[order], items.astype(np.int32), starts), shape=(len(person_ids), len(item_ids))
    )
    matrix.has_sorted_indices = True
    return Interactions(matrix, times[order], person_ids, item_ids)


def encode(column: pa.ChunkedArray | pa.Array) -> tuple[pa.StringArray, np.ndarray]:
    """The sorted distinct ids of a column, and (n_rows,) int64 positions among them."""
    chunks = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = chunks.cast(pa.string()).dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    place = np.empty(len(order), np.int64)
    place[order.to_numpy()] = np.arange(len(order))
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return encoded.dictionary.take(order), place[codes]


def positions(ids: pa.Array | pa.ChunkedArray, known: pa.StringArray) -> np.ndarray:
    """(n_ids,) int64: where each id stands in ``known``; -1 for an unknown one. Of ids that are
    coded only the different ones are looked up."""
    if pa.types.is_dictionary(ids.type):
        whole = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])
        distinct, places = np.zeros(0, np.int64), [np.zeros(0, np.int64)]
        for number, chunk in enumerate(whole.unify_dictionaries().chunks):
            if number == 0:  # they share one
                distinct = np.append(positions(chunk.dictionary, known), -1)
            places.append(distinct[pc.fill_null(chunk.indices, -1).to_numpy()])
        return np.concatenate(places)
    found = pc.fill_null(pc.index_in(ids, value_set=known), -1)
    return np.asarray(found.to_numpy()).astype(np.int64)


def known(ids: pa.ChunkedArray, among: pa.Array | pa.ChunkedArray, what: str) -> np.ndarray:
    """(n_ids,) int64: where each id stands in ``among``; raises ``Fault`` for an unknown one."""
    if isinstance(among, pa.ChunkedArray):
        among = pa.concat_arrays(among.chunks)
    places = positions(ids, among)
    unknown = places < 0
    if unknown.any():
        first = ids.filter(pa.array(unknown))[0].as_py()
        raise Fault(
            f"{what}: {int(unknown.sum())} ids are not known, the first is {first!r}; run the "
            "steps again from the one that names it"
        )
    return places


def among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) bool: which keys stand in ``known``, which ascends; a tenth of the time of ``np.isin``,
    which sorts or hashes both."""
    if len(known) == 0:
        return np.zeros(len(keys), bool)
    return known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys


def distinct(keys: np.ndarray) -> np.ndarray:
    """The different keys, ascending, as ``np.unique`` gives them: sorted and compared, since that
    hashes and takes eight times as long."""
    ordered = np.sort(keys)
    return ordered[np.r_[True, ordered[1:] != ordered[:-1]]] if len(ordered) else ordered


def vectors_of(rows: pa.Table, column: str = "vector") -> np.ndarray:
    """(n_rows, dim) float32 of a vector column; raises ``Fault`` where lengths differ."""
    lists = rows[column].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks)
    lengths = pc.unique(pc.list_value_length(lists)).to_pylist()
    if len(lengths) > 1:
        raise Fault(f"{column}: vectors of different lengths {sorted(lengths)}; run its step again")
    values = lists.flatten().to_numpy()
    return values.reshape(len(lists), lengths[0] if lengths else 0).astype(np.float32)


def vector_column(vectors: np.ndarray) -> pa.ListArray:
    """An Arrow list column of (n_rows, dim) float32."""
    n_rows, dim = vectors.shape
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(n_rows + 1, dtype=np.int32) * dim), flat)


@dataclass(frozen=True)
class Nominated:
    """What one source nominates, in positions: arrays of equal length, best first in each person.

    ``rank`` counts from 1 in each person. ``seed`` is the position of the item that contributed
    most and ``seed_time`` its last event (microseconds since 1970 UTC); both None where the source
    knows no seeds.
    """

    person: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    seed: np.ndarray | None = None
    seed_time: np.ndarray | None = None


def candidate_rows(
    source: str, nominated: Nominated, person_ids: pa.StringArray, item_ids: pa.StringArray
) -> pa.Table:
    """The rows of the table ``candidates`` for one source, ids in place of positions."""
    n_rows = len(nominated.person)
    if nominated.seed is None or nominated.seed_time is None:
        seeds, times = pa.nulls(n_rows, pa.string()), pa.nulls(n_rows, tables.TIME)
    else:
        seeds = item_ids.take(pa.array(nominated.seed))
        times = pa.array(nominated.seed_time).cast(tables.TIME)
    return pa.table(
        {
            "person_id": person_ids.take(pa.array(nominated.person)),
            "item_id": item_ids.take(pa.array(nominated.item)),
            "source": pa.repeat(source, n_rows),
            "rank": nominated.rank.astype(np.int32),
            "score": nominated.score.astype(np.float64),
            "seed_item": seeds,
            "seed_time": times,
        },
        schema=tables.TABLES["candidates"].schema,
    )
