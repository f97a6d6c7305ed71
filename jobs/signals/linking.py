"""Links between keys in memory: of tables what :mod:`jobs.signals.links` says of frames.

As many links as the arrays of ``components`` take are judged here, for which an engine would have
to be started and fed; tests hold both to the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from jobs.refresh import onward
from jobs.release import groups
from jobs.signals import codes
from jobs.signals.judging import blank, first_of
from jobs.signals.links import KEY, LINK, PAIR, STATE, TALLIED, UNLINK
from jobs.tables import TIME

if TYPE_CHECKING:
    from jobs.signals.identities import Params

S = pa.string()
USABLE = pa.schema([
    *((name, S) for name in (*PAIR, "source")), ("confidence", pa.float64()),
    *((name, TIME) for name in ("observed_time", "received_time", "known_time")), ("action", S),
])  # fmt: skip
STATES = pa.schema([*(USABLE.field(name) for name in STATE[:-1]), ("outcome", S)])
LOGINS = pa.schema([
    *(USABLE.field(name) for name in (*PAIR, "observed_time", "known_time")), ("claims", pa.bool_())
])  # fmt: skip


def usable(links: pa.Table) -> pa.Table:
    """The rows that name two keys, a source and a time; see :func:`jobs.signals.links.usable`."""
    rows = links.filter(pc.invert(reduce(pc.or_, _faults(links).values())))
    said = _word(pc.fill_null(rows["action"], LINK))
    sound = pc.is_in(said, value_set=pa.array([LINK, UNLINK]))
    types, keys = ([rows[f"{name}_{end}"] for end in "ab"] for name in KEY)
    turned = pc.or_(
        pc.greater(*types), pc.and_(pc.equal(*types), pc.greater(*keys)),
    )  # fmt: skip
    ends = {
        f"{name}_{end}": pc.if_else(turned, rows[f"{name}_{other}"], rows[f"{name}_{end}"])
        for end, other in (("a", "b"), ("b", "a")) for name in KEY
    }  # fmt: skip
    return pa.table({
        **{name: ends[name] for name in PAIR},
        "source": _word(rows["source"]),
        **{name: rows[name] for name in ("confidence", "observed_time", "received_time")},
        "known_time": known_time(rows),
        "action": pc.if_else(sound, said, None),
    }).cast(USABLE)  # fmt: skip


def known_time(links: pa.Table) -> pa.ChunkedArray:
    """When each link became known."""
    return pc.coalesce(links["received_time"], links["observed_time"])


def _word(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_lower(pc.utf8_trim(texts, characters=" "))


def _faults(links: pa.Table) -> dict[str, pa.ChunkedArray]:
    """By their names why rows cannot be rows of the table, the one that counts first."""
    return {
        "no_key": reduce(pc.or_, (blank(links[name]) for name in PAIR)),
        "no_source": blank(links["source"]),
        "no_time": pc.is_null(known_time(links)),
    }


# --- what a link is --------------------------------------------------------------------------
def is_sound(rows: pa.Table) -> pa.ChunkedArray:
    """Whether each confidence is a number from 0 to 1; null and NaN are not."""
    confidence = rows["confidence"]
    within = pc.and_(pc.greater_equal(confidence, 0), pc.less_equal(confidence, 1))
    return pc.fill_null(within, False)


def is_self(rows: pa.Table) -> pa.ChunkedArray:
    """Whether both ends are one key."""
    types, keys = ([rows[f"{name}_{end}"] for end in "ab"] for name in KEY)
    return pc.and_(pc.equal(*types), pc.equal(*keys))


def is_guess(rows: pa.Table, params: Params) -> pa.ChunkedArray:
    """Whether a link says who looks alike: by its source, or by a confidence below 1."""
    lookalike = _of(rows["source"], params.guessing_sources)
    return pc.or_kleene(lookalike, pc.less(rows["confidence"], 1))


def is_unsure(rows: pa.Table, params: Params) -> pa.ChunkedArray:
    """Whether a link is a guess that is not sure enough to merge."""
    unsure = pc.less(rows["confidence"], params.min_confidence)
    return pc.and_kleene(is_guess(rows, params), unsure)


def _names_nobody(rows: pa.Table, params: Params) -> pa.ChunkedArray:
    ends = [rows[f"key_type_{end}"] for end in "ab"]
    a, b = (pc.invert(_of(end, params.account_types)) for end in ends)
    strange = (pc.invert(_of(end, params.named_types)) for end in ends)
    return pc.and_(pc.and_(a, b), pc.or_(*strange))


def _of(texts: pa.ChunkedArray, some: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(texts, value_set=pa.array(some, S))


def _clock(rows: pa.Table) -> pa.ChunkedArray:
    observed, known = rows["observed_time"], rows["known_time"]
    return pc.if_else(pc.fill_null(pc.less(observed, known), False), observed, known)


# --- its state -------------------------------------------------------------------------------
def state(links: pa.Table, cut: datetime, params: Params) -> pa.Table:
    """The state at ``cut`` of each pair and source; see :func:`jobs.signals.links.state`."""
    now = pa.scalar(cut, TIME)
    rows = links.filter(pc.less(links["known_time"], now))
    unlinks = pc.fill_null(pc.equal(rows["action"], UNLINK), False)
    ahead = pc.and_(
        pc.fill_null(pc.greater_equal(rows["observed_time"], now), False),
        pc.fill_null(pc.equal(rows["action"], LINK), False),
    )
    confidence = rows["confidence"]
    nan = pc.is_nan(confidence)
    order = pa.table({
        **{name: rows[name] for name in LINKED},
        "happened": pc.invert(ahead),
        "clock": _clock(rows),
        "unlinks": unlinks,
        "odd": pc.or_(pc.is_null(rows["action"]), pc.invert(is_sound(rows))),
        # What is no number doubts most, and null least.
        "nan": nan,
        "doubt": pc.if_else(pc.fill_null(nan, False), 0.0, pc.negate(confidence)),
        **{name: rows[name] for name in ("known_time", "observed_time", "action")},
    })  # fmt: skip
    by = [(name, "ascending", "at_start") for name in order.column_names]
    places = pc.sort_indices(order, sort_keys=by)
    order, rows = order.take(places), rows.take(places)
    starts = groups.runs(order, LINKED)
    last = pa.array(np.append(starts, rows.num_rows)[1:] - 1)
    order, rows = order.take(last), rows.take(last)
    household = _of(rows["source"], params.household_sources)
    far = pc.less(rows["confidence"], params.household_confidence)
    of_login = _of(rows["source"], params.login_sources)
    verdicts = {
        "unlinked": order["unlinks"],
        "unknown_action": pc.is_null(rows["action"]),
        "observed_in_the_future": pc.invert(order["happened"]),
        "self_link": is_self(rows),
        "confidence_outside_0_1": pc.invert(is_sound(rows)),
        "unknown_source": pc.invert(_of(rows["source"], params.sources)),
        "no_account": pc.and_(of_login, _names_nobody(rows, params)),
        "below_threshold": pc.if_else(household, far, is_unsure(rows, params)),
        "household": household,
    }
    return rows.append_column("outcome", first_of(verdicts)).select(STATE).cast(STATES)


LINKED = [*PAIR, "source"]


def judge(rows: pa.Table, keys: pa.Table, params: Params) -> pa.Table:
    """The rows of :func:`state`, with ``unknown_key``; see :func:`jobs.signals.links.judge`."""
    unknown = [
        pc.invert(pc.or_(
            pc.is_valid(codes.places(*codes.of_rows(KEY, side, keys))),
            _of(side["key_type"], params.linking_types),
        ))
        for side in ends(rows)
    ]  # fmt: skip
    waits = pc.and_(pc.is_null(rows["outcome"]), pc.or_(*unknown))
    place = rows.schema.get_field_index("outcome")
    return rows.set_column(place, "outcome", pc.if_else(waits, "unknown_key", rows["outcome"]))


def ends(links: pa.Table) -> list[pa.Table]:
    """key_type, key of each side of these."""
    return [
        links.select([f"{name}_{end}" for name in KEY]).rename_columns(KEY) for end in ("a", "b")
    ]


def with_linking_keys(named: pa.Table, merging: pa.Table, params: Params) -> pa.Table:
    """The keys, and those that exist only to link: key_type, key, first_seen."""
    sides = pa.concat_tables(ends(merging)).group_by(KEY).aggregate([])
    only = sides.filter(_of(sides["key_type"], params.linking_types))
    only = only.filter(pc.invert(onward.among(only, named, KEY)))
    only = only.append_column("first_seen", pa.nulls(only.num_rows, TIME))
    return pa.concat_tables([named, only.select(named.column_names).cast(named.schema)])


# --- logins ----------------------------------------------------------------------------------
def logins(links: pa.Table, cut: datetime, params: Params) -> pa.Table:
    """Every login seen before ``cut``; see :func:`jobs.signals.links.logins`."""
    now = pa.scalar(cut, TIME)
    known = pc.less(links["known_time"], now)
    rows = links.filter(pc.and_(_of(links["source"], params.login_sources), known))
    rows = rows.append_column("clock", _clock(rows))
    undone = rows.filter(pc.equal(rows["action"], UNLINK)).group_by(LINKED)
    undone = undone.aggregate([("clock", "max"), ("known_time", "max")])
    said = pc.and_(is_sound(rows), pc.fill_null(pc.equal(rows["action"], LINK), False))
    seen = pc.fill_null(pc.less(rows["observed_time"], now), False)
    rows = rows.filter(pc.and_(pc.and_(said, pc.invert(is_self(rows))), seen))
    place = codes.places(*codes.of_rows(LINKED, rows, undone))
    back, since = (undone[name].take(place) for name in ("clock_max", "known_time_max"))
    taken_back = pc.fill_null(pc.greater_equal(back, rows["clock"]), False)
    later = pc.if_else(pc.greater(since, rows["known_time"]), since, rows["known_time"])
    found = pa.table({
        **{name: rows[name] for name in (*PAIR, "observed_time")},
        "known_time": pc.if_else(taken_back, later, rows["known_time"]),
        "claims": pc.invert(pc.or_(taken_back, is_unsure(rows, params))),
    })  # fmt: skip
    return found.group_by(found.column_names).aggregate([]).cast(LOGINS)


# --- counts ----------------------------------------------------------------------------------
def tally(
    links: pa.Table | None, cut: datetime, before: datetime | None, params: Params
) -> dict[str, int]:
    """Counts over the contract's rows; see :func:`jobs.signals.links.tally`, whose fingerprints are
    others. All 0 where the source has no links."""
    if links is None:
        return dict.fromkeys(TALLIED, 0)
    now = pa.scalar(cut, TIME)
    tolerance = pa.scalar(timedelta(seconds=params.clock_tolerance_seconds), pa.duration("us"))
    times = known_time(links)
    known = pc.fill_null(pc.less(times, now), False)
    earlier = pc.less(times, pa.scalar(before, TIME)) if before else pc.and_(known, False)
    sooner = pc.subtract(links["observed_time"], tolerance)
    faults, counted = _faults(links), {"received": links.num_rows}
    named = first_of(faults)
    counted |= {name: _count(pc.equal(named, name)) for name in faults}
    counted["not_yet_known"] = _count(pc.greater_equal(times, now))
    unordered = pc.and_(known, pc.greater(sooner, links["received_time"]))
    counted["received_before_observed"] = _count(unordered)
    ahead = pc.and_(known, pc.greater_equal(sooner, now))
    counted["observed_after_as_of"] = _count(ahead)
    hashed = _hashes(links)
    for name, chosen in (("past", pc.fill_null(earlier, False)), ("known", known)):
        mine = hashed[np.asarray(chosen, bool)]
        # Sums of halves: equal for equal rows in any order, too small to overflow.
        counted[f"{name}_rows"] = len(mine)
        counted[f"{name}_high"] = int((mine >> np.uint64(32)).sum())
        counted[f"{name}_low"] = int((mine & np.uint64(0xFFFFFFFF)).sum())
    return {name: counted[name] for name in TALLIED}


def _count(holds: pa.ChunkedArray) -> int:
    return int(pc.sum(holds, min_count=0).as_py())


def _hashes(rows: pa.Table) -> np.ndarray:
    """(n_rows,) uint64 of each row's values, in which null is a value of its own."""
    found = np.zeros(rows.num_rows, np.uint64)
    for name in rows.column_names:
        # Texts and their like are hashed once each.
        encoded = groups.one(rows[name]).dictionary_encode(null_encoding="mask")
        values = encoded.dictionary
        if not pa.types.is_string(values.type):
            values = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
        each = pd.util.hash_array(values.to_numpy(zero_copy_only=False), categorize=False)
        place = pc.fill_null(encoded.indices, len(each)).to_numpy()
        found = (found ^ np.append(each, NULL)[place]) * PRIME
        found ^= found >> np.uint64(29)
    return found


# An odd multiplier whose bits are spread, that of splitmix64, and what null is taken for.
PRIME, NULL = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x9E3779B97F4A7C15)
