"""The release: everything that serving needs, in one folder, published as a whole or not at all.

Reads every step's published tables. Writes no table but a staged folder ``release/`` (files first,
``manifest.json`` last) and ``release.json`` with its id; with a Redis, also the staged keys of the
release there. The gate then calls :func:`verify` and, only on green, :func:`publish`.

Order of publishing, and what a failure between two steps leaves:

1. the folder is renamed into ``releases/``: complete, not served;
2. Redis holds every key of it: complete, not served;
3. ``CURRENT`` names it: files and LMDB serve it, Redis still the one before;
4. ``nightjar:current`` names it in Redis: all serve it;
5. a line in ``history.jsonl``; what is beyond the retention is deleted, in Redis after the files.

Each step is safe to repeat, so a gate that is run again finishes what a killed one began.
The format is written down in ``docs/release-format.md``.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io, params, steps, tables
from jobs.errors import Fault
from jobs.filtering.filters import EVERYONE, UNKNOWN_REGION
from jobs.io import Lake
from jobs.night import Night
from jobs.ordering import rules
from jobs.ordering.surfaces import PERSON, Surface
from jobs.params import check
from jobs.refresh import route
from jobs.release import checks, entries, excluded, groups, releases, replaced, standing, stores
from jobs.release.releases import REMOVED, Release
from jobs.retrieval.sources.pools import SHARED as POOLS
from jobs.scoring import scorer

log = logging.getLogger("nightjar")

# Tables that a release shares with the lake, and the folder that each has in the release.
SHARED = {
    "recommendations": "recommendations",
    "context_lists": "context_lists",
    "item_lists": "item_lists",
    "identities": "identities",
    "persons": "persons",
    "features": "features",
    "items": "items",
    "rules_in_force": "rules",
    "model_lists": "model_lists",
    "eligibility": "filters/eligibility",
    "ineligible_items": "filters/ineligible_items",
    "blocked_pairs": "filters/blocked_pairs",
    "item_factors": "model/item_factors",
    "person_factors": "model/person_factors",
    "item_vectors": "model/item_vectors",
    "ranking_evidence": "reports/ranking_evidence",
    "slice_evidence": "reports/slice_evidence",
    "reliability": "reports/reliability",
    "feature_importance": "reports/feature_importance",
    "delivery": "reports/delivery",
    "shortfalls": "reports/shortfalls",
    "overrides": "reports/overrides",
    "explore_shares": "reports/explore_shares",
    "index_recall": "reports/index_recall",
    "embedding_report": "reports/embedding_report",
    "candidate_counts": "reports/candidate_counts",
    "events_counts": "reports/events_counts",
    "events_volume": "reports/events_volume",
    "identity_counts": "reports/identity_counts",
    "signal_freshness": "reports/signal_freshness",
    "feed_freshness": "reports/feed_freshness",
    "identity_coverage": "reports/identity_coverage",
    "promises": "reports/promises",
    "conversion_windows": "reports/conversion_windows",
}
NIGHTLY, HOURLY = "nightly", "hourly"
THREADS = 4  # that hash files and have them kept by the disk
# How a reader tells what a person may get by the rules of filters/ineligible_items/.
ELIGIBILITY = {"everyone": EVERYONE, "unknown_region": UNKNOWN_REGION}


@dataclass(frozen=True)
class Params:
    """What a release says of itself and how long it stays."""

    # Retention counts nights and refreshes apart, so that these never push out a night.
    # Three nights to return to: a fault found on Monday can be older than the weekend.
    keep_nightly: int = 3
    # Six hours of refreshes, a working morning.
    keep_hourly: int = 6
    # Past this age a reader gives popular pools in place of personal lists: a weekend's two failed
    # nights still serve, a third one in a row does not.
    age_ceiling_hours: int = 96

    def __post_init__(self) -> None:
        check(self.keep_nightly >= 3, "keep_nightly must be at least 3")
        check(self.keep_hourly >= 6, "keep_hourly must be at least 6")
        check(self.age_ceiling_hours >= 24, "age_ceiling_hours must be at least 24")


def run(night: Night, chosen: Params) -> None:
    """Stage the release folder, and its keys in Redis where there is one."""
    folder = night.staged / "release"
    with releases.room("release", night.lake.root):
        folder.mkdir(parents=True)
        manifests = {
            step: night.published(step).manifest for step in steps.STEPS if step != "release"
        }
        rows = _share_tables(night, folder)
        rows["id_maps"] = _write_id_map(night, folder)
        removed = _removed(night)
        io.write_arrow(folder / REMOVED, removed)
        rows[REMOVED] = removed.num_rows
        own = night.arrow("ineligible_items", ["item_id", "kind", "value"])
        ineligible = excluded.by_all(own, removed)
        pools = served_pools(night.arrow("pools"), ineligible)
        io.write_arrow(folder / "pools", pools)
        rows["pools"] = pools.num_rows
        _share_bundles(night, folder)
        scorer.save(
            folder / "scorer",
            night.arrow("ranker_models"),
            night.arrow("blend_weights"),
            night.arrow("calibration"),
        )
        _share_evidence(night, folder)
        files = _fingerprints(folder)
        release_id = releases.new_id(night.as_of, _digest(night.run_id, files))
        meta = {
            "format": releases.FORMAT,
            "release_id": release_id,
            "as_of": night.as_of.isoformat(),
            "age_ceiling_hours": chosen.age_ceiling_hours,
            "eligibility": ELIGIBILITY,
            "surfaces": surfaces(night),
        }
        personal, drawn = [*_of_persons(night)], _drawn(night)
        stands = standing.find(night, personal, drawn)
        recommended = _recommended(night, drawn, stands.people if stands else None)
        found = entries.of(_frames(night, ineligible), recommended, meta)
        if stands:
            found = heapq.merge(found, stands.entries())
        count = stores.write_lmdb(folder / "kv", found)
        files["kv/data.mdb"] = _fingerprint(folder / "kv" / "data.mdb")
        before = releases.newest_before(night.lake, night.as_of)
        shared = _share_unchanged(folder, files, before)
        manifest = {
            **describe(release_id, night, chosen, manifests),
            "data": _interval(night),
            "tables": rows,
            "kv": {"entries": count, "lists": standing.form(personal, drawn)},
            "previous": None if before is None else before.id,
            "files": dict(sorted(files.items())),
        }
        io.write_json(night.staged / "release.json", {"id": release_id})
        io.write_json(folder / "manifest.json", manifest)
    if night.redis_url:
        _stage_in_redis(night.redis_url, release_id, folder)
    size = sum(facts["bytes"] for facts in files.values())
    night.notes |= {"release": release_id, "files": len(files), "bytes": size, "entries": count}
    log.info(
        "release=%s files=%d bytes=%d entries=%d unchanged=%d",
        release_id, len(files), size, count, shared,
    )  # fmt: skip


def verify(night: Night) -> list[str]:
    """What keeps the staged release from being published, a sentence each; empty when nothing.

    A Redis that lost keys since the job wrote to it, restarted or emptied, is given all of them
    again; ``ConnectionError`` where it does not keep them, which is no verdict on the release."""
    try:
        release = releases.opened(_folder(night), deep=True)
    except releases.Broken as broken:
        return [str(broken)]
    found = checks.faults(release)
    if overtaken := replaced.overtaken(night):
        found.append(overtaken)
    if night.redis_url:
        _keep_in_redis(night.redis_url, release)
    return found


def publish(night: Night) -> str:
    """Serve the staged release, unless a newer run date serves already; returns its id."""
    chosen = params.build(Params, night.overrides.get("release", {}))
    with releases.room("release", releases.root(night.lake)):
        release = _shelve(night)
        if night.redis_url:
            _keep_in_redis(night.redis_url, release)
        serving = _switch(night, release)
        keep = {NIGHTLY: chosen.keep_nightly, HOURLY: chosen.keep_hourly}
        gone = releases.retire(night.lake, keep, spare={release.id})
        surfaces = night.params_of("recommendations").surfaces.values()
        looked_back = timedelta(days=max(one.explore_days for one in surfaces))
        route.forget(night.lake, release.as_of - looked_back)
    if night.redis_url:
        store = stores.RedisStore(night.redis_url)
        store.retire({one.id for one in releases.readable(night.lake)})
        store.close()
    log.info("release=%s serving=%s retired=%d", release.id, serving, len(gone))
    return release.id


# --- the staged folder -----------------------------------------------------------------------
def _share_tables(night: Night, folder: Path) -> dict[str, int]:
    rows = {}
    for table, place in SHARED.items():
        home = night.published(tables.TABLES[table].step).table(table)
        for path in io.parquet_files(home):
            releases.link(path, folder / place / path.relative_to(home))
        rows[place] = io.count_rows(folder / place)
    return rows


def _write_id_map(night: Night, folder: Path) -> int:
    """The id map of index and bitmaps: item_id, position; sorted by position."""
    items = night.arrow("items", columns=["item_id", "position"]).sort_by("position")
    io.write_arrow(folder / "id_maps", items)
    return int(items.num_rows)


def _share_bundles(night: Night, folder: Path) -> None:
    bundle = night.published("index").table("index_bundle")
    if not bundle.is_dir():
        raise Fault(f"release: {bundle} is missing; run the step index and its gate again")
    for name in sorted(releases.files_of(bundle)):
        releases.link(bundle / name, folder / "index" / name)
    facts = night.published("embeddings").table("embedding.json")
    if facts.is_file():
        releases.link(facts, folder / "model" / "embedding.json")


def _share_evidence(night: Night, folder: Path) -> None:
    for step in steps.STEPS:
        if step == "release":
            continue
        attempt = night.published(step).attempt
        evidence = night.lake.evidence(step, night.as_of, attempt)
        if evidence.is_file():
            releases.link(evidence, folder / "reports" / "evidence" / f"{step}.json")


def _removed(night: Night) -> pa.Table:
    """What bans and margin floors in force take out: the columns of ``rules.REMOVED``."""
    catalogue = night.arrow("items", rules.ITEM_COLUMNS)
    known = rules.loaded(night.arrow("rules_in_force"), catalogue)
    return rules.removed(known, catalogue["item_id"])


def served_pools(pools: pa.Table, ineligible: pa.Table) -> pa.Table:
    """The table ``pools`` without items that nobody, or nobody in its region, may get.

    Pools are made before the filters are; ranks close up. What a restriction or the reader's own
    region excludes is left to the reader, since a pool is shared.
    """
    kind = ineligible["kind"]
    nobody = ineligible.filter(pc.equal(kind, EVERYONE[0]))["item_id"]
    kept = pools.filter(pc.invert(pc.is_in(pools["item_id"], pc.unique(nobody))))
    unsold = ineligible.filter(pc.equal(kind, "region")).select(["item_id", "value"])
    unsold = unsold.rename_columns(["item_id", "context"])
    unsold = unsold.append_column(
        "context_kind", pa.array(["region"] * unsold.num_rows, pa.string())
    )
    kept = kept.join(unsold, keys=["item_id", "context", "context_kind"], join_type="left anti")
    context = groups.codes(kept, ["source", "context_kind", "context"])
    places, starts = groups.in_order(context, kept["rank"].to_numpy())
    schema = tables.TABLES["pools"].schema
    ranks = pa.array(groups.ranked(starts, kept.num_rows), pa.int32())
    ranked = kept.take(pa.array(places)).drop_columns(["rank"]).append_column("rank", ranks)
    return ranked.select(schema.names).cast(schema)


def surfaces(night: Night) -> dict[str, dict[str, Any]]:
    """What a reader, and whoever checks a release, needs to know of every surface."""
    chosen = night.params_of("recommendations").surfaces
    return {
        name: {
            "grain": surface.grain,
            "length": surface.length,
            "scored": surface.scored,
            "cadence": surface.cadence,
            "online": list(surface.online),
            "fallback": list(surface.fallback),
        }
        for name, surface in chosen.items()
    }


def _frames(night: Night, ineligible: pa.Table) -> dict[str, pa.Table]:
    return {
        "identities": night.arrow("identities", columns=["key_type", "key", "person_id"]),
        "persons": night.arrow("persons", columns=["person_id", *entries.FACTS]),
        "blocked_pairs": _distinct(night.arrow("blocked_pairs", columns=["person_id", "item_id"])),
        "context_lists": night.arrow("context_lists"),
        "item_lists": night.arrow("item_lists"),
        "ineligible_items": _distinct(ineligible.select(["item_id", "kind", "value"])),
    }


def _of_persons(night: Night) -> dict[str, Surface]:
    surfaces: dict[str, Surface] = night.params_of("recommendations").of_grain(PERSON)
    return surfaces


def _drawn(night: Night) -> bool:
    """Whether some place of a person's list was drawn by chance."""
    found = io.dataset(night.folder("recommendations"))
    return bool(found.count_rows(filter=ds.field("propensity") < 1.0))


def _recommended(
    night: Night, drawn: bool, people: pa.StringArray | None
) -> dict[str, Callable[[], pa.Table]]:
    """By surface of persons, what reads their lists, of everybody if ``people`` is None; their
    propensities where some are ``drawn``."""
    columns = ["surface", "person_id", "rank", "item_id", "score", "sources"]
    columns += ["propensity"] if drawn else []
    if people is not None:
        few = night.of_people("recommendations", people, columns)
        return {name: partial(few.filter, pc.equal(few["surface"], name))
                for name in _of_persons(night)}  # fmt: skip
    found = io.dataset(night.folder("recommendations"))
    return {
        surface: partial(found.to_table, columns, ds.field("surface") == surface)
        for surface in _of_persons(night)
    }


def _distinct(rows: pa.Table) -> pa.Table:
    return (
        rows.group_by(rows.column_names)
        .aggregate([])
        .sort_by([(name, "ascending") for name in rows.column_names])
    )


def _fingerprint(path: Path) -> dict[str, Any]:
    """Hash and size of a file that is then safe on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": found, "bytes": os.fstat(file.fileno()).st_size}


def _fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    names = sorted(releases.files_of(folder))
    # Hashing leaves Python to others, and a disk takes many files at once.
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(_fingerprint, (folder / name for name in names))
        return dict(zip(names, found, strict=True))


def _digest(run_id: str, files: dict[str, dict[str, Any]]) -> str:
    """Names the run and what it made: a re-run of a night is another release."""
    facts = [run_id, *(f"{name} {entry['sha256']}" for name, entry in sorted(files.items()))]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _share_unchanged(folder: Path, files: dict[str, dict[str, Any]], before: Release | None) -> int:
    """Link large files whose content the release before has too; returns how many.

    A small one saves no room worth the risk: damage to a shared file is damage to both releases.
    """
    if before is None:
        return 0
    known = {entry["sha256"]: name for name, entry in before.manifest["files"].items()}
    shared = 0
    for name, entry in files.items():
        twin = before.path(known.get(entry["sha256"], ""))
        if entry["bytes"] <= releases.SMALL or not twin.is_file():
            continue
        if not twin.samefile(folder / name):
            if releases.digest(twin) != entry["sha256"]:
                continue  # the older file rotted on the disk: not to be spread
            spare = folder / f"{name}.shared"
            releases.link(twin, spare)
            os.replace(spare, folder / name)
        shared += 1
    return shared


# --- the manifest ----------------------------------------------------------------------------
def describe(
    release_id: str, night: Night, chosen: Params, manifests: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The manifest's account of where the release came from.

    ``manifests``: the published manifest of every step before this one.
    """
    configuration = {step: manifest["params"] for step, manifest in manifests.items()}
    configuration["release"] = asdict(chosen)
    canonical = json.dumps(configuration, sort_keys=True, ensure_ascii=False)
    embeddings = manifests["embeddings"]
    index = io.read_json(night.published("index").table("index_bundle") / "index.json")
    looked = night.published("catalogue")
    return {
        "format": releases.FORMAT,
        "id": release_id,
        "kind": HOURLY if night.refresh else NIGHTLY,
        "night": night.refresh.night if night.refresh else io.label(night.as_of),
        "night_created": night.refresh.night_created if night.refresh else None,
        "base": night.refresh.base if night.refresh else None,
        "attempts": {
            step: night.published(step).attempt
            for step in (route.ROUTE if night.refresh else steps.STEPS)
            if step != "release"
        },
        "as_of": night.as_of.isoformat(),
        "shown_as_of": replaced.shown_as_of(looked, night.as_of).isoformat(),
        "run_id": night.run_id,
        "source": night.source,
        "seed": night.seed,
        "age_ceiling_hours": chosen.age_ceiling_hours,
        "config_digest": hashlib.sha256(canonical.encode()).hexdigest(),
        "config": configuration,
        "code_versions": {step: manifest["code_version"] for step, manifest in manifests.items()},
        "gates": {
            step: manifest.get("gate", {}).get("verdict", "missing")
            for step, manifest in manifests.items()
        },
        "build_seconds": _seconds(night, manifests),
        "eligibility": ELIGIBILITY,
        "pools": POOLS,
        "surfaces": surfaces(night),
        "embedding_version": index.get("embedding_version"),
        "predecessor": _predecessor(embeddings),
    }


def _seconds(night: Night, manifests: dict[str, dict[str, Any]]) -> float:
    """What the steps of this run date and their gates took; a refresh has some of its night's."""
    own = [one for one in manifests.values() if one["as_of"] == night.as_of.isoformat()]
    gates = (one.get("gate", {}).get("seconds", 0.0) for one in own)
    return round(sum(one["seconds"] for one in own) + sum(gates), 2)


def _predecessor(manifest: dict[str, Any]) -> dict[str, str] | None:
    """The earlier model that the embeddings went on from, or were turned onto."""
    for entry in manifest["inputs"].values():
        if entry["step"] == "embeddings":
            return {"as_of": entry["as_of"], "attempt": entry["attempt"]}
    return None


def _interval(night: Night) -> dict[str, Any]:
    """The data interval really read: what people's history spans, and when it was received."""
    history = night.arrow("history", columns=["event_time", "received_time"])
    happened, received = (
        pc.min_max(history[name]).as_py() for name in ("event_time", "received_time")
    )
    return {
        "events": history.num_rows,
        "first_event_time": happened["min"],
        "last_event_time": happened["max"],
        "last_received_time": received["max"],
    }


# --- publishing ------------------------------------------------------------------------------
def _folder(night: Night) -> Path:
    """The staged release, or where an earlier try of the gate already put it."""
    staged = night.staged / "release"
    if staged.is_dir():
        return staged
    try:
        release_id = io.read_json(night.staged / "release.json")["id"]
    except FileNotFoundError:
        raise Fault(
            f"release: nothing is staged for {io.label(night.as_of)}; run the step release first"
        ) from None
    return releases.root(night.lake) / release_id


def _shelve(night: Night) -> Release:
    """Move the staged release into ``releases/`` in one rename; safe to repeat."""
    folder = _folder(night)
    release = releases.load(folder)
    target = releases.root(night.lake) / release.id
    if folder == target:
        return release
    created = datetime.now(UTC)
    manifest = {
        **release.manifest,
        "code_version": _own_code_version(night),
        "gates": {**release.manifest["gates"], "release": "green"},
        "created": created.isoformat(timespec="microseconds"),
        "lag_seconds": round((created - release.as_of).total_seconds()),
    }
    # Written beside the folder: a kill here leaves no stray file in it.
    io.write_json(night.staged / "release-manifest.json", manifest)
    os.replace(night.staged / "release-manifest.json", folder / "manifest.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        # The same run made the same files before; only a damaged one is replaced.
        try:
            kept = releases.opened(target, deep=True)
            spare = folder.with_name("release-again")
            os.rename(folder, spare)
            shutil.rmtree(spare)
            return kept
        except releases.Broken as broken:
            log.warning("release=%s replaced=%s", release.id, broken)
            os.rename(target, target.with_name(f".gone-{target.name}"))
    os.rename(folder, target)
    releases.sync_tree(target)
    return Release(target, manifest)


def _own_code_version(night: Night) -> str:
    try:
        return str(io.read_json(night.staged / "manifest.json")["code_version"])
    except FileNotFoundError:
        return "unknown"


def _switch(night: Night, release: Release) -> str:
    """Point files and Redis at the release; an older one never replaces a newer one."""
    now = releases.current_id(night.lake)
    if now is not None and now != release.id and _is_newer(night.lake, now, release):
        log.info("release=%s older_than=%s pointer=unchanged", release.id, now)
        return str(now)
    if now != release.id:
        releases.switch(night.lake, release.id)
    releases.tell(night.lake, "publish", night.run_id, release.id)
    if night.redis_url:
        store = stores.RedisStore(night.redis_url)
        store.point(release.id, releases.ids_before(night.lake, release.id))
        store.close()
    return release.id


def _is_newer(lake: Lake, now: str, release: Release) -> bool:
    """Whether the release ``now`` has a later night, or the same and a later run date."""
    try:
        serving = releases.load(releases.root(lake) / now)
    except releases.Broken:
        return now[:16] > release.id[:16]
    return serving.age[:3] > release.age[:3]


def _stage_in_redis(url: str, release_id: str, folder: Path) -> None:
    store = stores.RedisStore(url)
    embedded = stores.LmdbStore(folder / "kv")
    written = store.stage(release_id, embedded.items())
    held = store.count(release_id, embedded.items())
    store.close()
    if held != written:
        raise ConnectionError(
            f"redis: {store.place} holds {held} of {written} keys of the release {release_id}; "
            "it may be out of memory or was emptied; run the step again"
        )


def _keep_in_redis(url: str, release: Release) -> None:
    """Give Redis all keys of a release again where it lost some."""
    store = stores.RedisStore(url)
    embedded = stores.LmdbStore(release.path("kv"))
    held = store.count(release.id, embedded.items())
    store.close()
    if held != embedded.count():
        _stage_in_redis(url, release.id, release.folder)
