"""How many people are still several persons, and what it costs.

Evidence ties keys together: every link that could mean one human being, whether the policy admitted
it or not. Before merging each key is a person; after merging the published persons are. A person is
*split* where evidence ties it to another person who was seen. A group is what evidence ties
together; it would be served two lists where two of its persons are active and have consent.

Only keys with events count: a key that merely links is nobody whom serving meets.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jobs.tables import TABLES

KEY = ["key_type", "key"]
BEFORE, AFTER = "before merging", "after merging"
ANY, ANONYMOUS = "any", "anonymous"
POPULATIONS = ("persons", "active persons", "revenue", "groups")
# What the outcome of a link says of why two keys that it ties are, or are not, one person.
REASONS = {
    "admitted": "exact",
    "below_threshold": "guess",
    "unknown_source": "source",
    "no_account": "source",
    "too_many_of_type": "cap",
    "person_too_large": "cap",
    "would_join_two": "conflict",
}
BY = (ANY, *dict.fromkeys(REASONS.values()), ANONYMOUS)


def keys_seen(
    events: DataFrame, identities: DataFrame, persons: DataFrame, as_of: datetime, days: float
) -> DataFrame:
    """A row per key: its person, whether it was seen, is active and may be personalised, and the
    money of its purchases."""
    since = F.lit(as_of - timedelta(days=days))
    paid = F.when(F.col("event_type") == "purchase", F.coalesce("value", F.lit(0.0)))
    seen = events.groupBy(*KEY).agg(
        (F.max("event_time") >= since).alias("active"),
        # Spark adds in any order; rounding makes a rerun equal to the last bit.
        F.round(F.coalesce(F.sum(paid), F.lit(0.0)), 6).alias("revenue"),
    )
    consents = persons.select("person_id", "personalised")
    return (
        identities.select(*KEY, "person_id")
        .join(consents, on="person_id", how="inner")
        .join(seen, on=KEY, how="left")
        .select(
            *KEY, "person_id", "personalised",
            F.col("active").isNotNull().alias("seen"),
            F.coalesce("active", F.lit(False)).alias("active"),
            F.coalesce("revenue", F.lit(0.0)).alias("revenue"),
        )
    )  # fmt: skip


def coverage(
    keys: pa.Table,
    links: pa.Table,
    household_sources: tuple[str, ...],
    account_types: tuple[str, ...],
) -> pa.Table:
    """The table ``identity_coverage``.

    ``keys``: rows of :func:`keys_seen`. ``links``: the table ``identity_links``; a link of
    ``household_sources`` says who lives together, never who is the same person, and is no evidence.
    A person without a key of ``account_types`` is anonymous.
    """
    keys = keys.sort_by([(name, "ascending") for name in KEY])
    left, right, reason = evidence(keys, links, household_sources)
    person, _ = _codes(keys["person_id"])
    account = pc.is_in(keys["key_type"], value_set=pa.array(account_types, pa.string()))
    rows = []
    for stage, node in ((BEFORE, np.arange(keys.num_rows)), (AFTER, person)):
        people = _People.of(node, keys)
        for by in (ANY, *dict.fromkeys(REASONS.values())):
            chosen = (reason == by) if by != ANY else np.ones(len(reason), bool)
            rows += people.split(stage, by, node[left[chosen]], node[right[chosen]])
        if pc.any(account).as_py():
            rows += people.anonymous(stage, node, account.to_numpy(zero_copy_only=False))
    return pa.Table.from_pylist(rows, TABLES["identity_coverage"].schema)


def evidence(
    keys: pa.Table, links: pa.Table, household_sources: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The links that could mean one human being: the places of both keys, and the reason.

    A link with an end that is no key of the night ties nothing.
    """
    household = pc.is_in(links["source"], value_set=pa.array(household_sources, pa.string()))
    plausible = pc.is_in(links["outcome"], value_set=pa.array(list(REASONS), pa.string()))
    links = links.filter(pc.and_(plausible, pc.invert(household)))
    known = _ids(keys["key_type"], keys["key"])
    left, right = (
        pc.fill_null(
            pc.index_in(_ids(links[f"key_type_{end}"], links[f"key_{end}"]), value_set=known), -1
        ).to_numpy()
        for end in ("a", "b")
    )
    reason = np.array([REASONS[outcome] for outcome in links["outcome"].to_pylist()], object)
    both = (left >= 0) & (right >= 0)
    return left[both], right[both], reason[both]


class _People:
    """The persons of one stage: who was seen, is active, would get a list, and what each spent.

    All are (n,) by the codes of ``node``, the person of each key.
    """

    def __init__(
        self, seen: np.ndarray, active: np.ndarray, served: np.ndarray, revenue: np.ndarray
    ):
        self.seen, self.active, self.served, self.revenue = seen, active, served, revenue

    @staticmethod
    def of(node: np.ndarray, keys: pa.Table) -> _People:
        size = int(node.max(initial=-1)) + 1
        flags = {
            name: keys[name].to_numpy(zero_copy_only=False).astype(bool)
            for name in ("seen", "active", "personalised")
        }
        count = {
            name: np.bincount(node, chosen, minlength=size) > 0
            for name, chosen in (
                ("seen", flags["seen"]),
                ("active", flags["active"]),
                ("served", flags["active"] & flags["personalised"]),
            )
        }
        spent = np.bincount(node, keys["revenue"].to_numpy(), minlength=size)
        return _People(count["seen"], count["active"], count["served"], spent)

    def split(self, stage: str, by: str, left: np.ndarray, right: np.ndarray) -> list[dict]:
        """Rows of what these ties leave apart; ``left``, ``right``: codes of persons."""
        size = len(self.seen)
        graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
        _, group = connected_components(graph, directed=False)
        apart = self.seen & (np.bincount(group, self.seen)[group] > 1 if size else self.seen)
        served = np.bincount(group, self.served) if size else np.zeros(0)
        return [
            *self._rows(stage, by, apart),
            _row("groups", stage, (served >= 1).sum(), (served >= 2).sum(), by),
        ]

    def anonymous(self, stage: str, node: np.ndarray, account: np.ndarray) -> list[dict]:
        """Rows of those who have no account among their keys."""
        named = np.bincount(node, account, minlength=len(self.seen)) > 0
        return self._rows(stage, ANONYMOUS, ~named & self.seen)

    def _rows(self, stage: str, by: str, chosen: np.ndarray) -> list[dict]:
        revenue = self.revenue
        return [
            _row("persons", stage, self.seen.sum(), chosen.sum(), by),
            _row("active persons", stage, self.active.sum(), (chosen & self.active).sum(), by),
            _row("revenue", stage, revenue.sum(), revenue[chosen].sum(), by),
        ]


def _row(population: str, stage: str, total: Any, split: Any, by: str) -> dict[str, Any]:
    total, split = round(float(total), 6), round(float(split), 6)
    share = split / total if total > 0 else 0.0
    return {
        "population": population, "stage": stage, "total": total, "split": split,
        "share": share, "by": by,
    }  # fmt: skip


def _ids(types: pa.ChunkedArray, keys: pa.ChunkedArray) -> pa.Array:
    joined = pc.binary_join_element_wise(types, keys, "\x1f")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _codes(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """(n,) codes of equal texts and the texts, numbered by first appearance."""
    found = values.combine_chunks().dictionary_encode()
    return found.indices.to_numpy().astype(np.int64), found.dictionary
