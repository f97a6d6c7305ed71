"""Business rules: which of them are in force, on which items, and what each does to a list.

Reads rows of the contract table ``rules`` and the catalogue, as Arrow tables. :func:`in_force`
makes the table ``rules_in_force`` (a row per rule and what became of it); :class:`Rules` holds the
rules of one surface in codes, for the lists of the night. Pure: no clock, no path.

A rule's ``scope`` names items by ``item:``, ``category:``, ``brand:``, ``seller:`` or ``flag:``
and a name, or by a bare name that is looked up as each of these; ``*`` is every item. A category
holds the categories below it.

Rules apply in the order of :data:`KINDS`, and in each kind by ``rule_id``:

- ``ban`` removes its items from every list.
- ``margin_floor`` removes its items whose margin is below ``strength``. An item whose margin is
  not known stays: unknown is not low. It is counted in ``unjudged``.
- ``boost`` orders an item at place r of a person's candidates as if it stood at r / ``strength``:
  2 halves its place, 0.5 doubles it. Several multiply.
- ``pin`` puts its item at the place ``strength``, for everybody who may get it, candidate or not.
- ``cap`` gives its items at most ``strength`` places of a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import Fault
from jobs.tables import BELOW, TABLES

KINDS = ("ban", "margin_floor", "boost", "pin", "cap")
REMOVES = ("ban", "margin_floor")
# An item that a rule takes out, on a surface or on every one (null), for people of a region or for
# everybody (null).
REMOVED = pa.schema([(name, pa.string()) for name in ("item_id", "surface", "region", "rule_id")])
# In the order in which a bare name is looked up.
SCOPES = ("item", "category", "brand", "seller", "flag")
EVERYTHING = "*"
FURTHEST = 500  # the longest list there can be
IN_FORCE, NOT_YET, EXPIRED = "in force", "not yet", "expired"
UNKNOWN_ITEM, UNKNOWN_SCOPE, UNKNOWN_SURFACE = "unknown item", "unknown scope", "unknown surface"
OUTCOMES = (IN_FORCE, NOT_YET, EXPIRED, UNKNOWN_ITEM, UNKNOWN_SCOPE, UNKNOWN_SURFACE)
# The columns of ``items`` that rules look at.
ITEM_COLUMNS = ["item_id", "category", "brand", "seller", "flags", "margin"]


@dataclass(frozen=True)
class Rule:
    """One rule in force. ``items``: ascending codes of what it is about; of a margin floor, those
    below it."""

    rule_id: str
    kind: str
    surface: str | None
    region: str | None
    strength: float
    items: np.ndarray

    @property
    def order(self) -> tuple[int, str]:
        """Its place in the order of application."""
        return KINDS.index(self.kind), self.rule_id

    def concerns(self, surface: str | None, region: str | None) -> bool:
        """Whether it holds on this surface for a person of this region."""
        return self.surface in (None, surface) and self.region in (None, region)


class Goods:
    """The catalogue as scopes see it; an item's code is its row in ``items``."""

    def __init__(self, items: pa.Table):
        """``items``: the columns of :data:`ITEM_COLUMNS`."""
        self.margin = items["margin"].to_numpy(zero_copy_only=False).astype(np.float64)
        self.size = items.num_rows
        flags = items["flags"].combine_chunks()
        owners = pc.list_parent_indices(flags).to_numpy(zero_copy_only=False)
        everyone = np.arange(self.size)
        self._columns = {
            "item": _Column(items["item_id"], everyone),
            "category": _Column(items["category"], everyone),
            "brand": _Column(items["brand"], everyone),
            "seller": _Column(items["seller"], everyone),
            "flag": _Column(pc.utf8_lower(pc.utf8_trim_whitespace(pc.list_flatten(flags))), owners),
        }

    def named(self, kind: str, name: str) -> np.ndarray:
        """Ascending codes of the items that a name of this kind of scope stands for."""
        if kind == EVERYTHING:
            return np.arange(self.size)
        if kind == "flag":
            name = name.strip().lower()
        return self._columns[kind].holding(name, below=kind == "category")

    def readings(self, scope: str) -> list[tuple[str, str]]:
        """Every (kind of scope, name) that the text may mean and that names an item; a text that
        says its kind has this one meaning, whether an item is named or not."""
        if scope == EVERYTHING:
            return [(EVERYTHING, EVERYTHING)]
        kind, colon, name = scope.partition(":")
        if colon and kind.strip() in SCOPES:
            return [(kind.strip(), name.strip())]
        return [(kind, scope) for kind in SCOPES if len(self.named(kind, scope))]


class _Column:
    """Which rows hold a value: ``codes`` of the distinct values, and the item of each."""

    def __init__(self, values: pa.ChunkedArray | pa.Array, owner: np.ndarray):
        whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        encoded = whole.cast(pa.string()).dictionary_encode()
        self._code = {name: code for code, name in enumerate(encoded.dictionary.to_pylist())}
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        self._rows = np.argsort(codes, kind="stable")
        self._sorted, self._owner = codes[self._rows], owner

    def holding(self, name: str, below: bool) -> np.ndarray:
        codes = [self._code[name]] if name in self._code else []
        if below:
            codes += [c for path, c in self._code.items() if path.startswith(name + BELOW)]
        found = [
            self._rows[slice(*np.searchsorted(self._sorted, [code, code + 1]))] for code in codes
        ]
        return np.unique(self._owner[np.concatenate(found)]) if found else np.zeros(0, np.int64)


# --- which rules are in force ----------------------------------------------------------------
def in_force(
    stated: pa.Table, items: pa.Table, as_of: datetime, surfaces: Sequence[str]
) -> pa.Table:
    """The table ``rules_in_force``.

    ``stated``: the contract table ``rules``; ``items``: the columns of :data:`ITEM_COLUMNS`;
    ``surfaces``: those that the night makes lists for. A rule is in force where ``starts`` is not
    after ``as_of`` and ``ends`` is after it: one that ends while the night runs counts by the run
    date. Raises one ``Fault`` for all ill-formed rules, and one for all contradictions.
    """
    goods = Goods(items)
    rows = sorted(stated.to_pylist(), key=lambda row: str(row["rule_id"]))
    _refuse(_faults(rows), "are not well-formed")
    judged = [judge(row, goods, as_of, surfaces) for row in rows]
    _refuse([fault for _, fault in judged if fault], "are ambiguous")
    found = pa.Table.from_pylist([row for row, _ in judged], TABLES["rules_in_force"].schema)
    _refuse(contradictions(rules_of(found, goods)), "contradict")
    return found


def judge(
    row: dict[str, Any], goods: Goods, as_of: datetime, surfaces: Sequence[str]
) -> tuple[dict[str, Any], str | None]:
    """A row of ``rules_in_force``, and what is ambiguous about it, if anything."""
    readings = goods.readings(row["scope"])
    kind, name = readings[0] if readings else (None, row["scope"])
    about = goods.named(kind, name) if kind else np.zeros(0, np.int64)
    outcome = _outcome(row, as_of, surfaces, len(about), readings)
    unjudged = 0
    if row["kind"] == "margin_floor":
        unjudged = int(np.isnan(goods.margin[about]).sum())
        about = about[goods.margin[about] < row["strength"]]
    fault = None
    if len(readings) > 1 and outcome == IN_FORCE:
        ways = " or ".join(f"{kind}:{name}" for kind, name in readings)
        fault = f"{row['rule_id']}: the scope {row['scope']!r} may be {ways}; write one of these"
    elif row["kind"] == "pin" and outcome == IN_FORCE and kind != "item":
        fault = f"{row['rule_id']}: a pin takes one item, and {row['scope']!r} is a {kind}"
    judged = {
        **row, "scope_kind": kind, "outcome": outcome, "items": len(about), "unjudged": unjudged,
    }  # fmt: skip
    return judged, fault


def rules_of(table: pa.Table, goods: Goods) -> list[Rule]:
    """The rules of ``rules_in_force`` that are, in the order in which they apply."""
    found = []
    for row in table.filter(pc.equal(table["outcome"], IN_FORCE)).to_pylist():
        kind, name = goods.readings(row["scope"])[0]
        items, strength = goods.named(kind, name), row["strength"] or 0.0
        if row["kind"] == "margin_floor":
            items = items[goods.margin[items] < strength]
        found.append(
            Rule(row["rule_id"], row["kind"], row["surface"], row["region"], strength, items)
        )
    return sorted(found, key=lambda rule: rule.order)


def loaded(table: pa.Table, items: pa.Table) -> list[Rule]:
    """The rules of ``rules_in_force`` that are; ``items``: the columns of :data:`ITEM_COLUMNS`,
    whose rows give the codes of items."""
    return rules_of(table, Goods(items)) if table.num_rows else []


def removed(known: Iterable[Rule], item_ids: pa.ChunkedArray) -> pa.Table:
    """What bans and margin floors take out, and where, in the columns of :data:`REMOVED`.

    ``known``: those in force, from :func:`loaded`; ``item_ids``: by the items' codes.
    """
    found = [REMOVED.empty_table()]
    for rule in known:
        if rule.kind in REMOVES:
            count = len(rule.items)
            found.append(pa.table({
                "item_id": item_ids.take(pa.array(rule.items)),
                "surface": pa.array([rule.surface] * count, pa.string()),
                "region": pa.array([rule.region] * count, pa.string()),
                "rule_id": pa.repeat(rule.rule_id, count),
            }, schema=REMOVED))  # fmt: skip
    return pa.concat_tables(found)


def contradictions(rules: Iterable[Rule]) -> list[str]:
    """Rules that cannot both hold on one surface for one person, a sentence each."""
    known = list(rules)
    if not any(rule.kind == "pin" for rule in known):
        return []
    found: dict[tuple[str, ...], str] = {}
    surfaces = sorted({rule.surface for rule in known if rule.surface is not None})
    regions = sorted({rule.region for rule in known if rule.region is not None})
    for surface, region in product([None, *surfaces], [None, *regions]):
        here = [rule for rule in known if rule.concerns(surface, region)]
        where = f"on {f'the surface {surface}' if surface else 'every surface'}"
        where += f", {f'in the region {region}' if region else 'in every region'}"
        for rules_apart, sentence in _clashes(here):
            found.setdefault(rules_apart, f"{sentence} {where}")
    return list(found.values())


def _clashes(rules: list[Rule]) -> Iterator[tuple[tuple[str, ...], str]]:
    pins = [rule for rule in rules if rule.kind == "pin"]
    for pin in pins:
        for rule in rules:
            if rule.kind in REMOVES and np.isin(pin.items, rule.items).any():
                yield (
                    (pin.rule_id, rule.rule_id),
                    f"the pin {pin.rule_id} and the {rule.kind} {rule.rule_id} are about one item",
                )
    for first, second in combinations(pins, 2):
        one_item = np.array_equal(first.items, second.items)
        if (first.strength == second.strength) != one_item:
            what = "put one item at two places" if one_item else "put two items at one place"
            yield (
                (first.rule_id, second.rule_id),
                f"the pins {first.rule_id} and {second.rule_id} {what}",
            )
    for cap in rules:
        if cap.kind == "cap":
            inside = [pin for pin in pins if np.isin(pin.items, cap.items).any()]
            if len({int(pin.items[0]) for pin in inside}) > cap.strength:
                names = [pin.rule_id for pin in inside]
                yield (
                    (cap.rule_id, *names),
                    f"the cap {cap.rule_id} has {cap.strength:g} places and the pins "
                    f"{', '.join(names)} need more",
                )


def _outcome(
    row: dict[str, Any], as_of: datetime, surfaces: Sequence[str], named: int, readings: list
) -> str:
    if row["starts"] is not None and row["starts"] > as_of:
        return NOT_YET
    if row["ends"] is not None and row["ends"] <= as_of:
        return EXPIRED
    if row["surface"] is not None and row["surface"] not in surfaces:
        return UNKNOWN_SURFACE
    if not named:
        one_item = row["kind"] == "pin" or (readings and readings[0][0] == "item")
        return UNKNOWN_ITEM if one_item else UNKNOWN_SCOPE
    return IN_FORCE


def _faults(rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the rules as they are written, a sentence each."""
    found = []
    for name, times in Counter(row["rule_id"] for row in rows if row["rule_id"]).items():
        if times > 1:
            found.append(f"{name}: {times} rules have this rule_id; give each its own")
    for row in rows:
        name = row["rule_id"] or "a rule without rule_id"
        missing = [c for c in ("rule_id", "kind", "scope", "reason") if not row[c]]
        if missing:
            found.append(f"{name}: {' and '.join(missing)} missing")
        elif row["kind"] not in KINDS:
            found.append(f"{name}: unknown kind {row['kind']!r}; it is one of {', '.join(KINDS)}")
        else:
            found += [f"{name}: {sentence}" for sentence in _strength_faults(row)]
            if row["scope"] == EVERYTHING and row["kind"] != "margin_floor":
                found.append(f"{name}: only a margin_floor takes the scope {EVERYTHING}")
        if row["starts"] is not None and row["ends"] is not None and row["ends"] <= row["starts"]:
            found.append(f"{name}: it ends before it starts")
    return found


def _strength_faults(row: dict[str, Any]) -> list[str]:
    kind, strength = row["kind"], row["strength"]
    if kind == "ban":
        return []
    if strength is None or not np.isfinite(strength):
        return [f"a {kind} needs a strength"]
    if kind == "boost" and strength <= 0:
        return [f"the strength {strength:g} of a boost is not above 0"]
    if kind == "margin_floor" and not 0 < strength <= 1:
        return [f"the strength {strength:g} of a margin_floor is not a share of the price, 0 to 1"]
    if kind in ("pin", "cap") and not (1 <= strength <= FURTHEST and strength == int(strength)):
        return [f"the strength {strength:g} of a {kind} is not a whole number, 1 to {FURTHEST}"]
    return []


def _refuse(found: list[str], what: str) -> None:
    if found:
        raise Fault(
            f"rules: {len(found)} {what}: "
            + "; ".join(found)
            + ". Change the rules, or end one of them, and run the step catalogue again; "
            "docs/source-contract.md says what a rule may be"
        )


# --- the rules of one surface, in codes ------------------------------------------------------
@dataclass(frozen=True)
class Cap:
    """``member``: (n_items,) bool, the items that share ``places`` of a list; ``rule``: a code."""

    rule: int
    member: np.ndarray
    places: int


@dataclass(frozen=True)
class Effect:
    """What the rules do for people of one region. A rule's code is its place in the order of
    application; -1 is none.

    ``removed_by``: (n_items,) the first rule that removes the item; ``boost``: (n_items,) the
    product of its boosts, and ``boosted_by`` the first of them on the product's side of 1;
    ``pins``: (rule, item, place from 1).
    """

    removed_by: np.ndarray
    boost: np.ndarray
    boosted_by: np.ndarray
    pins: tuple[tuple[int, int, int], ...]
    caps: tuple[Cap, ...]


class Rules:
    """The rules that are in force on one surface."""

    def __init__(self, known: Iterable[Rule], n_items: int, surface: str):
        """``known``: those of all surfaces, from :func:`loaded`."""
        self.all = [rule for rule in known if rule.surface in (None, surface)]
        self._surface, self._size = surface, n_items
        self._effects: dict[str | None, Effect] = {}
        self._regions = {rule.region for rule in self.all}

    def __bool__(self) -> bool:
        return bool(self.all)

    def of(self, region: str | None) -> Effect:
        """What they do for people of this region; one that no rule names is like none."""
        region = region if region in self._regions else None
        if region not in self._effects:
            self._effects[region] = self._effect(region)
        return self._effects[region]

    def _effect(self, region: str | None) -> Effect:
        removed_by, boosted_by = np.full(self._size, -1), np.full(self._size, -1)
        boost = np.ones(self._size)
        pins: dict[int, tuple[int, int, int]] = {}
        caps = []
        here = [
            (code, rule)
            for code, rule in enumerate(self.all)
            if rule.concerns(self._surface, region)
        ]
        for code, rule in here:
            if rule.kind in REMOVES:
                removed_by[rule.items[removed_by[rule.items] < 0]] = code
            elif rule.kind == "boost":
                boost[rule.items] *= rule.strength
            elif rule.kind == "pin":
                pins.setdefault(int(rule.items[0]), (code, int(rule.items[0]), int(rule.strength)))
            else:
                member = np.zeros(self._size, bool)
                member[rule.items] = True
                caps.append(Cap(code, member, int(rule.strength)))
        for code, rule in reversed(here):
            if rule.kind == "boost" and rule.strength != 1:
                agrees = (boost[rule.items] > 1) == (rule.strength > 1)
                boosted_by[rule.items[agrees & (boost[rule.items] != 1)]] = code
        return Effect(removed_by, boost, boosted_by, tuple(pins.values()), tuple(caps))
