"""Why a person does not get an item, or where it stands in their list: ``make why``.

Reads the newest published night: ``items``, ``persons``, ``identities``, ``ineligible_items``,
``blocked_pairs``, ``rules_in_force``, ``candidates``, ``pools`` and ``recommendations``, and
``history`` where a surface leaves out what is known. Writes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io, tables
from jobs.errors import Fault
from jobs.filtering.filters import BLOCKED_SINCE, EVERYONE, UNKNOWN_REGION
from jobs.io import Lake
from jobs.ordering import rules
from jobs.ordering.surfaces import KNOWN
from jobs.persons import SHOWN, resolve_person
from jobs.release import releases
from jobs.retrieval.sources.editorial import OF_SURFACE

# What is known of somebody whom the night does not know.
_UNKNOWN: dict[str, Any] = {
    "region": None, "segment": None, "restrictions": [], "personalised": True,
}  # fmt: skip


def main(chosen: argparse.Namespace) -> None:
    """Print the answer for ``chosen.person`` and ``chosen.item`` from ``chosen.lake``."""
    lake = Lake(chosen.lake)
    print("\n".join(explain(lake, newest_night(lake), chosen.person, chosen.item)))


def newest_night(lake: Lake) -> datetime:
    """The run date of the lists that serve, or of the newest that are published."""
    serving = releases.current_id(lake)
    for release in releases.readable(lake):
        if release.id == serving and lake.at("recommendations", io.label(release.as_of)):
            return release.as_of
    found = lake.newest("recommendations")
    if found is None:
        raise Fault(
            f"lake: {lake.root} holds no published night yet; run one with `make run`, "
            "or name another lake with LAKE"
        )
    return datetime.fromisoformat(found.manifest["as_of"])


def explain(lake: Lake, as_of: datetime, person: str, item: str) -> list[str]:
    """The answer in plain words, a line each; the first line names the person and the item.

    Raises ``Fault`` for a person or an item that the night does not know.
    """
    person_id = resolve_person(_table(lake, as_of, "identities"), person)
    known = _rows(lake, as_of, "items", item_id=item)
    if not known:
        raise Fault(_unknown_item(lake, as_of, item))
    listed = _rows(lake, as_of, "persons", person_id=person_id)
    facts = listed[0] if listed else _UNKNOWN
    lines = [f"{person_id} and {_name(known[0])}, as of {io.label(as_of)}:"]
    excluded = _exclusions(lake, as_of, person_id, facts, item)
    if excluded:
        return [*lines, "Excluded:", *(f"- {why}" for why in excluded)]
    lines.append(_eligible(facts))
    ruled = _ruled(lake, as_of, facts["region"], item)
    lines += [
        f"Rule {rule.rule_id} ({rule.kind}, {rule.surface or 'every surface'}): {reason}."
        for rule, reason in ruled
    ]
    if not facts["personalised"]:
        lines.append("No consent to personalisation: lists are made of the shared pools alone.")
    return lines + _standing(lake, as_of, person_id, facts, item, [rule for rule, _ in ruled])


def _exclusions(
    lake: Lake, as_of: datetime, person_id: str, facts: dict[str, Any], item: str
) -> list[str]:
    """Each rule and block that keeps this person from this item, a sentence each."""
    concerned = {EVERYONE, ("region", facts["region"] or UNKNOWN_REGION)}
    concerned |= {("restriction", restriction) for restriction in facts["restrictions"]}
    rules = [
        f"{row['kind']}: {row['reason']}."
        for row in _rows(lake, as_of, "ineligible_items", item_id=item)
        if (row["kind"], row["value"]) in concerned
    ]
    blocks = _rows(lake, as_of, "blocked_pairs", person_id=person_id, item_id=item)
    return sorted(rules) + [
        block_sentence(row["reason"], row["since"], row["until"])
        for row in sorted(blocks, key=lambda row: row["reason"])
    ]


def _ruled(
    lake: Lake, as_of: datetime, region: str | None, item: str
) -> list[tuple[rules.Rule, str]]:
    """Each business rule in force that is about this item, for a person of this region, and its
    reason."""
    folder = lake.published("catalogue", as_of).table("rules_in_force")
    table = io.read_arrow(folder) if folder.is_dir() else None
    if table is None or not table.num_rows:
        return []
    catalogue = _table(lake, as_of, "items", rules.ITEM_COLUMNS)
    code = catalogue["item_id"].index(item).as_py()
    reasons = {row["rule_id"]: row["reason"] for row in table.to_pylist()}
    return [
        (rule, reasons[rule.rule_id])
        for rule in rules.loaded(table, catalogue)
        if code in rule.items and rule.region in (None, region)
    ]


def block_sentence(reason: str, since: datetime, until: datetime | None) -> str:
    """A blocked pair in plain words."""
    day = f"{since:%Y-%m-%d}"
    if reason == "returned":
        return f"returned: everything bought went back, last on {day}; until it is bought again."
    if reason == "rejected":
        return f"rejected: the person turned it down on {day}; until it is bought again."
    if reason == "just_bought" and until is not None:
        return (
            f"just_bought: bought on {day}, and hardly anybody buys it again before "
            f"{until:%Y-%m-%d}; eligible from then."
        )
    if reason == BLOCKED_SINCE:
        return (
            f"blocked_since: what the person did on {day} was read after this run date, by the "
            "release that served before this one; what it was, the next refresh tells."
        )
    end = f" until {until:%Y-%m-%d}" if until is not None else ""
    return f"{reason}: since {day}{end}."


def _eligible(facts: dict[str, Any]) -> str:
    where = f"region {facts['region']}" if facts["region"] else "region unknown"
    restrictions = ", ".join(facts["restrictions"]) or "none"
    return (
        f"Eligible ({where}; restrictions: {restrictions}; not returned, rejected or just bought)."
    )


def _standing(
    lake: Lake, as_of: datetime, person_id: str, facts: dict[str, Any], item: str,
    ruled: list[rules.Rule],
) -> list[str]:  # fmt: skip
    """Which sources named the item, and its place in each of the person's lists or why it has none.

    ``ruled``: the rules that are about the item and concern the person.
    """
    named = _named(lake, as_of, person_id, facts, item)
    lines = [one.line for one in named]
    lists: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(lake, as_of, "recommendations", person_id=person_id):
        lists.setdefault(row["surface"], []).append(row)
    stands = any(row["item_id"] == item for places in lists.values() for row in places)
    if not named and not stands:
        return ["No source nominated it for this person, so it was never in the running."]
    if not lists:
        return [*lines, "This person has no list of this night."]
    stated = _params(lake, as_of).get("surfaces", {})
    for surface, places in sorted(lists.items()):
        here = next((row for row in places if row["item_id"] == item), None)
        if here is not None:
            score = f"rank {here['rank']}, score {here['score']:.4f}"
            lines.append(f"In the list {surface}: {score}.")
            continue
        why = _kept_out(surface, stated.get(surface, {}), named, facts["region"], ruled)
        if why is None and KNOWN in stated.get(surface, {}).get("filters", ()):
            bought = {"person_id": person_id, "item_id": item, "event_type": "purchase"}
            if _rows(lake, as_of, "history", **bought):
                why = "it takes nothing that the person ever bought"
        if why is None:
            last = min(row["score"] for row in places)
            why = f"{len(places)} items came before it (lowest score {last:.4f})"
        lines.append(f"Not in the list {surface}: {why}.")
    return lines


def _kept_out(
    surface: str, stated: dict[str, Any], named: list[_Named], region: str | None,
    ruled: list[rules.Rule],
) -> str | None:  # fmt: skip
    """What keeps an item from competing on a surface at all; ``stated``: its parameters; ``named``:
    who named the item."""
    for rule in ruled:
        if rule.kind in rules.REMOVES and rule.concerns(surface, region):
            return f"the rule {rule.rule_id} takes it out"
    here = [one.source for one in named if one.surface in (None, surface)]
    if "sources" in stated and not set(here) & set(stated["sources"]):
        sources = ", ".join(dict.fromkeys(one.source for one in named))
        return f"it takes nothing from {sources} for this item"
    return None


@dataclass(frozen=True)
class _Named:
    """A source that named the item, for a surface or for all (None), and the line that says so."""

    source: str
    surface: str | None
    line: str


def _named(
    lake: Lake, as_of: datetime, person_id: str, facts: dict[str, Any], item: str
) -> list[_Named]:
    """Who named the item for the person, in the order of the sources: personal ones, then the pools
    of the contexts that the person is in and of the surfaces."""
    found = {
        (row["source"], None): f"rank {row['rank']}{_seed(lake, as_of, row)}"
        for row in _rows(lake, as_of, "candidates", person_id=person_id, item_id=item)
    }
    stated = _params(lake, as_of)
    depth = stated.get("pool_depth")
    contexts = {("all", ""), *((kind, facts[kind]) for kind in ("region", "segment"))}
    contexts |= {(OF_SURFACE, surface) for surface in stated.get("surfaces", {})}
    named = _rows(lake, as_of, "pools", item_id=item)
    for row in sorted(named, key=lambda row: -row["rank"]):
        kind, context = row["context_kind"], row["context"]
        of_surface = kind == OF_SURFACE
        if (kind, context) in contexts and row["rank"] <= (depth or row["rank"]):
            of = "everybody" if kind == "all" else f"the {kind} {context}"
            found[row["source"], context if of_surface else None] = f"rank {row['rank']} of {of}"
    ordered = sorted(found, key=lambda one: (tables.SOURCES.index(one[0]), one[1] or ""))
    return [
        _Named(source, surface, f"Named by {source}: {found[source, surface]}.")
        for source, surface in ordered
    ]


def _params(lake: Lake, as_of: datetime) -> dict[str, Any]:
    """The parameters that the lists were made with."""
    made = lake.published("recommendations", as_of).manifest
    return dict(made.get("params", {}))


def _seed(lake: Lake, as_of: datetime, row: dict[str, Any]) -> str:
    if row["seed_item"] is None:
        return ""
    seed = _rows(lake, as_of, "items", item_id=row["seed_item"])
    when = f" of {row['seed_time']:%Y-%m-%d}" if row["seed_time"] else ""
    return f", because of {_name(seed[0]) if seed else row['seed_item']}{when}"


def _unknown_item(lake: Lake, as_of: datetime, item: str) -> str:
    items = _table(lake, as_of, "items", ["item_id", "title"])
    titled = items.filter(pc.match_substring(items["title"], item, ignore_case=True))
    some = (titled if titled.num_rows else items).sort_by("item_id").slice(0, SHOWN)
    names = ", ".join(_name(row) for row in some.to_pylist())
    return f"item: nothing is known as {item!r} among {items.num_rows} items; try: {names}"


def _name(row: dict[str, Any]) -> str:
    text = f"{row['item_id']} ({row['title']})" if row["title"] else str(row["item_id"])
    # A title may hold newlines or a terminal's control codes.
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _table(lake: Lake, as_of: datetime, name: str, columns: list[str] | None = None) -> pa.Table:
    folder = lake.published(tables.TABLES[name].step, as_of).table(name)
    return io.read_arrow(folder, columns)


def _rows(lake: Lake, as_of: datetime, table: str, **equal: str) -> list[dict[str, Any]]:
    """The rows of a published table whose columns equal the texts given."""
    where = None
    for column, text in equal.items():
        condition = ds.field(column) == text
        where = condition if where is None else where & condition
    folder = lake.published(tables.TABLES[table].step, as_of).table(table)
    return io.read_arrow(folder, where=where).to_pylist()
