"""For every item that may be served, what stands beside it: what is like it, what goes with it.

Reads ``items``, ``rules_in_force``, ``ineligible_items``, ``interactions``, ``history``,
``item_factors`` and ``content_vectors``. Writes ``item_lists`` (a row per place of an item's list
on a surface).

A surface made for items takes what is alike (``similar_items``), or what shares baskets
(``bought_together``). Filtered before the list is filled: what may stand beside what is
``beside``'s to say; what a ban or margin floor takes out of the surface in every region is like an
item that nobody may get. Other rules order persons' and contexts' lists only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.filtering import filters
from jobs.night import Night
from jobs.ordering import relisting, rules, similar_items
from jobs.ordering.beside import Beside, Pairs
from jobs.ordering.surfaces import ITEM, TOGETHER, Surface
from jobs.params import check
from jobs.refresh import changes
from jobs.retrieval import matrix
from jobs.retrieval.sources import bought_together
from jobs.tables import TABLES


@dataclass(frozen=True)
class Params:
    """How alike is judged; the surfaces and their lengths are those of ``recommendations``."""

    # Neighbours looked at for each item before the best are taken.
    search: int = 30
    # The say of collaborative vectors against content where both items are well known.
    behaviour: float = 0.4
    # An item that this many people chose is half known: below, its vector is mostly noise.
    known_people: float = 20.0
    # What a shared crowd (item-to-item, 0 to 1) adds to the score. At 1.0 a grocer's milk was most
    # like eggs and petrol: staples share everybody, and go together without being alike.
    shared_crowd: float = 0.25
    # Item-to-item neighbours looked at.
    neighbours: int = 20
    # What an item that nobody chose counts against a well known one: of a grocer's thirty equal
    # milks, most have not sold for months, and a list of those helps nobody.
    unknown_share: float = 0.7

    def __post_init__(self) -> None:
        check(self.search >= 1, "search must be at least 1")
        check(0 <= self.behaviour <= 1, "behaviour must be in 0..1")
        check(self.known_people > 0, "known_people must be positive")
        check(self.shared_crowd >= 0, "shared_crowd must not be negative")
        check(self.neighbours >= 1, "neighbours must be at least 1")
        check(0 <= self.unknown_share <= 1, "unknown_share must be in 0..1")


def run(night: Night, params: Params) -> None:
    """Stage ``item_lists``."""
    night.write("item_lists", TABLES["item_lists"].schema.empty_table())
    for number, (name, surface, here) in enumerate(surfaces_of(night), start=1):
        rows = made(night, params, name, surface, here)
        night.add("item_lists", number, rows)
        _note(night, name, here, rows)


def refresh(night: Night, params: Params) -> None:
    """Stage the lists of surfaces with an hourly cadence, or another configuration than the base's,
    made anew; of the others, of items that are due or have no list that stands: else the base's
    stand, without what may not stand there any more."""
    then = io.read_arrow(night.base("item_lists").table("item_lists"))
    due, anew = changes.due_items(night), changes.reconfigured(night)
    night.write("item_lists", TABLES["item_lists"].schema.empty_table())
    for number, (name, surface, here) in enumerate(surfaces_of(night), start=1):
        if surface.follows or name in anew:
            rows = made(night, params, name, surface, here)
        else:
            rows = standing(then.filter(pc.field("surface") == name), here, due)
            asked = wanting(rows, here)
            if len(asked):
                fresh = made(night, params, name, surface, here.only(asked))
                rows = pa.concat_tables([rows, fresh.cast(rows.schema)])
        night.add("item_lists", number, rows)
        _note(night, name, here, rows)


def surfaces_of(night: Night) -> Iterator[tuple[str, Surface, Beside]]:
    """Each surface made for items, and what may stand beside what there."""
    surfaces: dict[str, Surface] = night.params_of("recommendations").of_grain(ITEM)
    items = night.arrow("items", [*rules.ITEM_COLUMNS, "regions"]).sort_by("item_id")
    nobody = pc.field("kind") == filters.EVERYONE[0]
    ineligible = night.arrow("ineligible_items", ["item_id", "kind", "value"], nobody)
    in_force = rules.loaded(night.arrow("rules_in_force"), items)
    beside = Beside.of(items).without(ineligible["item_id"])
    removed = rules.removed(in_force, items["item_id"])
    removed = removed.filter(pc.is_null(removed["region"]))
    for name, surface in surfaces.items():
        here = pc.or_kleene(pc.is_null(removed["surface"]), pc.equal(removed["surface"], name))
        yield name, surface, beside.without(removed.filter(here)["item_id"])


def made(night: Night, params: Params, name: str, surface: Surface, here: Beside) -> pa.Table:
    """The lists of one surface, of every item that may be served."""
    if set(surface.sources) & set(TOGETHER):
        found = here.allowed(together(night, here.item_ids))
    else:
        found = alike(night, here, params, surface.length)
    return here.lists(name, found, surface.length)


def standing(then: pa.Table, here: Beside, due: pa.StringArray) -> pa.Table:
    """The rows of ``item_lists`` that may stand as they were, places closed up, without the lists
    of the items ``due``."""
    then = then.filter(pc.invert(pc.is_in(then["item_id"], value_set=due)))
    left, right = (
        matrix.known(then[name], here.item_ids, "item of the base's item_lists")
        for name in ("item_id", "listed_item_id")
    )
    kept = then.filter(pa.array(here.holds(left, right)))
    return relisting.closed_up(kept, ["surface", "item_id"])


def wanting(rows: pa.Table, here: Beside) -> pa.StringArray:
    """The items that may be served and have none of these rows of ``item_lists``: those that are
    due, that may be served again, or of whose list nothing may stand."""
    served = here.item_ids.filter(pa.array(here.served))
    return served.filter(pc.invert(pc.is_in(served, value_set=pc.unique(rows["item_id"]))))


def _note(night: Night, name: str, here: Beside, rows: pa.Table) -> None:
    night.notes[name] = {
        "served_items": int(here.served.sum()),
        "items_with_a_list": pc.count_distinct(rows["item_id"]).as_py(),
    }


def alike(night: Night, beside: Beside, params: Params, length: int) -> Pairs:
    """What is most like each item."""
    rows = night.arrow("interactions", ["person_id", "item_id", "weight", "last_time"])
    factors, content = night.arrow("item_factors"), night.arrow("content_vectors")
    known = similar_items.known(beside.item_ids, matrix.build(rows), factors, content, params)
    return similar_items.pairs(known, beside, max(params.search, length), params, night.seed)


def together(night: Night, item_ids: pa.StringArray) -> Pairs:
    """What shares baskets with each item more often than chance lets expect."""
    bought = ds.field("event_type") == "purchase"
    columns = ["person_id", "basket", "item_id", "event_type"]
    rows = bought_together.pairs(night.arrow("history", columns, bought), bought_together.Params())
    return Pairs(
        matrix.known(rows["item_id"], item_ids, "item of history"),
        matrix.known(rows["other_item_id"], item_ids, "item of history"),
        rows["score"].to_numpy(),
    )
