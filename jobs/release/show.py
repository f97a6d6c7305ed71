"""What a person did lately, and what is recommended and why: ``make show PERSON=…``.

Reads the release that serves, and the table ``history`` of the night that made it. Writes nothing.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs import io
from jobs.errors import Fault
from jobs.io import Lake
from jobs.persons import resolve_person
from jobs.release import releases
from jobs.release.reader import Answer, Reader
from jobs.release.releases import Release
from jobs.tables import BELOW

LATELY = 12  # events shown


@dataclass(frozen=True)
class Shown:
    """Everything about one person that is shown."""

    release: Release
    person: dict[str, Any]
    keys: list[str]
    places: list[dict[str, Any]]
    instead: Answer | None
    history: pa.Table | None
    items: dict[str, dict[str, Any]]
    pools: pa.Table
    weights: dict[str, float]
    rules: dict[str, dict[str, Any]]


def main(chosen: argparse.Namespace) -> None:
    """Print the two tables for ``chosen.person`` on ``chosen.surface``."""
    shown = look_up(Lake(chosen.lake), chosen.person, chosen.surface)
    console = Console()
    console.print(headline(shown))
    console.print(did_lately(shown))
    console.print(recommended(shown, chosen.surface))


def look_up(lake: Lake, person: str, surface: str) -> Shown:
    """Read what is shown of a person.

    ``person`` is a person id, ``key_type:key``, or a key that one person has. Raises ``Fault`` for
    anybody else, and where the lake serves no release.
    """
    release, _ = releases.serving(lake)
    identities = io.read_arrow(release.path("identities"))
    person_id = resolve_person(identities, person)
    mine = ds.field("person_id") == person_id
    facts = _rows(release, "persons", mine)
    lists = _rows(release, "recommendations", mine)
    places = sorted(
        (row for row in lists if row["surface"] == surface), key=lambda row: row["rank"]
    )
    history = _history(lake, release, person_id)
    instead = None
    if not places:
        instead = Reader.open(lake.root).recommendations(person_id, surface)
    wanted = {row["item_id"] for row in places}
    wanted |= {listed.item_id for listed in (instead.items if instead else ())}
    wanted |= {named["seed_item"] for row in places for named in row["provenance"]}
    if history is not None:
        wanted |= set(history["item_id"].slice(0, LATELY).to_pylist())
    known = _rows(release, "items", ds.field("item_id").isin(sorted(wanted - {None})))
    own_keys = identities.filter(pc.equal(identities["person_id"], person_id)).to_pylist()
    return Shown(
        release=release,
        person=facts[0] if facts else {"person_id": person_id, "personalised": True},
        keys=sorted(f"{row['key_type']}:{row['key']}" for row in own_keys),
        places=places,
        instead=instead,
        history=history,
        items={row["item_id"]: row for row in known},
        pools=io.read_arrow(release.path("pools")),
        weights=io.read_json(release.path("scorer/scorer.json"))["weights"],
        rules=_rules(release),
    )


def headline(shown: Shown) -> Text:
    """Who it is, and from which release."""
    person, release = shown.person, shown.release
    text = Text(_plain(person["person_id"]), style="bold")
    facts = [f"{name} {person[name]}" for name in ("region", "segment") if person.get(name)]
    if person.get("restrictions"):
        facts.append("restrictions " + ", ".join(person["restrictions"]))
    facts.append("keys " + ", ".join(shown.keys[:5]) + (" …" if len(shown.keys) > 5 else ""))
    text.append("\n" + _plain("; ".join(facts)), style="default not bold")
    served = f"release {release.id}, as of {release.as_of:%Y-%m-%d %H:%M} UTC"
    text.append(f"\n{served}\n", style="dim not bold")
    return text


def did_lately(shown: Shown) -> Table | Text:
    """The newest events first, or why there are none."""
    if not shown.person["personalised"]:
        return Text("Lately: nothing is kept of a person who does not consent.\n")
    if shown.history is None:
        return Text("Lately: the history of this night is no longer in the lake.\n")
    if not shown.history.num_rows:
        return Text("Lately: no events.\n")
    table = Table(title=f"Lately ({shown.history.num_rows} events in all)", title_justify="left")
    for name in ("when", "what", "item"):
        table.add_column(name, no_wrap=name == "when")
    table.add_column("quantity", justify="right")
    table.add_column("value", justify="right")
    for row in shown.history.slice(0, LATELY).to_pylist():
        table.add_row(
            f"{row['event_time']:%Y-%m-%d %H:%M}",
            Text(_plain(row["event_type"])),
            Text(_title(shown, row["item_id"])),
            f"{row['quantity']:g}",
            "" if row["value"] is None else f"{row['value']:.2f}",
        )
    return table


def recommended(shown: Shown, surface: str) -> Table | Text:
    """The list with a reason in words for each place, or what a reader gives instead."""
    if shown.instead is not None:
        return given_instead(shown, surface, shown.instead)
    title = f"Recommended on {surface}"
    if not shown.person["personalised"]:
        title += ": shared pools, since this person does not consent to personalisation"
    table = Table(title=title, title_justify="left")
    table.add_column("", justify="right")
    table.add_column("item", ratio=3)
    table.add_column("category", ratio=3)
    table.add_column("why", ratio=4)
    table.add_column("sources", ratio=2)
    for row in shown.places:
        path = (shown.items.get(row["item_id"], {}).get("category") or "").split(BELOW)
        category = BELOW.join(path[:2])
        table.add_row(
            str(row["rank"]), Text(_title(shown, row["item_id"])), Text(_plain(category)),
            Text(_plain(why(shown, row))), Text(", ".join(row["sources"])),
        )  # fmt: skip
    return table


def given_instead(shown: Shown, surface: str, answer: Answer) -> Table | Text:
    """The shared list that a reader gives, or that there is none either."""
    title = f"Recommended on {surface}: {answer.reason}"
    if not answer.items:
        return Text(f"{title}, and nothing stands in\n")
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("", justify="right")
    table.add_column("item", ratio=3)
    table.add_column("sources", ratio=2)
    for place, listed in enumerate(answer.items, start=1):
        named = ", ".join(listed.sources)
        table.add_row(str(place), Text(_title(shown, listed.item_id)), Text(named))
    return table


def why(shown: Shown, row: dict[str, Any]) -> str:
    """What put the item at its place, where it was not the model, and the reason of the source that
    gave the item most of its score."""
    moved = moved_by(shown, row)
    if not row["provenance"]:
        return moved or "no source is recorded"
    best = max(row["provenance"], key=lambda named: _contribution(shown, named))
    named = reason(shown, row["item_id"], best)
    return f"{moved}; {named}" if moved else named


def moved_by(shown: Shown, row: dict[str, Any]) -> str:
    """The rule or the ordering stage that holds the place, in plain words; empty for the model."""
    by = row.get("placed_by")
    if by == "rule":
        rule = shown.rules.get(row["rule_id"], {})
        verb = {"pin": "pinned", "boost": "raised"}.get(
            rule.get("kind", ""), "in the room of an item taken out"
        )
        because = f" ({rule['reason']})" if rule.get("reason") else ""
        return f"{verb} by the rule {row['rule_id']}{because}"
    return {
        "demotion": "in the room of an item bought or shown lately",
        "diversity": "for variety",
        "explore": f"explored, with probability {row.get('propensity', 1.0):.4f}",
    }.get(by or "", "")


def reason(shown: Shown, item_id: str, named: dict[str, Any]) -> str:
    """One source's word for an item, in plain words."""
    source = named["source"]
    seed = _title(shown, named["seed_item"]) if named["seed_item"] else "what was bought before"
    when = f" of {named['seed_time']:%Y-%m-%d}" if named["seed_time"] else ""
    sentences = {
        "considered": f"interest{when} without a purchase",
        "collaborative": "people with a similar history bought it",
        "item_to_item": f"goes with {seed}{when}",
        "bought_together": f"often bought together with {seed}{when}",
        "two_tower": "a network expects it of what was chosen lately",
        "content_neighbours": f"like {seed}{when}, and still little known",
        "editorial": "chosen by the editors",
    }
    if source == "buy_again":
        return _bought_again(shown, item_id)
    if source in ("popular", "trending"):
        return f"{source} {_where(shown, source, item_id)}"
    if source == "new_arrivals":
        since = shown.items.get(item_id, {}).get("first_seen")
        return f"new in the shop since {since:%Y-%m-%d}" if since else "new in the shop"
    return sentences.get(source, f"named by {source}")


def _contribution(shown: Shown, named: dict[str, Any]) -> float:
    return shown.weights.get(f"{named['source']}_signal", 0.0) / math.log2(1 + named["rank"])


def _bought_again(shown: Shown, item_id: str) -> str:
    if shown.history is None:
        return "bought before"
    rows = shown.history
    bought = rows.filter(
        pc.and_(pc.equal(rows["item_id"], item_id), pc.equal(rows["event_type"], "purchase"))
    )
    if not bought.num_rows:
        return "chosen before"
    days = sorted(set(bought["event_time"].cast(pa.date32()).to_pylist()))
    times = "once" if len(days) == 1 else f"on {len(days)} days"
    return f"bought {times}, last on {days[-1]}"


def _where(shown: Shown, source: str, item_id: str) -> str:
    """The narrowest context of the person whose pool holds the item."""
    for kind in ("region", "segment"):
        context = shown.person.get(kind)
        rows = shown.pools
        here = pc.and_(pc.equal(rows["context_kind"], kind), pc.equal(rows["source"], source))
        if context and item_id in rows.filter(
            pc.and_(here, pc.equal(rows["context"], context))
        )["item_id"].to_pylist():  # fmt: skip
            return f"in {kind} {context}"
    return "with everybody"


def _history(lake: Lake, release: Release, person_id: str) -> pa.Table | None:
    """The person's events in the release's night, newest first; None where they are gone."""
    try:
        folder = lake.published("sessions", release.as_of.astimezone(UTC)).table("history")
    except Fault:
        return None
    columns = ["event_id", "item_id", "event_type", "event_time", "quantity", "value"]
    rows = io.read_arrow(folder, columns, ds.field("person_id") == person_id)
    return rows.sort_by([("event_time", "descending"), ("event_id", "ascending")])


def _rules(release: Release) -> dict[str, dict[str, Any]]:
    """The rules by id; none in a release from before there were any."""
    if not release.path("rules").is_dir():
        return {}
    return {row["rule_id"]: row for row in io.read_arrow(release.path("rules")).to_pylist()}


def _rows(release: Release, table: str, where: ds.Expression) -> list[dict[str, Any]]:
    return io.read_arrow(release.path(table), where=where).to_pylist()


def _title(shown: Shown, item_id: str) -> str:
    title = shown.items.get(item_id, {}).get("title")
    return _plain(f"{title} ({item_id})" if title else item_id)


def _plain(text: str) -> str:
    """Ids and titles may hold newlines and a terminal's control codes."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
