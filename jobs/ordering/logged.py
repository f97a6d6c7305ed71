"""What people bought and were shown lately, and what became of explored places, for ordering.

Reads ``history``, ``identities``, ``events``, the contract table ``recommendation_log`` and, of the
nights and refreshes whose lists were shown, ``recommendations``, ``context_lists`` and
``identities``, or what was kept of them (``jobs/refresh/explored.py``). Writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs import io
from jobs.io import Published
from jobs.night import Night
from jobs.ordering import explore
from jobs.ordering.surfaces import CONTEXT, Surface
from jobs.refresh import explored as kept
from jobs.release import groups, releases
from jobs.retrieval import matrix
from jobs.sources import in_memory
from jobs.sources.in_memory import Where
from jobs.tables import TIME, S

KEY = ["key_type", "key"]
PAIRS = pa.schema([("person_id", S), ("item_id", S)])


def bought(night: Night, days: int) -> pa.Table:
    """person_id, item_id of what was bought in the days before the night, a pair once."""
    if not days:
        return PAIRS.empty_table()
    since = pa.scalar(night.as_of - timedelta(days=days), TIME)
    lately = (ds.field("event_time") >= since) & (ds.field("event_type") == "purchase")
    rows = night.arrow("history", PAIRS.names, lately)
    return rows.group_by(PAIRS.names).aggregate([]).select(PAIRS.names)


def shown(night: Night, days: int, surface: str) -> pa.Table:
    """person_id, item_id of what a surface showed in the days before the night, a pair once.

    Where the log says at which place of the page an item stood, those without one were not seen.
    """
    log = _log(night, days, surface) if days else None
    if log is None:
        return PAIRS.empty_table()
    seen = log.filter(pc.is_valid(log["shown_position"]))
    rows = seen if seen.num_rows else log
    found = rows.join(night.arrow("identities", [*KEY, "person_id"]), KEY, join_type="inner")
    items = night.arrow("items", ["item_id"])["item_id"].combine_chunks()
    found = found.filter(pc.is_in(found["item_id"], value_set=items))
    return found.group_by(PAIRS.names).aggregate([]).select(PAIRS.names).cast(PAIRS)


def explored(night: Night, name: str, surface: Surface) -> pa.Table:
    """What became of the places that earlier nights explored: source, impressions, conversions.

    A place counts where the log names the release that it stood in, and its lists are still in the
    lake, or what was drawn for them; an event answers it where it names the request and the item.
    """
    log = _log(night, surface.explore_days, name)
    since = night.as_of - timedelta(days=surface.explore_days)
    read = _of_contexts if surface.grain == CONTEXT else _of_persons
    shelves = [
        read(night, log, lists)
        for lists in night.lake.earlier("recommendations", night.as_of)
        if log is not None and io.parse_as_of(lists.as_of) >= since
    ]
    if log is not None:
        shelves.append(_kept(night, log, surface.grain == CONTEXT, since))
    placed = pa.concat_tables([DRAWN.empty_table(), *filter(None, shelves)])
    return explore.outcomes(placed, _answers(night, surface) if placed.num_rows else ANSWERS)


DRAWN = pa.schema([("request_id", S), ("item_id", S), ("source", S)])
ANSWERS = pa.schema([("request_id", S), ("item_id", S)]).empty_table()
LOGGED = [
    "request_id", "request_time", "surface", *KEY, "item_id", "propensity", "release_id",
    "shown_position",
]  # fmt: skip


def _answers(night: Night, surface: Surface) -> pa.Table:
    """request_id, item_id of the events that answer a place, of people with a history."""
    rewards = ds.field("event_type").isin(list(surface.explore_rewards))
    columns = ["event_id", "request_id", "item_id"]
    rows = night.arrow("events", columns, rewards & ds.field("request_id").is_valid())
    ids = rows["event_id"].combine_chunks()
    stitched = night.arrow("history", ["event_id"], ds.field("event_id").isin(ids))
    mine = pc.is_in(rows["event_id"], value_set=stitched["event_id"].combine_chunks())
    return rows.filter(mine).select(ANSWERS.schema.names)


def _log(night: Night, days: int, surface: str) -> pa.Table | None:
    """The log of a surface over the days before the night, without rows that do not say what was
    asked; None where the source keeps none."""
    since, now = (pa.scalar(at, TIME) for at in (night.as_of - timedelta(days=days), night.as_of))

    def lately(rows: pa.Table) -> pa.ChunkedArray:
        times = rows["request_time"]
        within = pc.and_(pc.greater_equal(times, since), pc.less(times, now))
        return pc.and_(pc.equal(rows["surface"], surface), within)

    where = Where(["surface", "request_time"], lately)
    rows = in_memory.read(night.source_folder(), "recommendation_log", None, LOGGED, where)
    if rows is None:
        return None
    return rows.filter(reduce(pc.and_, (pc.is_valid(rows[name]) for name in (*KEY, "item_id"))))


def _of_persons(night: Night, log: pa.Table, lists: Published) -> pa.Table | None:
    """Logged items that the lists of one night explored, as ``DRAWN``, a row per source; None where
    its lists are of a version that drew nothing, or were not logged."""
    folder = lists.table("recommendations")
    known = night.lake.at("identities", lists.as_of)
    if known is None or "propensity" not in io.schema_of(folder).names:
        return None
    night.earlier("recommendations", lists.as_of)
    night.earlier("identities", lists.as_of)
    asked = log.filter(_of_release(log, lists))
    if asked.num_rows == 0:
        return None
    keys = io.read_arrow(known.table("identities"), [*KEY, "person_id"])
    place = ["surface", "person_id", "item_id"]
    drawn = _each_source(io.read_arrow(folder, [*place, "sources"], EXPLORED))
    asked = asked.join(keys, KEY, join_type="inner")
    return _drawn(asked.join(drawn, place, join_type="inner"))


def _of_contexts(night: Night, log: pa.Table, lists: Published) -> pa.Table | None:
    """The same of lists that many share. The log does not say in whose context somebody asked, but
    whether the item was drawn; it was by the sources that name it in the lists that drew it."""
    folder = lists.table("context_lists")
    if not folder.is_dir():
        return None
    night.earlier("recommendations", lists.as_of)
    asked = log.filter(pc.and_(_of_release(log, lists), pc.less(log["propensity"], 1.0)))
    if asked.num_rows == 0:
        return None
    drawn = _each_source(io.read_arrow(folder, ["surface", "item_id", "sources"], EXPLORED))
    drawn = drawn.group_by(drawn.column_names).aggregate([])
    return _drawn(asked.join(drawn, ["surface", "item_id"], join_type="inner"))


def _kept(night: Night, log: pa.Table, of_contexts: bool, since: datetime) -> pa.Table | None:
    """The same of refreshes whose tables are gone; None where nothing was kept of any."""
    paths = [
        path
        for path in kept.files(night.lake, kept.CONTEXTS if of_contexts else kept.PERSONS)
        if since <= kept.as_of(path) < night.as_of
        and night.lake.at("recommendations", io.label(kept.as_of(path))) is None
    ]
    if not paths:
        return None
    for path in paths:
        night.read_file(path)
    rows = _each_source(pa.concat_tables([pq.read_table(path) for path in paths]))
    begins = pc.utf8_slice_codeunits(log["release_id"], 0, len(paths[0].stem))
    stamped = log.append_column("stamp", begins)
    if of_contexts:
        stamped = stamped.filter(pc.less(log["propensity"], 1.0))
    on = ["stamp", "surface", "item_id", *([] if of_contexts else KEY)]
    return _drawn(stamped.join(rows, on, join_type="inner"))


EXPLORED = ds.field("propensity") < 1.0


def _each_source(rows: pa.Table) -> pa.Table:
    """A row for each of ``sources``, in a column ``source``."""
    sources = groups.one(rows["sources"])
    each = rows.drop_columns(["sources"]).take(pc.list_parent_indices(sources))
    return each.append_column("source", pc.list_flatten(sources))


def _drawn(rows: pa.Table) -> pa.Table:
    return rows.select(DRAWN.names).cast(DRAWN)


def _of_release(log: pa.Table, lists: Published) -> pa.ChunkedArray:
    """(n_rows,) booleans: what was logged of the releases of one run date."""
    return pc.starts_with(log["release_id"], releases.stamp(io.parse_as_of(lists.as_of)))


@dataclass(frozen=True)
class Lately:
    """Pairs that something happened to lately, as sorted keys ``person * n_items + item``."""

    keys: np.ndarray
    n_items: int

    @staticmethod
    def of(pairs: pa.Table, persons: pa.Table, item_ids: pa.StringArray, what: str) -> Lately:
        """From rows of person_id and item_id."""
        person = matrix.known(pairs["person_id"], persons["person_id"], f"person of {what}")
        item = matrix.known(pairs["item_id"], item_ids, f"item of {what}")
        return Lately(matrix.distinct(person * len(item_ids) + item), len(item_ids))

    def holds(self, person: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each pair of codes is one of them."""
        return matrix.among(person * self.n_items + item, self.keys)
