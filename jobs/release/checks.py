"""What a release must be beyond whole files: the promises that serving relies on.

Reads a release folder alone, so that a staged and a published one are judged alike.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io
from jobs.release import entries, excluded, groups, stores
from jobs.release.releases import REMOVED, Release
from jobs.retrieval import bundles, matrix
from jobs.scoring import features
from jobs.scoring.scorer import Scorer

# A release without one of these serves nobody, whatever its manifest says.
REQUIRED_ROWS = (
    "recommendations", "context_lists", "item_lists", "identities", "persons", "pools", "id_maps",
)  # fmt: skip
# The tables of lists, and the column of their items: those that rules and the order shape, and
# those that know no rules.
RULED = (
    ("recommendations", "item_id"), ("context_lists", "item_id"), ("item_lists", "listed_item_id"),
)  # fmt: skip
LISTS = (*RULED, ("pools", "item_id"), ("model_lists", "item_id"))
REQUIRED_FILES = ("index/items.faiss", "index/index.json", "scorer/scorer.json", "kv/data.mdb")
PASSED = ("green", "warning")
SAMPLE = 3  # ids shown in a sentence
LOOKED_UP = 300  # people, items, and keys of each file, whose entries are looked up
FILES = 200  # of 500 people each, looked at together
WIDE_FILES = 20  # of the same, of a table of many columns
# Hours in which each file of pairs that stand is scored again once; prime, so that hours of a day
# or every second or third do as well.
TURNS = 7
TOLERANCE = 1e-6  # relative; the same sums in another order differ by less
Listed = dict[tuple[str, str], pa.Array]  # by table and column, the different items in it
Told = dict[tuple[str, ...], Any]  # by the parts of their keys, what entries must say


def faults(release: Release) -> list[str]:
    """Every broken promise of a release whose files are whole, a sentence each."""
    missing = _missing_parts(release)
    if missing:
        return missing
    listed = {name: _different(release, *name) for name in LISTS}
    return [
        *_rows(release),
        *_gates(release),
        *_entries(release),
        *_versions(release),
        *_unknown_items(release, listed),
        *_indexed(release),
        *_everybodys_exclusions(release, listed),
        *_personal_exclusions(release),
        *_removals(release),
        *_consent(release),
        *_lists(release),
        *_scores(release),
    ]


def _missing_parts(release: Release) -> list[str]:
    folders = list(release.manifest["tables"])
    absent = [name for name in REQUIRED_ROWS if name not in folders]
    found = [f"{name}/ is not in the release" for name in absent]
    found += [
        f"{name}/ holds no Parquet file"
        for name in folders
        if not io.parquet_files(release.path(name))
    ]
    found += [f"{name} is missing" for name in REQUIRED_FILES if not release.path(name).is_file()]
    return found


def _rows(release: Release) -> list[str]:
    found = []
    for name, rows in release.manifest["tables"].items():
        held = io.count_rows(release.path(name))
        if held != rows:
            found.append(f"{name}/ has {held} rows, the manifest says {rows}")
        if not held and name in REQUIRED_ROWS:
            found.append(f"{name}/ is empty")
    return found


def _gates(release: Release) -> list[str]:
    return [
        f"the gate of {step} is {verdict}, not green"
        for step, verdict in release.manifest["gates"].items()
        if verdict not in PASSED
    ]


def _entries(release: Release) -> list[str]:
    """The key-value store holds as many entries as the manifest says, and tells of some people,
    keys, items and contexts what the tables say: entries of a kind are all written alike."""
    store = stores.LmdbStore(release.path("kv"))
    held, expected = store.count(), release.manifest["kv"]["entries"]
    found = [] if held == expected else [f"kv/ holds {held} entries, the manifest says {expected}"]
    people, items = (
        _spread(_column(release, table, f"{name}_id"))
        for table, name in (("persons", "person"), ("id_maps", "item"))
    )
    told: Told = {("m",): release.id}
    told |= _told_of_people(release, people) | _told_of_lists(release, people, items)
    told |= _told_of_items(release, items)
    answers = store.get_all(list(told))
    wrong = [entries.joined(*key) for key, entry in zip(told, answers, strict=True)
             if _as_told(entry) != told[key]]  # fmt: skip
    return found + _sentence(pa.array(wrong, pa.string()), "kv/: %d entries differ from the tables")


def _as_told(entry: Any) -> Any:
    """What of an entry is compared: the release of ``m``, the items of a list, in their order, and
    what excludes an item; else all of it."""
    if not isinstance(entry, dict):
        return entry
    if "kind" in entry:
        return list(zip(entry["kind"], entry["value"], strict=False))
    return entry.get("release_id") or entry.get("item_id", entry)


def _told_of_people(release: Release, people: pa.StringArray) -> Told:
    """What is known of these people, what is blocked for them, and whose some keys are."""
    persons = _table(release, "persons", ["person_id", *entries.FACTS])
    persons = persons.filter(pc.is_in(persons["person_id"], people))
    told: Told = {("n", row.pop("person_id")): row for row in persons.to_pylist()}
    blocked = _table(release, "filters/blocked_pairs", ["person_id", "item_id"])
    blocked = blocked.filter(pc.is_in(blocked["person_id"], people))
    told |= {("b", person): None for person in people.to_pylist()}
    for person, item in sorted({(row["person_id"], row["item_id"]) for row in blocked.to_pylist()}):
        told["b", person] = [*(told["b", person] or []), item]
    for path in io.parquet_files(release.path("identities")):
        with pq.ParquetFile(path) as file:
            first = next(file.iter_batches(columns=["key_type", "key", "person_id"]), None)
        for row in first.take(_evenly(len(first))).to_pylist() if first else ():
            told["i", row["key_type"], row["key"]] = row["person_id"]
    return told


def _told_of_lists(release: Release, people: pa.StringArray, items: pa.StringArray) -> Told:
    """The items of the lists of these people and items, and of some contexts; None for no list."""
    named = ["surface", "person_id", "rank", "item_id"]
    own = io.read_rows(release.path("recommendations"), people, named)
    beside = _table(release, "item_lists", ["surface", "item_id", "rank", "listed_item_id"])
    beside = beside.filter(pc.is_in(beside["item_id"], items))
    shared = _table(
        release, "context_lists", ["surface", "context_kind", "context", "rank", "item_id"]
    )
    shared = shared.filter(pc.is_in(shared["context"], _spread(shared["context"])))
    told: Told = {
        (kind, surface, one): None
        for kind, grain, ids in (("r", "person", people), ("s", "item", items))
        for surface, facts in release.manifest["surfaces"].items() if facts["grain"] == grain
        for one in ids.to_pylist()
    }  # fmt: skip
    for kind, rows in (("r", own), ("s", beside), ("c", shared)):
        *names, item = (name for name in rows.column_names if name != "rank")
        for row in rows.sort_by("rank").to_pylist():
            key = (kind, *(row[name] for name in names))
            told[key] = [*(told.get(key) or []), row[item]]
    return told


def _told_of_items(release: Release, items: pa.StringArray) -> Told:
    """What excludes these items, and some of which that is told, from shared lists; None where
    nothing does, or where none has them."""
    if REMOVED not in release.manifest["tables"]:
        return {}  # made before they were in it
    own = _table(release, "filters/ineligible_items", ["item_id", "kind", "value"])
    removed = _table(release, REMOVED, ["surface", "item_id", "region"])
    listed = pa.chunked_array([
        chunk for table, column in RULED[1:] for chunk in _column(release, table, column).chunks
    ], pa.string())  # fmt: skip
    own, removed = (rows.filter(pc.is_in(rows["item_id"], pc.unique(listed)))
                    for rows in (own, removed))  # fmt: skip
    # Of a large catalogue few items have an entry: few of a sample of all.
    known = pa.chunked_array([*own["item_id"].chunks, *removed["item_id"].chunks], pa.string())
    asked = pa.concat_arrays([items, _spread(known)])
    rows = excluded.by_all(*(rows.filter(pc.is_in(rows["item_id"], asked))
                             for rows in (own, removed)))  # fmt: skip
    told: Told = {("e", item): None for item in asked.to_pylist()}
    for item, kind, value in sorted({tuple(row.values()) for row in rows.to_pylist()}):
        told["e", item] = [*(told["e", item] or []), (kind, value)]
    return told


def _spread(ids: pa.ChunkedArray) -> pa.StringArray:
    """Some different ids, evenly over all, sorted."""
    known = pc.unique(ids)
    return known.take(pc.sort_indices(known)).take(_evenly(len(known)))


def _evenly(count: int) -> pa.Array:
    """Places of some among so many, evenly."""
    return pa.array(np.unique(np.linspace(0, max(count - 1, 0), min(count, LOOKED_UP)).astype(int)))


def _versions(release: Release) -> list[str]:
    """Index and factors must be of one embedding space."""
    named = {"the manifest": release.manifest["embedding_version"]}
    for name, path in (("index", "index/index.json"), ("factors", "model/embedding.json")):
        facts = _json(release.path(path))
        if facts is not None:
            named[f"the {name}"] = facts.get("embedding_version", facts.get("version"))
    if len(set(named.values())) == 1 and None not in named.values():
        return []
    return ["embedding versions differ: " + ", ".join(f"{k} has {v}" for k, v in named.items())]


def _unknown_items(release: Release, listed: Listed) -> list[str]:
    known = _column(release, "id_maps", "item_id")
    found = []
    others = {
        (table, "item_id"): _different(release, table, "item_id")
        for table in ("features", "item_lists", "model/item_vectors")
    }
    for (table, column), named in (listed | others).items():
        strange = named.filter(pc.invert(pc.is_in(named, known)))
        found += _sentence(strange, f"{table}.{column}: %d unknown items, which id_maps/ lacks")
    return found


def _indexed(release: Release) -> list[str]:
    """The index holds what ``model/item_vectors`` says, each item once and at its place of
    ``id_maps``, and nothing else."""
    rows = _table(release, "model/item_vectors", ["item_id", "position"])
    places = _table(release, "id_maps", ["item_id", "position"])
    strange = rows.join(places, keys=["item_id", "position"], join_type="left anti")
    found = _sentence(
        strange["item_id"], "model/item_vectors: %d items at another position than in id_maps"
    )
    held, counts = np.unique(bundles.positions(release.path("index")), return_counts=True)
    said = rows["position"].to_numpy()
    for wrong, text in (
        (np.setdiff1d(held, said), "index: %d positions that model/item_vectors has no item of"),
        (np.setdiff1d(said, held), "index: %d positions of model/item_vectors are not in it"),
        (held[counts > 1], "index: %d positions stand in it twice"),
    ):
        found += _sentence(pa.array(wrong), text)
    return found


def _everybodys_exclusions(release: Release, listed: Listed) -> list[str]:
    kind, value = release.manifest["eligibility"]["everyone"]
    rules = _table(release, "filters/ineligible_items", ["item_id", "kind", "value"])
    barred = rules.filter(pc.and_(pc.equal(rules["kind"], kind), pc.equal(rules["value"], value)))
    found = []
    for (table, column), named in listed.items():
        wrong = named.filter(pc.is_in(named, barred["item_id"]))
        found += _sentence(wrong, f"{table}.{column}: %d items that nobody may get")
    return found


def _personal_exclusions(release: Release) -> list[str]:
    """No list holds what its person's region, restrictions or blocked pairs exclude."""
    rules = _table(release, "filters/ineligible_items", ["item_id", "kind", "value"])
    persons = _table(release, "persons", ["person_id", "region", "restrictions"])
    blocked = _table(release, "filters/blocked_pairs", ["person_id", "item_id"])
    unknown = release.manifest["eligibility"]["unknown_region"]
    regions = persons.select(["person_id"]).append_column(
        "value", pc.fill_null(persons["region"], unknown)
    )
    restrictions = pa.table({
        "person_id": persons["person_id"].take(pc.list_parent_indices(persons["restrictions"])),
        "value": pc.list_flatten(persons["restrictions"]),
    })  # fmt: skip
    wrong: dict[str, list[pa.ChunkedArray]] = {
        "recommendations: %d persons that persons/ lacks": [],
        "recommendations: %d places whose person's region excludes the item": [],
        "recommendations: %d places whose person's restriction excludes the item": [],
        "recommendations: %d places that blocked_pairs forbids": [],
    }
    strangers, of_region, of_restriction, forbidden = wrong.values()
    barred = [
        (found, holders, rules.filter(pc.equal(rules["kind"], kind)).select(["item_id", "value"]))
        for kind, holders, found in (
            ("region", regions, of_region), ("restriction", restrictions, of_restriction),
        )
    ]  # fmt: skip
    known = persons.select(["person_id"])
    for pairs in _parts(release, "recommendations", ["person_id", "item_id"]):
        unknowns = pairs.join(known, keys="person_id", join_type="left anti")
        strangers.append(unknowns["person_id"])
        for found, holders, items in barred:
            held = pairs.join(holders, keys="person_id", join_type="inner")
            against = held.join(items, keys=["item_id", "value"], join_type="left semi")
            found.append(against["item_id"])
        against = pairs.join(blocked, keys=["person_id", "item_id"], join_type="left semi")
        forbidden.append(against["item_id"])
    told = []
    for text, parts in wrong.items():
        ids = pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string())
        told += _sentence(pc.unique(ids) if parts is strangers else ids, text)
    return told


def _removals(release: Release) -> list[str]:
    """No list holds what a ban or margin floor takes out of its surface, for everybody or for the
    region of its person or its own, and no pool what one takes out of all surfaces."""
    if REMOVED not in release.manifest["tables"]:
        return []  # made before they were in it
    removed = _table(release, REMOVED, ["surface", "item_id", "region"])
    if not removed.num_rows:
        return []
    surfaces = pa.array(list(release.manifest["surfaces"]), pa.string())
    everywhere = removed.filter(pc.is_null(removed["surface"]))
    spread = [
        everywhere.set_column(0, "surface", pa.repeat(name, everywhere.num_rows))
        for name in surfaces
    ]
    removed = pa.concat_tables([removed.filter(pc.is_valid(removed["surface"])), *spread])
    of_all = removed.filter(pc.is_null(removed["region"])).select(["surface", "item_id"])
    found = []
    for table, column in RULED:
        listed = _table(release, table, ["surface", column]).rename_columns(["surface", "item_id"])
        wrong = listed.join(of_all, keys=["surface", "item_id"], join_type="left semi")
        found += _sentence(wrong["item_id"], f"{table}.{column}: %d places that a rule forbids")
    held = _table(release, "pools", ["context_kind", "context", "item_id"])
    nobody = everywhere.filter(pc.is_null(everywhere["region"])).select(["item_id"])
    wrong = held.join(nobody, keys="item_id", join_type="left semi")
    found += _sentence(wrong["item_id"], "pools.item_id: %d places that a rule forbids")
    keys = ["surface", "item_id", "region"]
    shared = _table(release, "context_lists", ["surface", "context_kind", "context", "item_id"])
    for table, rows, barred, by in (
        ("pools", held, everywhere, keys[1:]),
        ("context_lists", shared, removed, keys),
    ):
        of_region = rows.filter(pc.equal(rows["context_kind"], "region"))
        names = ["region" if name == "context" else name for name in rows.column_names]
        wrong = of_region.rename_columns(names).join(barred, keys=by, join_type="left semi")
        found += _sentence(
            wrong["item_id"], f"{table}: %d places that a rule forbids in their region"
        )
    lists = _table(release, "recommendations", ["surface", "person_id", "item_id"])
    regions = _table(release, "persons", ["person_id", "region"])
    wrong = lists.join(regions, keys="person_id", join_type="inner").join(
        removed, keys=keys, join_type="left semi"
    )
    return found + _sentence(
        wrong["item_id"], "recommendations: %d places that a rule forbids in the person's region"
    )


def _consent(release: Release) -> list[str]:
    """Who does not consent has no vector, and a list from shared pools alone."""
    persons = _table(release, "persons", ["person_id", "personalised"])
    silent = persons.filter(pc.invert(persons["personalised"]))["person_id"]
    vectors = _column(release, "model/person_factors", "person_id")
    found = _sentence(
        vectors.filter(pc.is_in(vectors, silent)),
        "model/person_factors: %d persons who do not consent to personalisation",
    )
    lists = _table(release, "recommendations", ["person_id", "sources"])
    lists = lists.filter(pc.is_in(lists["person_id"], silent))
    sources = pc.list_flatten(lists["sources"])
    shared = pa.array(release.manifest["pools"], pa.string())
    personal = sources.filter(pc.invert(pc.is_in(sources, shared)))
    return found + _sentence(
        personal, "recommendations: %d personal sources in lists of persons who do not consent"
    )


def _lists(release: Release) -> list[str]:
    """Ranks of every list run from 1 without a gap, and no item stands in a list twice."""
    found = []
    for table, names, item in (
        ("recommendations", ["surface", "person_id"], "item_id"),
        ("context_lists", ["surface", "context_kind", "context"], "item_id"),
        ("item_lists", ["surface", "item_id"], "listed_item_id"),
        ("pools", ["source", "context_kind", "context"], "item_id"),
    ):
        texts = [*names, item]
        rows = io.read_arrow(release.path(table), [*texts, "rank"], coded=texts)
        ranks, listed = rows["rank"].to_numpy(), groups.codes(rows, texts)
        places, starts = groups.in_order(groups.codes(rows, names), ranks)
        gap = ranks[places] != groups.ranked(starts, rows.num_rows)
        by_pair = np.argsort(listed, kind="stable")
        again = by_pair[1:][np.diff(listed[by_pair]) == 0]
        wrong = rows.take(pa.array(np.union1d(places[gap], again), pa.int64()))
        found += _sentence(
            wrong[names[-1]].cast(pa.string()),
            f"{table}: %d places after a gap or with an item twice",
        )
    return found


def _scores(release: Release) -> list[str]:
    """The scorer, from the features alone, gives the listed scores: serving can trust it.

    What was measured for this release is scored again, pair by pair. Pairs that stand as an earlier
    release has them were, by its gate: of their files one in ``TURNS`` is, in turn by the hour.
    """
    try:
        scorer = Scorer.load(release.path("scorer"))
    except (OSError, KeyError, ValueError) as error:
        return [f"scorer: cannot be read ({error})"]
    # By codes: all places of a large shop joined by their ids are the most that a night holds.
    people = _column(release, "persons", "person_id").combine_chunks()
    items = _column(release, "id_maps", "item_id").combine_chunks()

    def pairs(rows: pa.Table) -> np.ndarray:
        """(n,) int64, below 0 where the person or the item is unknown."""
        person = matrix.positions(rows["person_id"], people)
        item = matrix.positions(rows["item_id"], items)
        return np.where((person >= 0) & (item >= 0), person * len(items) + item, -1)

    # Some files at a time: all the features of a large shop would be the largest table of a night.
    keys, scores, scored = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, bool)]
    again, stand = _to_score(release)
    pair = ["person_id", "item_id"]
    for files, columns in ((again, None), (stand, pair)):
        for first in range(0, len(files), WIDE_FILES):
            rows = pa.concat_tables(
                pq.read_table(file, columns=columns, read_dictionary=pair)
                for file in files[first : first + WIDE_FILES]
            )
            keys.append(pairs(rows))
            scored.append(np.full(rows.num_rows, columns is None))
            some = np.zeros(rows.num_rows) if columns else scorer.of_features(features.read(rows))
            scores.append(some)
    order = np.argsort(np.concatenate(keys), kind="stable")
    key, expected, asked = (np.concatenate(some)[order] for some in (keys, scores, scored))
    ranked = [name for name, facts in release.manifest["surfaces"].items() if facts["scored"]]
    absent, wrong = 0, []
    for rows in _parts(release, "recommendations", ["surface", *pair, "score"], pair):
        lists = rows.filter(pc.is_in(rows["surface"], pa.array(ranked, pa.string())))
        wanted, score = pairs(lists), lists["score"].to_numpy()
        place = np.searchsorted(key, wanted)
        there = (wanted >= 0) & (place < len(key))
        there[there] = key[place[there]] == wanted[there]
        absent += int((~there).sum())
        off = np.zeros(len(wanted), bool)
        # What is no number is no score either.
        right = np.abs(score[there] - expected[place[there]]) <= TOLERANCE * (
            np.abs(score[there]) + 1.0
        )
        off[there] = asked[place[there]] & ~right
        wrong += lists["item_id"].filter(pa.array(off)).cast(pa.string()).chunks
    found = [f"features: {absent} listed places have no row of features"] if absent else []
    twice = key[1:][(np.diff(key) == 0) & (key[1:] >= 0)]
    again = items.take(pa.array(twice % len(items)))
    found += _sentence(again, "features: %d pairs have a second row")
    ids = pa.chunked_array(wrong, pa.string())
    return found + _sentence(ids, "recommendations: %d scores that scorer/ does not give")


def _to_score(release: Release) -> tuple[list[Path], list[Path]]:
    """The files of ``features`` whose pairs are scored again, and those whose pairs stand."""
    again: list[Path] = []
    stand: list[Path] = []
    turn = int(release.as_of.timestamp()) // 3600 % TURNS
    for file in io.parquet_files(release.path("features")):
        newest = io.greatest(file, "event_timestamp")
        old = newest is not None and newest < release.as_of
        # By its name, which it keeps while others come and go.
        theirs = zlib.crc32(file.name.encode()) % TURNS
        (stand if old and theirs != turn else again).append(file)
    return again, stand


def _sentence(ids: pa.Array | pa.ChunkedArray, text: str) -> list[str]:
    if not len(ids):
        return []
    shown = ", ".join(repr(one)[:60] for one in pc.unique(ids).slice(0, SAMPLE).to_pylist())
    return [f"{text % len(ids)} (such as {shown})"]


def _json(path: Path) -> dict | None:
    try:
        return io.read_json(path)
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _table(release: Release, name: str, columns: list[str]) -> pa.Table:
    return io.read_arrow(release.path(name), columns=columns)


def _parts(
    release: Release, name: str, columns: list[str], coded: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """The table some files at a time, for what is asked of each row by itself: all the places of a
    large shop, joined to their persons, would be what a night holds most of. ``coded``: as of
    :func:`io.read_arrow`."""
    files = io.parquet_files(release.path(name))
    for first in range(0, len(files), FILES):
        yield pa.concat_tables(
            pq.read_table(file, columns=columns, read_dictionary=[*coded])
            for file in files[first : first + FILES]
        )


def _column(release: Release, name: str, column: str) -> pa.ChunkedArray:
    return _table(release, name, [column])[column]


def _different(release: Release, name: str, column: str) -> pa.StringArray:
    """The different texts of a column."""
    rows = io.read_arrow(release.path(name), [column], coded=[column])
    return pc.unique(groups.one(rows[column])).cast(pa.string())
