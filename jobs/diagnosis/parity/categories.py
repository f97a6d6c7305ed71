"""Names of categories that vanished and came, and renames told by the items that they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis.log.who import UNKNOWN
from jobs.diagnosis.symptoms import Symptom
from jobs.tables import BELOW

BROAD, PATH = LEVELS = ("broad", "path")
# Of a category's items, the share that must have gone to one new name; fewer are re-sorted goods.
MOVED = 0.2
# Of a new name's items that were known before, the share that must come from the old one.
FROM_ONE = 0.8
# A rename of this share of what is served is worth a person's morning.
SERVED = 0.005
# A category that took so much of what was served cannot go without somebody knowing why.
GONE = 0.02
FEW_SHOWN = 500  # places of the current period; fewer may miss a category by chance
FEW = 3  # items; what becomes of fewer is no rename


@dataclass(frozen=True)
class Catalogue:
    """``items``: (n,) ids; ``category``: (n,) paths, null for none."""

    items: pa.Array
    category: pa.Array

    @staticmethod
    def of(rows: pa.Table) -> Catalogue:
        """From rows of the table ``items``."""
        return Catalogue(rows["item_id"].combine_chunks(), rows["category"].combine_chunks())

    def names(self, level: str) -> pa.Array:
        """(n,) the category's broadest step, or its whole path."""
        if level == PATH:
            return self.category
        coded = self.category.dictionary_encode()
        steps = pc.list_element(pc.split_pattern(coded.dictionary, BELOW), 0)
        return steps.take(coded.indices) if len(steps) else self.category


@dataclass(frozen=True)
class Move:
    """Items of the category ``old`` that are now in ``new``, of ``held`` items that both
    catalogues have. ``gone``: no item is called ``old`` any more."""

    level: str
    old: str
    new: str
    items: pa.Array
    held: int
    gone: bool


@dataclass(frozen=True)
class Shown:
    """Rows served per category and per item of the reference and the current period."""

    by_category: dict[str, dict[str, int]]
    by_item: dict[str, pa.Table]
    rows: dict[str, int]

    def share(self, period: str, category: str) -> float | None:
        if not self.rows.get(period):
            return None
        return self.by_category.get(period, {}).get(category, 0) / self.rows[period]

    def share_of(self, period: str, items: pa.Array) -> float | None:
        """The share of the period's rows that show these items."""
        if not self.rows.get(period):
            return None
        rows = self.by_item[period]
        among = rows.filter(pc.is_in(rows["item_id"], value_set=items))
        return (pc.sum(among["rows"]).as_py() or 0) / self.rows[period]


def renames(before: Catalogue, after: Catalogue) -> list[Move]:
    """Names that items had before and that gave way to a name which nothing had before.

    A path is only told of where its broadest step stayed: a renamed step renames all below it.
    """
    broad = _moves(before, after, BROAD)
    steps = {move.old for move in broad}
    paths = [
        move for move in _moves(before, after, PATH) if move.old.split(BELOW, 1)[0] not in steps
    ]
    return broad + paths


def _moves(before: Catalogue, after: Catalogue, level: str) -> list[Move]:
    place = pc.index_in(after.items, value_set=before.items)
    common = pc.is_valid(place)
    old = before.names(level).take(place.filter(common))
    new, ids = after.names(level).filter(common), after.items.filter(common)
    named = pc.and_(pc.is_valid(old), pc.is_valid(new))
    old, new, ids = old.filter(named), new.filter(named), ids.filter(named)
    known = set(pc.unique(before.names(level)).to_pylist())
    now = set(pc.unique(after.names(level)).to_pylist())
    held, got = _counts(old), _counts(new)
    found = pa.table({"old": old, "new": new}).filter(pc.not_equal(old, new))
    pairs = found.group_by(["old", "new"]).aggregate([([], "count_all")]).to_pylist()
    moves = []
    for pair in sorted(pairs, key=lambda row: (row["old"], -row["count_all"], row["new"])):
        was, called, count = pair["old"], pair["new"], pair["count_all"]
        most = count >= MOVED * held[was] and count >= FROM_ONE * got[called]
        if called not in known and count >= FEW and most:
            mine = pc.and_(pc.equal(old, was), pc.equal(new, called))
            moves.append(Move(level, was, called, ids.filter(mine), held[was], was not in now))
    return moves


def _counts(names: pa.Array) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(names).to_pylist()}


def rows_of(
    before: Catalogue | None, after: Catalogue, shown: Shown, moves: list[Move]
) -> list[dict[str, Any]]:
    """Rows of ``category_parity``: each broad category, and each path that was renamed."""
    then = _names(before) if before else None
    now = _names(after)
    seen = {name for one in shown.by_category.values() for name in one if name}
    renamed = {(move.level, move.old): move for move in moves}
    came = {(move.level, move.new): move for move in moves}
    broad = sorted(seen | now | (then or set()))
    paths = sorted({name for level, name in (*renamed, *came) if level == PATH})
    rows: list[dict[str, Any]] = []
    for level, name in [(BROAD, one) for one in broad] + [(PATH, one) for one in paths]:
        known = {BROAD: then, PATH: _paths(before)}[level] if before else None
        here = name in (now if level == BROAD else _paths(after))
        move = renamed.get((level, name))
        rows.append({
            "level": level, "category": name,
            "share_reference": shown.share("reference", name) if level == BROAD else None,
            "share_current": shown.share("current", name) if level == BROAD else None,
            "catalogue_then": None if known is None else name in known, "catalogue_now": here,
            "renamed_to": move.new if move else None,
            "items_moved": len(move.items) if move else 0,
            "finding": _finding(name, known, here, move, came.get((level, name))),
        })  # fmt: skip
    return rows


def _names(one: Catalogue) -> set[str]:
    return set(pc.unique(pc.drop_null(one.names(BROAD))).to_pylist())


def _paths(one: Catalogue) -> set[str]:
    return set(pc.unique(pc.drop_null(one.category)).to_pylist())


def _finding(
    name: str, known: set[str] | None, here: bool, went: Move | None, came: Move | None
) -> str | None:
    if went:
        return f"{len(went.items):,} of its {went.held:,} items are now called {went.new!r}"
    if came:
        return f"new; its items were called {came.old!r}"
    if known is None or (name in known) == here:
        return None
    return "new in the catalogue" if here else "no longer in the catalogue"


def vanished(rows: list[dict[str, Any]], shown: Shown) -> list[Symptom]:
    """A warning for each broad category that took much of what was served and is gone: out of the
    catalogue, or out of what is served. ``rows``: of ``category_parity``."""
    found = []
    for row in rows:
        share = row["share_reference"] or 0.0
        removed = row["catalogue_then"] and not row["catalogue_now"]
        hidden = row["share_current"] == 0 and shown.rows.get("current", 0) >= FEW_SHOWN
        if row["renamed_to"] or share < GONE or not (removed or hidden):
            continue
        where = "no longer in the catalogue" if removed else "in the catalogue and no longer served"
        found.append(Symptom(
            "vanished_category", row["category"], share, GONE, share / GONE,
            int(np.round(share * shown.rows["reference"])),
            f"The category {row['category']!r} took {100 * share:.1f} % of what was served before; "
            f"it is {where}, and no other name has taken its items.",
            warning=True,
        ))  # fmt: skip
    return found


def new(rows: list[dict[str, Any]], moves: list[Move], shown: Shown) -> list[Symptom]:
    """A warning for each broad category that takes much of what is served, was not served before
    and is not known for another name of what was. ``rows``: of ``category_parity``."""
    named = {move.new for move in moves if move.level == BROAD}
    found = []
    for row in rows:
        share = row["share_current"] or 0.0
        before = row["share_reference"] == 0 and shown.rows.get("reference", 0) >= FEW_SHOWN
        if row["category"] in {*named, UNKNOWN} or share < GONE or not before:
            continue
        found.append(Symptom(
            "new_category", row["category"], share, GONE, share / GONE,
            int(np.round(share * shown.rows["current"])),
            f"The category {row['category']!r} takes {100 * share:.1f} % of what is served, and "
            "nothing was served under this name before: what is counted by category begins anew.",
            warning=True,
        ))  # fmt: skip
    return found


def symptoms(moves: list[Move], shown: Shown) -> list[Symptom]:
    """A renamed category where its items are enough of what is served; one per old name."""
    found: dict[str, Symptom] = {}
    for move in moves:
        share = shown.share_of("current", move.items) or 0.0
        if share < SERVED:
            continue
        rest = "; the old name is gone" if move.gone else "; the rest keeps the old name"
        one = Symptom(
            kind="renamed_category",
            subject=move.old,
            effect=share,
            limit=SERVED,
            severity=share / SERVED,
            rows=int(np.round(share * shown.rows["current"])),
            sentence=(
                f"The category {move.old!r} is now called {move.new!r}: {len(move.items):,} of its "
                f"{move.held:,} items have the new name{rest}. {100 * share:.1f} % of what is "
                "served are these items, and whatever counts by category starts anew for them."
            ),
        )
        if one.subject not in found or found[one.subject].effect < share:
            found[one.subject] = one
    return list(found.values())
