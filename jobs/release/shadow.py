"""A candidate release beside the one that serves, and what became of it: ``make shadow``.

A candidate is built by a night of its own in a lake of its own, from the same source and run date
with other parameters (``make run LAKE=var/candidate PARAMS=…``). Reads the serving release of the
lake, that of the candidate's lake, and what was bought since. Writes
``shadow/<candidate>/comparison.json`` in the lake. Promoted, the candidate's folder is shared with
the lake and serves; rejected, it stays where it is. Either is a line of ``history.jsonl`` with who
decided and why, and neither is done before the two have been compared.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from jobs import io, lock
from jobs.errors import Fault
from jobs.evaluation import metrics, shadow
from jobs.evaluation.shadow import Lists
from jobs.gate import WARNING
from jobs.io import Lake, Published
from jobs.release import checks, releases, rollback
from jobs.release.releases import Release

PROMOTE, REJECT = DECISIONS = ("promote", "reject")
FILE = "comparison.json"
DEPTH = 10
GROUPS = ("region", "segment")
GAINS, LOSES, UNKNOWN = "gains", "loses", "insufficient evidence"
LEAST = 30  # people of a group whose gain is told
FAR = datetime.max.replace(tzinfo=UTC)


def main(chosen: argparse.Namespace) -> None:
    """Compare, or promote or reject what was compared, and say what was found or done."""
    lake, other = Lake(chosen.lake), Lake(chosen.candidate)
    live = of_night(lake)
    candidate, _ = releases.serving(other, deep=True)
    if chosen.decision:
        reason = chosen.reason or ""
        try:
            decide(lake, live, candidate, chosen.decision, reason, chosen.redis_url)
        except ConnectionError as error:
            raise Fault(f"shadow: {error}") from None
        told = "serves now" if chosen.decision == PROMOTE else "is rejected and serves nowhere"
        print(f"{candidate.id} {told}: {chosen.reason}")
        return
    found = compare(live, candidate, newest_history(lake, FAR), FAR)
    io.write_json(_file(lake, candidate), found)
    _show(found)
    print(f"compared: {_file(lake, candidate)}")
    print('decide: make shadow CANDIDATE=… DECISION=promote REASON="…" (or DECISION=reject)')


def of_night(lake: Lake) -> Release:
    """The release of the night that serves, or that what serves goes on from: a candidate is made
    by a night, and a refresh has read hours that it did not."""
    serving, _ = releases.serving(lake)
    nights = [
        one
        for one in releases.readable(lake)
        if one.as_of == serving.night and not one.manifest.get("base")
    ]
    if not nights:
        raise Fault(
            f"shadow: {serving.id} serves, and the release of its night is gone; compare after the "
            "next night"
        )
    return nights[-1]


def _file(lake: Lake, candidate: Release) -> Path:
    return lake.root / "shadow" / candidate.id / FILE


# --- comparing -------------------------------------------------------------------------------
def compare(
    live: Release, candidate: Release, later: Published | None, until: datetime
) -> dict[str, Any]:
    """Everything that is told of the two, for people and for ``comparison.json``; ``later``: the
    sessions that say what was bought since, before ``until``.

    Raises ``Fault`` where they are not of one source and run date: other inputs give other lists.
    """
    for what in ("source", "as_of"):
        if live.manifest[what] != candidate.manifest[what]:
            raise Fault(
                f"shadow: {live.id} is of the {what} {live.manifest[what]}, {candidate.id} of "
                f"{candidate.manifest[what]}; build the candidate on the inputs of what serves"
            )
    # What one of them has blocked since its run date the other could still list.
    since = max(live.shown_as_of, candidate.shown_as_of)
    bought = bought_since(later, live, since, until)
    surfaces = _surfaces(live, candidate)
    return {
        "live": live.id,
        "candidate": candidate.id,
        "folder": str(candidate.folder.resolve()),
        "bought_until": later.as_of if later is not None and bought is not None else None,
        "compared_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": differing(live.manifest["config"], candidate.manifest["config"]),
        "gates": {one.id: one.manifest["gates"] for one in (live, candidate)},
        # A release of before knows no such number.
        "build_seconds": {one.id: one.manifest.get("build_seconds") for one in (live, candidate)},
        "surfaces": {
            # Of many surfaces one seems to lose by chance: the level is that of all together.
            name: beside(live, candidate, name, bought, 1 - 0.05 / len(surfaces))
            for name in surfaces
        },
    }


def differing(live: dict[str, Any], candidate: dict[str, Any]) -> dict[str, Any]:
    """``step.parameter``: [what serves, the candidate], where they differ."""
    found = {}
    for step in sorted({*live, *candidate}):
        one, other = live.get(step, {}), candidate.get(step, {})
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                found[f"{step}.{name}"] = [one.get(name), other.get(name)]
    return found


def _surfaces(live: Release, candidate: Release) -> list[str]:
    """The surfaces whose lists are of persons in both."""
    return sorted(
        name
        for name, facts in live.manifest["surfaces"].items()
        if facts["grain"] == "person" and name in candidate.manifest["surfaces"]
    )


def newest_history(lake: Lake, until: datetime) -> Published | None:
    """The newest published sessions of this run date or an earlier one."""
    now = lake.at("sessions", io.label(until))
    return now or next(lake.earlier("sessions", until), None)


def bought_since(
    later: Published | None, live: Release, since: datetime, until: datetime
) -> pa.Table | None:
    """person_id, item_id of what was bought from ``since`` on and before ``until``, a pair once;
    None where no later night has said yet. A person is whom the key was when the release was made:
    a person who was merged since has another id."""
    if later is None or io.parse_as_of(later.as_of) <= since:
        return None
    time = ds.field("event_time")
    after = (ds.field("event_type") == "purchase") & (time >= since) & (time < until)
    key = ["key_type", "key"]
    rows = io.read_arrow(later.table("history"), [*key, "person_id", "item_id"], after)
    then = io.read_arrow(live.path("identities"), [*key, "person_id"])
    known = rows.join(then.rename_columns([*key, "then"]), keys=key, join_type="left outer")
    found = pa.table({
        "person_id": pc.coalesce(known["then"], known["person_id"]), "item_id": known["item_id"],
    })  # fmt: skip
    return found.group_by(["person_id", "item_id"]).aggregate([]) if found.num_rows else None


def beside(
    live: Release, candidate: Release, surface: str, bought: pa.Table | None, level: float
) -> dict[str, Any]:
    """One surface: how alike the lists are, the mix of sources, and who gains; ``level``: of the
    interval of everybody's gain."""
    rows = [_lists(one, surface) for one in (live, candidate)]
    tables = [rows[0], rows[1]] + ([bought] if bought is not None else [])
    people_ids, item_ids = (
        pc.unique(pa.concat_arrays([c for t in tables for c in t[name].chunks]))
        for name in ("person_id", "item_id")
    )

    def codes(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        return tuple(
            pc.index_in(table[name], value_set=ids).to_numpy().astype(np.int64)
            for name, ids in (("person_id", people_ids), ("item_id", item_ids))
        )  # type: ignore[return-value]

    coded = [Lists.of(*codes(table), table["rank"].to_numpy(), DEPTH) for table in rows]
    people, ours, theirs = shadow.both(*coded)
    if not len(people):
        return {"people": 0}
    n = len(people)
    found: dict[str, Any] = {
        "people": n,
        "people_live": len(np.unique(coded[0].person)),
        "people_candidate": len(np.unique(coded[1].person)),
        "overlap": float(shadow.overlap(ours, theirs, n, DEPTH).mean()),
        "rank_biased_overlap": float(shadow.rank_biased_overlap(ours, theirs, n, DEPTH).mean()),
        "rank_correlation": _mean(shadow.rank_correlation(ours, theirs, n, DEPTH)),
        "items_live": len(np.unique(coded[0].item)),
        "items_candidate": len(np.unique(coded[1].item)),
        "sources": {
            "live": _mix(rows[0]), "candidate": _mix(rows[1]),
        },
    }  # fmt: skip
    found["gain"] = f"{UNKNOWN}: no later night tells what was bought"
    if bought is not None:
        person, item = codes(bought)
        place = np.searchsorted(people, person)
        kept = (place < n) & (people[np.minimum(place, n - 1)] == person)
        gain = shadow.gained(ours, theirs, (place[kept], item[kept]), n, DEPTH)
        facts = _facts(live, people_ids.take(pa.array(people)))
        found["gain"] = [*_gains(gain, facts, level)]
    return found


def _lists(release: Release, surface: str) -> pa.Table:
    columns = ["surface", "person_id", "item_id", "rank", "sources"]
    where = (ds.field("surface") == surface) & (ds.field("rank") <= DEPTH)
    return io.read_arrow(release.path("recommendations"), columns, where)


def _mix(rows: pa.Table) -> dict[str, float]:
    """The share of places that each source named."""
    flat = pc.value_counts(pc.list_flatten(rows["sources"])).to_pylist()
    return {
        one["values"]: one["counts"] / max(rows.num_rows, 1)
        for one in sorted(flat, key=lambda one: str(one["values"]))
    }


def _facts(live: Release, ids: pa.Array) -> dict[str, np.ndarray]:
    rows = io.read_arrow(live.path("persons"), ["person_id", *GROUPS])
    place = pc.index_in(ids, value_set=rows["person_id"].combine_chunks())
    return {
        name: rows[name].take(place).fill_null("unknown").to_numpy(zero_copy_only=False)
        for name in GROUPS
    }


def _gains(
    gain: np.ndarray, facts: dict[str, np.ndarray], level: float
) -> Iterator[dict[str, Any]]:
    """NDCG@10 gained by the candidate, of all and of each group, with its interval."""
    yield from _gain("all", "all", gain, level)
    for kind, values in facts.items():
        for value in np.unique(values):
            yield from _gain(kind, str(value), gain[values == value], 0.95)


def _gain(kind: str, value: str, gain: np.ndarray, level: float) -> Iterator[dict[str, Any]]:
    known = gain[np.isfinite(gain)]
    if len(known) < LEAST:
        return
    low, high = metrics.interval(known, seed=0, level=level)
    verdict = GAINS if low > 0 else LOSES if high < 0 else UNKNOWN
    yield {
        "kind": kind, "group": value, "people": len(known), "gain": float(known.mean()),
        "low": low, "high": high, "better": float((known > 0).mean()),
        "worse": float((known < 0).mean()), "verdict": verdict,
    }  # fmt: skip


def _show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{found['candidate']} beside {found['live']}", title_justify="left")
    for name in ("surface", "people", "overlap@10", "rank-biased", "Kendall", "NDCG@10 gained"):
        table.add_column(name, justify="left" if name == "surface" else "right")
    for name, one in found["surfaces"].items():
        if not one["people"]:
            continue
        gain = one["gain"] if isinstance(one["gain"], str) else "too few people bought"
        if isinstance(one["gain"], list) and one["gain"]:
            all_ = one["gain"][0]
            gain = f"{all_['gain']:+.4f} ({all_['low']:+.4f} to {all_['high']:+.4f})"
        table.add_row(
            name, f"{one['people']:,}", f"{one['overlap']:.3f}",
            f"{one['rank_biased_overlap']:.3f}", _number(one["rank_correlation"]), gain,
        )  # fmt: skip
    console.print(table)
    for release_id, seconds in found["build_seconds"].items():
        warned = warnings(found["gates"][release_id])
        built = "built by an earlier version" if seconds is None else f"built in {seconds:,.0f} s"
        told = f"{release_id}: {built}, gates with warnings: {warned}"
        console.print(f"  {told}", markup=False, highlight=False)
    for name, (was, now) in found["parameters"].items():
        console.print(f"  {name}: {was} -> {now}", markup=False, highlight=False)


def warnings(gates: dict[str, str]) -> str:
    """The steps whose gate warned, as one text."""
    return ", ".join(step for step, verdict in gates.items() if verdict == WARNING) or "none"


def _mean(values: np.ndarray) -> float | None:
    """The mean of the numbers among them."""
    has = np.isfinite(values)
    return float(values[has].mean()) if has.any() else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


# --- deciding --------------------------------------------------------------------------------
def decide(
    lake: Lake, live: Release, candidate: Release, what: str, reason: str,
    redis_url: str | None = None,
) -> None:  # fmt: skip
    """Promote or reject a candidate that was compared with what serves.

    Raises ``Fault`` without a reason or a comparison, where another run holds the lake or another
    night serves by now, where the candidate is not whole, and where its folder cannot be shared;
    ``ConnectionError`` where Redis does not answer. Then nothing changed.
    """
    if not reason.strip():
        raise Fault("shadow: give a REASON; months later it is all that tells why")
    try:
        compared = io.read_json(_file(lake, candidate))
    except FileNotFoundError:
        raise Fault(
            f"shadow: {candidate.id} was not compared yet; run make shadow CANDIDATE=… first"
        ) from None
    if compared["live"] != live.id:
        raise Fault(
            f"shadow: {candidate.id} was compared with {compared['live']}, but {live.id} serves "
            "now; compare them again"
        )
    served = live.id
    if what == PROMOTE:
        faults = checks.faults(candidate)
        if faults:
            raise Fault(f"shadow: {candidate.id} cannot serve: {'; '.join(faults)}")
        owner = f"shadow-{secrets.token_hex(4)}"
        lock.acquire(lake, owner)
        try:
            if of_night(lake).id != live.id:
                raise Fault(f"shadow: {live.id} no longer serves; compare again")
            served = releases.current_id(lake) or live.id
            with releases.room("shadow", releases.root(lake)):
                _serve(lake, candidate, redis_url)
        finally:
            lock.release(lake, owner)
    releases.record(
        lake, time=datetime.now(UTC).isoformat(timespec="seconds"), what=f"shadow {what}",
        by=rollback.user(), reason=reason, **{"from": served, "to": candidate.id},
    )  # fmt: skip


def _serve(lake: Lake, candidate: Release, redis_url: str | None) -> None:
    """Share the candidate's folder with the lake and point at it; taken back where that fails."""
    there = (releases.root(lake) / candidate.id).exists()
    shelved = _shelve(lake, candidate)
    try:
        rollback.serve(lake, shelved, redis_url)
    except BaseException:
        if not there and releases.current_id(lake) != candidate.id:
            shutil.rmtree(shelved.folder)
        raise


def _shelve(lake: Lake, candidate: Release) -> Release:
    """Put the candidate's folder among the lake's releases, whole or not at all."""
    target = releases.root(lake) / candidate.id
    if target.is_dir():
        return releases.opened(target, deep=True)
    building = target.with_name(f".building-{candidate.id}")
    shutil.rmtree(building, ignore_errors=True)
    releases.link_tree(candidate.folder, building)
    releases.sync_tree(building)
    os.rename(building, target)
    io.sync_folder(target.parent)
    return releases.opened(target, deep=True)
