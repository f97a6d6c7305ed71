"""What a refresh does with the lists of persons: which are made anew, which lose places and are to
be filled, and which stand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from jobs.filtering.allowed import Allowed
from jobs.io import Published
from jobs.night import Night
from jobs.ordering import relisting
from jobs.ordering.logged import Lately
from jobs.ordering.rules import Rule
from jobs.ordering.surfaces import Surface
from jobs.refresh import changes, onward


@dataclass(frozen=True)
class Plan:
    """Which lists a refresh makes anew, and which it mends.

    ``anew``: lists that are made as a whole; ``lost``, ``remodelled``: surface, person_id, item_id
    of places in other lists, and in the model's, that may not stand any more; ``people``: sorted,
    whose lists are looked at; ``lists``: by surface whose list there is made, as a whole or for
    what it offers to a gap; ``merged``: those among them of whose lists something stands;
    ``short``: sorted, who lost a place; ``everybody``: all lists of all people are anew.
    """

    anew: relisting.Anew
    lost: pa.Table
    remodelled: pa.Table
    people: pa.StringArray
    lists: dict[str, pa.StringArray]
    merged: pa.StringArray
    short: pa.StringArray
    everybody: bool

    def standing(self, base: relisting.Rows, surfaces: Collection[str]) -> pa.Table:
        """surface, person_id and item_id of the places of ``merged`` people in lists on these
        surfaces that nothing is done with."""
        rows = relisting.rows_of(base, self.merged, relisting.PLACE)
        kept = [
            rows.filter(
                pc.and_(
                    pc.equal(rows["surface"], name),
                    pc.invert(pc.is_in(rows["person_id"], value_set=self.lists[name])),
                )
            )
            for name in surfaces
        ]
        return pa.concat_tables([rows.slice(0, 0), *kept])


def planned(
    night: Night, base: Published, surfaces: Mapping[str, Surface], may: relisting.Lawful
) -> Plan:
    """What is to be done with the lists of persons in the base."""
    due, whole, gone = changes.due(night), changes.whole(night), changes.gone(night)
    following = tuple(name for name, one in surfaces.items() if one.follows)
    anew = relisting.Anew(due, whole, following)
    lost = anew.without(may.lost(base.table("recommendations"), gone))
    short = onward.both(lost["person_id"])
    # A filled place would not be counted with those that stand: such lists are made whole.
    counted = pa.array([name for name in surfaces if counts_places(may.known, name)], pa.string())
    anew = replace(anew, also=lost.filter(pc.is_in(lost["surface"], value_set=counted)))
    lost = anew.without(lost)
    # The model's lists know no rules, and another one's items than are published.
    model = replace(may, known=[]).lost(base.table("model_lists"), gone)
    remodelled = anew.without(model)
    people = onward.both(anew.people, short, remodelled["person_id"])
    lists = {name: anew.on(name, lost, remodelled) for name in surfaces}
    standing = pc.invert(pc.is_in(people, value_set=anew.whole))
    everybody = changes.everybody_anew(night)
    merged = people.filter(standing)
    return Plan(anew, lost, remodelled, people, lists, merged, short, everybody)


def counts_places(known: list[Rule], surface: str) -> bool:
    """Whether one of these rules pins to places of a surface's lists, or counts them."""
    return any(rule.kind in ("pin", "cap") and rule.surface in (None, surface) for rule in known)


def lawful(night: Night, items: pa.Table, known: list[Rule]) -> relisting.Lawful:
    """What may stand in lists now."""
    persons = night.arrow("persons", ["person_id", "region", "restrictions"]).sort_by("person_id")
    item_ids = pa.concat_arrays(items["item_id"].chunks)
    blocked = night.arrow("blocked_pairs", ["person_id", "item_id"])
    pairs = Lately.of(blocked, persons, item_ids, "blocked_pairs").keys
    allowed = Allowed.of(night.arrow("eligibility"), persons, items["position"].to_numpy(), pairs)
    return relisting.Lawful(persons, item_ids, allowed, known)
