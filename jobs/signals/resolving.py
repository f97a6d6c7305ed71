"""From keys and links to persons and households in memory: of tables what
:mod:`jobs.signals.identities` and :mod:`jobs.signals.households` make of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from jobs.release import groups
from jobs.signals import codes, linking, resolution
from jobs.signals.linking import LINKED
from jobs.signals.links import KEY, STATE
from jobs.tables import TABLES, TIME

if TYPE_CHECKING:
    from jobs.signals.identities import Params

S = pa.string()
IDENTITIES, LINKS = (TABLES[name].schema for name in ("identities", "identity_links"))
TOO_LARGE = "person_too_large"


@dataclass(frozen=True)
class Found:
    """``identities`` and ``links`` as the tables; of how many keys, links that may merge and raw
    components the graph was."""

    identities: pa.Table
    links: pa.Table
    touched: dict[str, int]


def resolve(keys: pa.Table, rows: pa.Table, cut: datetime, params: Params) -> Found:
    """Persons and households as known at ``cut``, all of them anew.

    ``keys``: key_type, key, first_seen of those that are named; ``rows``: the contract's links.
    """
    states = linking.judge(linking.state(linking.usable(rows), cut, params), keys, params)
    merging = states.filter(pc.is_null(states["outcome"]))
    guess = linking.is_guess(merging, params)
    candidates = merging.select([*LINKED, "confidence"]).append_column("guess", guess)
    everybody = linking.with_linking_keys(keys, merging, params)
    found = resolution.on_arrays(everybody, candidates, params.caps)
    of_household = pc.fill_null(pc.equal(states["outcome"], "household"), False)
    resolved, grouped = _households(found.keys, states.filter(of_household), params)
    refused = pc.and_(pc.is_valid(states["outcome"]), pc.invert(of_household))
    plain = [name for name in STATE if name != "outcome"]
    place = codes.places(*codes.of_rows(LINKED, merging, found.links))
    merging = merging.select(plain)
    for name in ("outcome", "detail"):
        merging = merging.append_column(name, found.links[name].cast(S).take(place))
    every = [merging, _with_detail(states.filter(refused), None), grouped]
    touched = {
        "keys": everybody.num_rows, "links": candidates.num_rows, "components": found.components,
    }  # fmt: skip
    links = pa.concat_tables(part.select(LINKS.names).cast(LINKS) for part in every)
    return Found(resolved, links, touched)


def alone(keys: pa.Table) -> Found:
    """Everybody is a person and a household of their own: what a source without links says."""
    ids = resolution.key_ids(keys["key_type"], keys["key"]).cast(S)
    found = pa.table({
        **{name: keys[name] for name in (*KEY, "first_seen")},
        **dict.fromkeys(("person_id", "household_id", "component"), ids),
    })  # fmt: skip
    touched = {"keys": keys.num_rows, "links": 0, "components": keys.num_rows}
    return Found(found.select(IDENTITIES.names).cast(IDENTITIES), LINKS.empty_table(), touched)


def _with_detail(states: pa.Table, detail: pa.ChunkedArray | None) -> pa.Table:
    return states.append_column(
        "detail", pa.nulls(states.num_rows, S) if detail is None else detail
    )


def _households(keys: pa.Table, links: pa.Table, params: Params) -> tuple[pa.Table, pa.Table]:
    """The table ``identities``, and the household links with outcomes and details; see
    :func:`jobs.signals.households.group`.

    ``keys``: key_type, key, person_id, component, first_seen.
    """
    persons = keys["person_id"].cast(S)
    keys = keys.set_column(keys.schema.get_field_index("person_id"), "person_id", persons)
    if links.num_rows == 0:
        identities = keys.append_column("household_id", persons)
        return identities.select(IDENTITIES.names).cast(IDENTITIES), _with_detail(links, None)
    one, other = (
        persons.take(codes.places(*codes.of_rows(KEY, side, keys))) for side in linking.ends(links)
    )
    pairs = pa.table({
        "low": pc.min_element_wise(one, other), "high": pc.max_element_wise(one, other),
    })  # fmt: skip
    unknown = pc.or_(pc.is_null(one), pc.is_null(other))
    known = pairs.filter(pc.invert(unknown)).group_by(["low", "high"]).aggregate([])
    members = groups.one(pc.unique(pa.chunked_array(
        [*known["low"].chunks, *known["high"].chunks], S
    )))  # fmt: skip
    seen = keys.filter(pc.is_in(persons, value_set=members)).group_by("person_id")
    seen = seen.aggregate([("first_seen", "min")])
    found = resolution.on_arrays(
        pa.table({
            "key_type": pa.repeat("", seen.num_rows), "key": seen["person_id"],
            "first_seen": seen["first_seen_min"].cast(TIME),
        }),
        pa.table({
            "key_type_a": pa.repeat("", known.num_rows), "key_a": known["low"],
            "key_type_b": pa.repeat("", known.num_rows), "key_b": known["high"],
            "source": pa.repeat("household", known.num_rows),
            "confidence": pa.repeat(1.0, known.num_rows),
            "guess": pa.repeat(False, known.num_rows),
        }),
        params.household_caps,
    )  # fmt: skip
    place = pc.index_in(persons, value_set=groups.one(found.keys["key"].cast(S)))
    # The id of a key without a type begins with the colon behind it.
    named = pc.utf8_slice_codeunits(found.keys["person_id"].cast(S), 1).take(place)
    identities = keys.append_column("household_id", pc.coalesce(named, persons))
    judged = found.links.rename_columns(["_", "low", "__", "high", "___", "outcome", "detail"])
    place = codes.places(*codes.of_rows(["low", "high"], pairs, judged))
    too_large = pc.fill_null(pc.equal(judged["outcome"].take(place), TOO_LARGE), False)
    detail = pc.replace_substring(
        judged["detail"].cast(S).take(place), "keys in one person", "persons in one household"
    )
    outcome = pc.if_else(
        unknown, "unknown_key", pc.if_else(too_large, "household_too_large", "household")
    )
    place = links.schema.get_field_index("outcome")
    links = _with_detail(links.set_column(place, "outcome", outcome), detail)
    return identities.select(IDENTITIES.names).cast(IDENTITIES), links
