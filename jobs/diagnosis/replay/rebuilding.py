"""A night's features and lists of some people, and what its ranker learned from, made again by the
code that made them first, from the tables that the night published.

Of what people did those tables hold only what was received before the night, and of ``history`` an
example gets only what was received before its cut: what comes out equal was known then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.errors import Fault
from jobs.io import Published
from jobs.night import Night
from jobs.ordering import recommendations, rules
from jobs.ordering.listing import COLUMNS
from jobs.ordering.surfaces import PERSON
from jobs.retrieval import candidates, matrix, nearest
from jobs.retrieval.sources import content_neighbours, pools, two_tower
from jobs.scoring import examples, features
from jobs.scoring.features import Ground, Pairs
from jobs.signals import homes, sessions
from jobs.signals.shop import Catalogue
from jobs.tables import FEATURES, TABLES, TIME

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# What ``recommendations`` reads.
NEEDED = (
    "source", "events", "catalogue", "identities", "sessions", "embeddings", "content_embeddings",
    "index", "candidates", "filters", "ranker", "recommendations",
)  # fmt: skip
# What ``examples`` reads, and whose parameters it goes by.
NEEDED_BY_EXAMPLES = (
    "source", "events", "catalogue", "identities", "sessions", "interactions", "embeddings",
    "content_embeddings", "candidates", "examples", "ranker", "recommendations",
)  # fmt: skip
CUT_BY = ("event_time", "received_time")
FACTS = ("region", "segment")  # of people, as the source has them and candidates go by them


def again(night: Night, label: str, people: pa.StringArray) -> dict[str, pa.Table] | None:
    """``features`` and ``recommendations`` of these people, sorted ids, as the night of ``label``
    makes them; None where one of its tables is gone. Others' lists stand as they were published."""
    shelf = {step: night.lake.at(step, label) for step in NEEDED}
    if any(found is None for found in shelf.values()):
        return None
    manifests = {step: found.manifest for step, found in shelf.items() if found is not None}
    then = Night(
        lake=night.lake,
        as_of=io.parse_as_of(manifests["recommendations"]["as_of"]),
        run_id=night.run_id,
        source=manifests["recommendations"]["source"],
        step="recommendations",
        overrides={step: _params(manifests[step]) for step in ("ranker", "recommendations")},
        seed=manifests["recommendations"]["seed"],
    )
    params = then.params_of("recommendations")
    items = then.arrow("items", COLUMNS).sort_by("item_id")
    parts: dict[str, list[pa.Table]] = {"features": [], "recommendations": []}

    def add(name: str, rows: pa.Table) -> None:
        if name in parts:
            schema = TABLES[name].schema
            parts[name].append(rows.select(schema.names).cast(schema))

    recommendations.make(
        then,
        params.of_grain(PERSON),
        items,
        pools.Lists(then.arrow("pools"), items["item_id"], params.pool_depth, params.surfaces),
        rules.loaded(then.arrow("rules_in_force"), items),
        add,
        people,
        stand=_stands(then, people),
    )
    night.inputs |= then.inputs
    return {
        name: pa.concat_tables([TABLES[name].schema.empty_table(), *made])
        for name, made in parts.items()
    }


def _stands(then: Night, people: pa.StringArray) -> pa.Table:
    """surface and item_id of the places in everybody else's lists."""
    rows = then.arrow("recommendations", ["surface", "person_id", "item_id"])
    mine = pc.is_in(rows["person_id"], value_set=people)
    return rows.filter(pc.invert(mine)).select(["surface", "item_id"])


# --- what a ranker learned from --------------------------------------------------------------
@dataclass
class CutOff(Night):
    """A night whose ``history`` has nothing that happened or was received at ``cut`` or later,
    whatever a step asks of it."""

    cut: datetime | None = None

    def frame(self, table: str) -> DataFrame:
        from pyspark.sql import functions as F

        if table != "history":
            return super().frame(table)
        rows = io.frame(self.spark, super().folder(table))
        for name in CUT_BY:
            rows = rows.where(F.col(name) < F.lit(self.cut))
        return rows

    def folder(self, table: str) -> Path:
        if table == "history":
            raise Fault(
                f"replay: the history as of {self.cut} has no folder; ask for its frame, which is "
                "cut off"
            )
        return super().folder(table)


@dataclass(frozen=True)
class Made:
    """``values``: (n, n_features) float32, what was made; ``known``: (n,) bool, where it can be
    held against what was learned from; ``unmade``: features that were not made."""

    values: np.ndarray
    known: np.ndarray
    unmade: tuple[str, ...] = ()


def missing_for_examples(night: Night, label: str) -> list[str]:
    """What is gone of that which :func:`examples_again` takes, by step."""
    gone = [step for step in NEEDED_BY_EXAMPLES if night.lake.at(step, label) is None]
    if "source" not in gone:
        folder = _source_folder(night.earlier("source", label))
        gone += [] if folder.is_dir() else [f"the source {folder}"]
    return gone


def examples_again(night: Night, label: str, cut: datetime, rows: pa.Table) -> Made:
    """The features of these rows of the ``examples`` of a night, of one ``cut``, as its own code
    makes them of what had been received before the cut.

    Not held against them: people whom nobody knows at the cut any more, or who are said to be of
    another region or segment, since the source keeps people as they are and not as they were. The
    two towers are not trained again, and neighbours that the night sought by cells are not sought.
    Raises ``Fault`` where a table is gone.
    """
    manifests = {step: night.earlier(step, label).manifest for step in NEEDED_BY_EXAMPLES}
    towers = manifests["candidates"]["params"]["two_tower"]
    then = _at_cut(night, manifests, cut)
    catalogue = Catalogue.of(then.arrow("items", ["item_id", "category"]))
    found = sessions.at(then, cut)
    # A copy, since what was published reaches beyond the cut; it is also resolved once this way.
    history = io.kept(found.history, then.scratch("rebuilt") / "history")
    found = replace(found, history=history, as_published=False)
    record = examples.recorded(then, found, cut, catalogue)
    persons = found.known.persons.select(*examples.OF_PERSONS).toArrow()
    behind = examples.weighed(then, record, persons)
    asked = io.read_arrow(
        then.published("examples").table("example_people"),
        ["person_id", *FACTS], ds.field("as_of") == pa.scalar(cut, TIME),
    )  # fmt: skip
    night.inputs |= then.inputs
    people = _unchanged(pc.unique(rows["person_id"]), asked, persons)
    person = matrix.positions(rows["person_id"], people)
    item = matrix.positions(rows["item_id"], record.items)
    known = (person >= 0) & (item >= 0)
    values = np.full((rows.num_rows, len(FEATURES)), np.nan, np.float32)
    unmade: tuple[str, ...] = (f"{two_tower.NAME}_signal",) if towers else ()
    if known.any():
        measured, living = homes.measured(record, persons, catalogue)
        seen = examples.seen_at(then, persons, people, record, measured["i_gap"], behind)
        named = candidates.nominate(then, seen, then.params_of("candidates"))
        pairs = _signals_of(
            features.wide(features.coded(named, people, record.items)), person[known], item[known]
        )
        ground = Ground.of(
            record.of(people), catalogue, measured, living.mates(people, len(catalogue.ids)),
            examples.vectors_of(seen, people, record.items),
        )  # fmt: skip
        values[known] = features.values(ground, pairs)
        if _by_cells(asked.num_rows, matrix.vectors_of(seen.content)):
            unmade += (f"{content_neighbours.NAME}_signal",)
    return Made(values, known, unmade)


def _by_cells(people: int, vectors: np.ndarray) -> bool:
    """Whether the night may have sought the neighbours of so many people's items by cells, which
    miss some; those of few people are sought exactly. ``vectors``: (n_items, dim)."""
    items, dim = vectors.shape
    speaking = min(people * content_neighbours.Params().seeds, items)
    return speaking * items * dim > nearest.EXACT_WORK


def _at_cut(night: Night, manifests: dict[str, dict[str, Any]], cut: datetime) -> CutOff:
    """The night of these manifests, without the towers, as its ``examples`` saw it at the cut."""
    overrides = {step: _params(manifests[step]) for step in manifests}
    overrides["candidates"]["two_tower"] = False
    made = manifests["examples"]
    return CutOff(
        night.lake, io.parse_as_of(made["as_of"]), night.run_id, made["source"], "examples",
        overrides, made["seed"], cut=cut,
    )  # fmt: skip


def _params(manifest: dict[str, Any]) -> dict[str, Any]:
    """A step's parameters as overrides: surfaces that it had not are named as not wanted."""
    given = dict(manifest["params"])
    if "surfaces" in given:
        given["surfaces"] = dict.fromkeys(recommendations.Params().surfaces) | given["surfaces"]
    return given


def _source_folder(source: Published) -> Path:
    return Path(io.read_json(source.table("source.json"))["folder"])


def _unchanged(asked: pa.Array, then: pa.Table, now: pa.Table) -> pa.StringArray:
    """Sorted, those of ``asked`` who have the same ``FACTS`` in both tables."""
    facts = [
        {row["person_id"]: tuple(row[name] for name in FACTS) for row in rows.to_pylist()}
        for rows in (
            table.filter(pc.is_in(table["person_id"], value_set=asked)) for table in (then, now)
        )
    ]
    same = [person for person, fact in facts[0].items() if facts[1].get(person) == fact]
    return pa.array(sorted(same), pa.string())


def _signals_of(named: Pairs, person: np.ndarray, item: np.ndarray) -> Pairs:
    """The pairs of these codes, (n,), with what sources said of them: 0 where none named them."""
    size = int(max(named.item.max(initial=0), item.max(initial=0))) + 1
    key, asked = named.person * size + named.item, person * size + item
    there = matrix.among(asked, key)
    signals = np.zeros((len(asked), named.signals.shape[1]))
    signals[there] = named.signals[np.searchsorted(key, asked[there])]
    return Pairs(person, item, signals, np.zeros(0, np.int64))
