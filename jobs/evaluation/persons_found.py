"""How well the persons found match the true ones: pairwise precision, recall and F1.

Only pairs of keys that the night knows and that the data could tell of are counted. Definitions:

- A *link* is a row of ``identity_links`` that is not a household link, nor a key with itself; what
  became of it later (taken back, judged too weak) does not matter here.
- **Joined pairs**, in two kinds. ``direct``: an unordered pair of keys with at least one link.
  ``connected``: a pair of keys with a path of links between them. Both keys must be in
  ``identities``, which holds every key of an event or of the people: a link to a key that was
  never seen (a card registered, never shown) is quarantined by contract, and says nothing of how
  well persons are found. Such pairs are ``unknown``, beside the joined ones.
- A person **solely holds** a key at a moment at which nobody else holds it. A device that several
  people use at once is nobody's then; a recycled cookie is each holder's in its own time. Under the
  ``strict`` reading a key that was held by more than one person, whenever, is nobody's always.
- A joined pair is **true** where one person solely held both keys: a direct pair at the same
  moment; a connected pair each at some moment, since a cookie and the one that took its place
  never meet.
- A joined pair is **found** where both keys have the same person in ``identities``.
- Precision is the share of found pairs that are true, recall the share of true pairs that are
  found, F1 their harmonic mean (pairwise measures of a clustering: Menestrina, Whang and
  Garcia-Molina, 2010). A share of nothing is null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEVER_MERGING = ("household",)
SCHEMA = pa.schema([
    ("pairs", pa.string()), ("holders", pa.string()), ("unknown", pa.int64()),
    ("joined", pa.int64()), ("true", pa.int64()), ("found", pa.int64()), ("right", pa.int64()),
    ("precision", pa.float64()), ("recall", pa.float64()), ("f1", pa.float64()),
])  # fmt: skip


def judge(identities: pa.Table, holders: pa.Table, links: pa.Table) -> pa.Table:
    """A row per kind of pairs (direct, connected) and reading of the holders (in_their_time,
    strict): how many pairs are unknown, joined, true, found, and both; precision, recall, f1.

    ``identities``: key_type, key, person_id. ``holders``: key_type, key, person, starts, ends
    (exclusive; null is without bound), a row per spell. ``links``: key_type_a, key_a, key_type_b,
    key_b, source.
    """
    links = links.filter(pc.invert(pc.is_in(links["source"], pa.array(NEVER_MERGING))))
    names, a, b, found, held = _coded(identities, holders, links)
    low, high = np.minimum(a, b), np.maximum(a, b)
    pair = np.unique((low * names + high)[low != high])
    a, b = np.divmod(pair, max(names, 1))
    whole = Sole.of(held)
    alone = whole.pick(~np.isin(whole.key, _of_several(held)))
    known = found >= 0
    whole, alone = (sole.pick(known[sole.key]) for sole in (whole, alone))
    rows = []
    for kind, count in (("direct", _direct), ("connected", _connected)):
        for reading, sole in (("in_their_time", whole), ("strict", alone)):
            rows.append({"pairs": kind, "holders": reading, **count(a, b, found, sole)})
    return pa.Table.from_pylist([_with_shares(row) for row in rows], SCHEMA)


@dataclass(frozen=True)
class Sole:
    """When a key has one holder: (n,) key, person, and from when until when, microseconds."""

    key: np.ndarray
    person: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @staticmethod
    def of(held: Sole) -> Sole:
        """The parts of spells at which no other person holds the key.

        A sweep over the bounds of each key's spells. Between two bounds there is one holder where
        n spells have the sum s and the sum of squares q of person numbers with n q = s^2, which
        by Cauchy and Schwarz is where the numbers are equal.
        """
        several = np.isin(held.key, _repeated(held.key))
        plain, mixed = held.pick(~several), held.pick(several)
        key = np.tile(mixed.key, 2)
        person = np.tile(mixed.person, 2)
        time = np.concatenate([mixed.starts, mixed.ends])
        step = np.repeat([1, -1], len(mixed.key))
        order = np.lexsort((time, key))
        key, person, time, step = key[order], person[order], time[order], step[order]
        # Each key's own sums are 0 at its end, so that they may run through all keys.
        n, s, q = (np.cumsum(step * person**power) for power in range(3))
        here = np.flatnonzero((n[:-1] > 0) & (n[:-1] * q[:-1] == s[:-1] ** 2)
                              & (time[1:] > time[:-1]))  # fmt: skip
        return Sole(
            np.concatenate([plain.key, key[here]]),
            np.concatenate([plain.person, s[here] // n[here]]),
            np.concatenate([plain.starts, time[here]]),
            np.concatenate([plain.ends, time[here + 1]]),
        )

    def pick(self, rows: np.ndarray) -> Sole:
        return Sole(self.key[rows], self.person[rows], self.starts[rows], self.ends[rows])


def _coded(
    identities: pa.Table, holders: pa.Table, links: pa.Table
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, Sole]:
    """(number of keys, keys a and b of each link, the person found of each key or -1, holders)."""
    parts = [
        _key(links, "_a"), _key(links, "_b"), _key(identities, ""), _key(holders, ""),
    ]  # fmt: skip
    coded = pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string())
    codes, uniques = pd.factorize(coded.to_numpy(zero_copy_only=False))
    bounds = np.cumsum([0, *(len(part) for part in parts)])
    a, b, known, held = (codes[bounds[i] : bounds[i + 1]] for i in range(4))
    found = np.full(len(uniques), -1, np.int64)
    found[known] = pd.factorize(identities["person_id"].to_numpy(zero_copy_only=False))[0]
    person = pd.factorize(holders["person"].to_numpy(zero_copy_only=False))[0].astype(np.int64)
    limits = np.iinfo(np.int64)
    starts, ends = (
        pc.fill_null(holders[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), bound)
        .combine_chunks().to_numpy()
        for name, bound in (("starts", limits.min), ("ends", limits.max))
    )  # fmt: skip
    lasts = starts < ends
    spells = Sole(held.astype(np.int64), person, starts, ends).pick(lasts)
    return len(uniques), a.astype(np.int64), b.astype(np.int64), found, spells


def _key(table: pa.Table, end: str) -> pa.ChunkedArray:
    """Keys as one text; the length of the type stands first, so that no two keys look alike."""
    kind, key = (table[f"{name}{end}"].cast(pa.string()) for name in ("key_type", "key"))
    length = pc.utf8_length(kind).cast(pa.string())
    joined = pc.binary_join_element_wise(length, kind, key, ":")
    return joined if isinstance(joined, pa.ChunkedArray) else pa.chunked_array([joined])


def _repeated(values: np.ndarray) -> np.ndarray:
    found, count = np.unique(values, return_counts=True)
    return found[count > 1]


def _of_several(held: Sole) -> np.ndarray:
    """Keys that more than one person ever held."""
    both = np.unique(np.stack([held.key, held.person]), axis=1)
    return _repeated(both[0])


# --- pairs -----------------------------------------------------------------------------------
def _direct(a: np.ndarray, b: np.ndarray, found: np.ndarray, sole: Sole) -> dict[str, int]:
    """Counts over pairs that a link joins: true at a common moment."""
    known = (found[a] >= 0) & (found[b] >= 0)
    a, b, unknown = a[known], b[known], int((~known).sum())
    ours = found[a] == found[b]
    spells = pd.DataFrame(vars(sole))
    pairs = pd.DataFrame({"pair": np.arange(len(a)), "a": a, "b": b})
    both = pairs.merge(spells, left_on="a", right_on="key").merge(
        spells, left_on=["b", "person"], right_on=["key", "person"], suffixes=("", "_b")
    )
    met = np.maximum(both["starts"], both["starts_b"]) < np.minimum(both["ends"], both["ends_b"])
    true = np.zeros(len(a), bool)
    true[both["pair"][met].to_numpy()] = True
    return {
        "unknown": unknown, "joined": len(a), "true": int(true.sum()), "found": int(ours.sum()),
        "right": int((true & ours).sum()),
    }  # fmt: skip


def _connected(a: np.ndarray, b: np.ndarray, found: np.ndarray, sole: Sole) -> dict[str, int]:
    """Counts over pairs with a path of links: by the sizes of groups, never pair by pair."""
    keys = len(found)
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(keys, keys))
    _, component = connected_components(graph, directed=False)
    known = np.flatnonzero(found >= 0)
    key, person = np.unique(np.stack([sole.key, sole.person]), axis=1)
    joined = _pairs_sharing(known, component[known])
    return {
        "unknown": _pairs_sharing(np.arange(keys), component) - joined,
        "joined": joined,
        "true": _pairs_sharing(key, component[key], person),
        "found": _pairs_sharing(known, component[known], found[known]),
        "right": _pairs_sharing(key, component[key], person, found[key]),
    }


def _pairs_sharing(key: np.ndarray, *labels: np.ndarray) -> int:
    """Unordered pairs of different keys that have one row each with all labels equal.

    A pair with several such labels counts once: only keys with several rows can make one.
    """
    rows = pd.DataFrame({"key": key, **{str(i): values for i, values in enumerate(labels)}})
    on = [str(i) for i in range(len(labels))]
    size = rows.groupby(on, sort=False).size().to_numpy().astype(np.int64)
    total = int((size * (size - 1) // 2).sum())
    several = rows[rows["key"].duplicated(keep=False)]
    twice = several.merge(several, on=on)
    twice = twice[twice["key_x"] < twice["key_y"]]
    return total - int(twice.duplicated(["key_x", "key_y"]).sum())


def _with_shares(row: dict[str, object]) -> dict[str, object]:
    right, found, true = (float(str(row[name])) for name in ("right", "found", "true"))
    return {
        **row,
        "precision": right / found if found else None,
        "recall": right / true if true else None,
        "f1": 2 * right / (found + true) if found + true else None,
    }
