"""What nights promised of their ranking, beside what came of the lists that were served from them.

A promise is counted over people who bought in the horizon after a cut: of all the different items
that one of them bought in it, listed or not, bought before or not, how many stand how high. So is
what came: of a visitor the first list that a release gave on its main surface, in the order of the
answer, against all that the visitor bought in as many days after it. A list counts once these days,
and those until purchases are mature, are over.

Arrays only: of some visitors of each night the purchases are read from ``events``, by the keys that
are theirs now. What an account claims of an anonymous session is not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis.definitions import Definitions
from jobs.diagnosis.log import who
from jobs.evaluation import metrics
from jobs.night import Night
from jobs.ordering.surfaces import MAIN
from jobs.retrieval import matrix
from jobs.tables import TIME

# What a night's own evidence foretells, by metric and length of the list.
PROMISES = {("ndcg", 10): "ndcg_at_10", ("recall", 20): "recall_at_20"}
VISITORS = 3_000  # of a night, whose purchases are looked at
COLUMNS = ["request_id", "request_time", "position", "surface", "visitor", "key_type", "key",
           "item_id", "night", "fallback"]  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """``promised``: by the agreed metric, None where a night foretells nothing by it; ``horizon``:
    the days after a cut that it was judged on, None where that is not told."""

    promised: float | None
    horizon: timedelta | None


@dataclass(frozen=True)
class Lists:
    """The first list of each visitor of a night, places flat.

    ``visitors``: (n_visitors,) ids; ``begun``: (n_visitors,) int64, when they asked, microseconds;
    ``visitor``: (n,) codes, ``rank``: (n,) places from 0, ``item_id``: (n,) ids.
    """

    visitors: pa.StringArray
    begun: np.ndarray
    visitor: np.ndarray
    rank: np.ndarray
    item_id: pa.Array

    @property
    def longest(self) -> int:
        return int(self.rank.max(initial=-1)) + 1


@dataclass(frozen=True)
class Came:
    """What came of a night's lists: ``reached``: (n,) the agreed metric of each visitor who bought
    in the horizon; ``longest``: places of the longest list."""

    promise: Promise
    longest: int
    reached: np.ndarray = field(repr=False)


def of_night(night: Night, label: str, agreed: Definitions) -> Promise:
    """What the night's own evidence foretold of what it published."""
    ranker = night.lake.at("ranker", label)
    if ranker is None:
        return Promise(None, None)
    manifest = ranker.manifest
    cut, refresh = manifest.get("notes", {}).get("cut"), manifest.get("refresh")
    made = io.parse_as_of(refresh["night"] if refresh else manifest["as_of"])
    horizon = made - datetime.fromisoformat(cut) if cut else None
    column = PROMISES.get((agreed.metric, agreed.at))
    rows = io.read_arrow(ranker.table("ranking_evidence")).to_pylist() if column else []
    # A night of too few people to judge by says 0, and promises nothing.
    foretold = [row[column] for row in rows if row["published"] and row[column] > 0]
    return Promise(next(iter(foretold), None), horizon)


def kept(night: Night, agreed: Definitions) -> dict[str, Came]:
    """By night that served in the current period or the reference, what came of its lists, where
    the horizon of some is over and a visitor bought."""
    served = (ds.field("period") != "last_year") & ds.field("night").is_valid()
    # Of what is not mature nothing is due, whatever its horizon.
    ripe = night.as_of - timedelta(days=agreed.label.maturity_days)
    due = served & (ds.field("request_time") <= pa.scalar(ripe, TIME))
    rows = night.arrow("served", COLUMNS, due)
    promises, lists = {}, {}
    for label in sorted(pc.unique(rows["night"]).to_pylist()):
        promise = of_night(night, label, agreed)
        if promise.horizon is None:
            continue
        over = ripe - promise.horizon
        mine = rows.filter(pc.and_(
            pc.equal(rows["night"], label),
            pc.less_equal(rows["request_time"], pa.scalar(over, TIME)),
        ))  # fmt: skip
        shown = first_lists(mine, night.seed) if mine.num_rows else None
        if shown is not None and len(shown.visitors):
            promises[label], lists[label] = promise, shown
    if not lists:
        return {}
    bought = _purchases(night, rows, lists)
    found = {}
    for label, shown in lists.items():
        horizon = promises[label].horizon
        assert horizon is not None
        reached = of_lists(shown, bought, horizon, agreed)
        if len(reached):
            found[label] = Came(promises[label], shown.longest, reached)
    return found


def first_lists(rows: pa.Table, seed: int, most: int = VISITORS) -> Lists:
    """Of places of a night, those of the first list of each visitor, of ``most`` of them, on its
    main surface; a list that is all fallback is none, since a night promises nothing of it."""
    surfaces = pc.unique(rows["surface"]).to_pylist()
    rows = rows.filter(pc.equal(rows["surface"], MAIN if MAIN in surfaces else min(surfaces)))
    own = pc.unique(rows.filter(pc.is_null(rows["fallback"]))["request_id"])
    rows = rows.filter(pc.is_in(rows["request_id"], value_set=own))
    asked = rows.group_by("request_id").aggregate([("request_time", "min"), ("visitor", "min")])
    asked = asked.sort_by([(name, "ascending") for name in
                           ("visitor_min", "request_time_min", "request_id")])  # fmt: skip
    visitor = asked["visitor_min"].to_numpy(zero_copy_only=False)
    first = np.flatnonzero(np.append(True, visitor[1:] != visitor[:-1])[: len(visitor)])
    drawn = np.sort(np.random.default_rng(seed).permutation(len(first))[:most])
    asked = asked.take(pa.array(first[drawn]))
    code = matrix.positions(rows["request_id"], _plain(asked["request_id"]))
    mine = rows.filter(pa.array(code >= 0))
    return Lists(
        _plain(asked["visitor_min"]),
        asked["request_time_min"].cast(TIME).cast(pa.int64()).to_numpy(),
        code[code >= 0],
        mine["position"].to_numpy().astype(np.int64) - 1,
        _plain(mine["item_id"]),
    )


def _plain(column: pa.ChunkedArray) -> pa.StringArray:
    return pa.concat_arrays([pa.array([], pa.string()), *column.chunks])


def _purchases(night: Night, rows: pa.Table, lists: Mapping[str, Lists]) -> pa.Table:
    """visitor, item_id and event_time of what the visitors of these lists bought since the first of
    them, under any key that is theirs."""
    visitors = pc.unique(pa.chunked_array([one.visitors for one in lists.values()]))
    names = ["key_type", "key", "visitor"]
    keys = [rows.filter(pc.is_in(rows["visitor"], value_set=visitors)).select(names)]
    newest = who.newest_label(night)
    if newest is not None:
        folder = night.earlier("identities", newest).table("identities")
        known = io.read_arrow(
            folder, ["key_type", "key", "person_id"], ds.field("person_id").isin(visitors)
        )
        keys.append(known.rename_columns(names))
    whose = pa.concat_tables(keys, promote_options="default").group_by(names[:2]).aggregate(
        [("visitor", "min")]
    )  # fmt: skip
    since = min(int(one.begun.min()) for one in lists.values())
    bought = night.arrow(
        "events", ["key_type", "key", "item_id", "event_time"],
        (ds.field("event_type") == "purchase")
        & (ds.field("event_time") >= pa.scalar(since, pa.int64()).cast(TIME))
        & ds.field("key").isin(pc.unique(whose["key"])),
    )  # fmt: skip
    found = bought.join(whose, keys=["key_type", "key"], join_type="inner")
    return found.select(["visitor_min", "item_id", "event_time"]).rename_columns(
        ["visitor", "item_id", "event_time"]
    )


def of_lists(shown: Lists, bought: pa.Table, horizon: timedelta, agreed: Definitions) -> np.ndarray:
    """(n,) the agreed metric of each visitor with a purchase in the horizon after the list;
    ``bought``: visitor, item_id, event_time. An item bought twice counts once."""
    buyer = matrix.positions(bought["visitor"], shown.visitors)
    time = bought["event_time"].cast(TIME).cast(pa.int64()).to_numpy()
    begun = shown.begun[buyer] if len(shown.begun) else np.zeros(len(buyer), np.int64)
    reach = horizon // timedelta(microseconds=1)
    mine = (buyer >= 0) & (time > begun) & (time <= begun + reach)
    items, item = matrix.encode(bought["item_id"].filter(pa.array(mine)))
    pair = matrix.distinct(buyer[mine] * max(len(items), 1) + item)
    wanted = np.bincount(pair // max(len(items), 1), minlength=len(shown.visitors))
    has = wanted > 0
    if not has.any():
        return np.zeros(0)
    listed = matrix.positions(shown.item_id, items)
    hit = (listed >= 0) & matrix.among(shown.visitor * len(items) + listed, pair)
    rows = has[shown.visitor]
    arguments = ((np.cumsum(has) - 1)[shown.visitor[rows]], shown.rank[rows], hit[rows])
    if agreed.metric == "ndcg":
        return metrics.ndcg(*arguments, wanted[has], agreed.at)
    if agreed.metric == "recall":
        return metrics.recall(*arguments, wanted[has], agreed.at)
    return metrics.hit_rate(*arguments, int(has.sum()), agreed.at)
