"""The step ``shadow``: candidates that were held beside what served, and who gained by then.

Reads ``shadow/*/comparison.json``, which ``make shadow`` writes, the releases that these name, and
the newest ``history``. Writes ``shadow_candidates``, ``shadow_lists`` and ``shadow_sources``.

A comparison is made on the day of the decision, when nobody knows yet what will be bought. Here it
is made again with what was, as long as both releases are there; after that the rows of the last
diagnosis that could are carried on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.params import check
from jobs.release import releases, shadow
from jobs.release.releases import Release
from jobs.tables import TABLES

OPEN = "open"
DECISIONS = (*shadow.DECISIONS, OPEN)
VERDICTS = (shadow.GAINS, shadow.LOSES, shadow.UNKNOWN)
EVERYBODY = "all"
RED = "red"
NAMES = ("shadow_candidates", "shadow_lists", "shadow_sources")
Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Params:
    """How far back a comparison is still told."""

    # Six weeks: the current period of the diagnosis and what it is held against.
    days: int = 42

    def __post_init__(self) -> None:
        check(self.days > 0, "days must be positive")


def run(night: Night, params: Params) -> None:
    """Stage the three tables."""
    found: Rows = {name: [] for name in NAMES}
    decided = decisions(night)
    before = _before(night)
    for compared in comparisons(night, params):
        told = again(night, compared)
        rows = before.get(compared["candidate"]) if told is None else None
        for name, more in (rows or rows_of(told or compared)).items():
            found[name] += more
    for row in found["shadow_candidates"]:
        row |= decided.get((row["candidate"], row["live"]), {})
    for name in NAMES:
        night.write(name, pa.Table.from_pylist(found[name], TABLES[name].schema))


def comparisons(night: Night, params: Params) -> Iterator[dict[str, Any]]:
    """What ``make shadow`` found in the last weeks, by candidate.

    Raises ``Fault`` for a file that cannot be read: a comparison that counts must not be lost.
    """
    since = night.as_of - timedelta(days=params.days)
    for path in sorted((night.lake.root / "shadow").glob(f"*/{shadow.FILE}")):
        try:
            compared = io.read_json(path)
            moment = releases.moment(compared["live"])
            compared_at = datetime.fromisoformat(compared["compared_at"])
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as bad:
            raise Fault(
                f"shadow: {path} is no comparison ({bad!r}); compare the candidate again with "
                "make shadow, or remove the file"
            ) from None
        if moment is not None and since <= moment <= night.as_of:
            yield compared | {"compared_at": compared_at}


def again(night: Night, compared: dict[str, Any]) -> dict[str, Any] | None:
    """The comparison with what has been bought by the run date; None where a release is gone, or
    nobody has bought anything yet."""
    live = _opened(releases.root(night.lake) / compared["live"])
    candidate = _opened(Path(compared.get("folder", "")))
    newest = shadow.newest_history(night.lake, night.as_of)
    if live is None or candidate is None or newest is None:
        return None
    later = night.earlier("sessions", newest.as_of)
    bought = shadow.bought_since(later, live, night.as_of)
    if bought is None:
        return None
    anew = shadow.compare(live, candidate, bought)
    return anew | {"compared_at": compared["compared_at"]}


def _opened(folder: Path) -> Release | None:
    try:
        return releases.opened(folder) if folder.is_dir() else None
    except Fault:
        return None


def decisions(night: Night) -> dict[tuple[str, str], dict[str, Any]]:
    """By candidate and what served: the last ``decision``, its ``reason`` and who decided."""
    found = {}
    for line in releases.history(night.lake):
        what = str(line.get("what", ""))
        if what.startswith("shadow "):
            found[line["to"], line["from"]] = {
                "decision": what.removeprefix("shadow "),
                "reason": line.get("reason"),
                "decided_by": line.get("by"),
            }
    return found


def _before(night: Night) -> dict[str, Rows]:
    """The rows of the last diagnosis, by candidate."""
    last = night.previous("shadow")
    found: dict[str, Rows] = {}
    for name in NAMES if last else ():
        for row in io.read_arrow(last.table(name)).to_pylist():  # type: ignore[union-attr]
            rows = found.setdefault(row["candidate"], {each: [] for each in NAMES})
            rows[name].append(row)
    return found


# --- rows ------------------------------------------------------------------------------------
def rows_of(compared: dict[str, Any]) -> Rows:
    """The rows of one comparison."""
    live, candidate = compared["live"], compared["candidate"]
    lists: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    for surface, told in compared["surfaces"].items():
        if not told["people"]:
            continue  # nobody has lists in both
        lists += _lists(candidate, surface, told)
        mixes = told["sources"]
        for source in sorted({*mixes["live"], *mixes["candidate"]}):
            sources.append({
                "candidate": candidate, "surface": surface, "source": source,
                "share_live": mixes["live"].get(source, 0.0),
                "share_candidate": mixes["candidate"].get(source, 0.0),
            })  # fmt: skip
    everybody = [row for row in lists if row["group_kind"] == EVERYBODY]
    gates = compared["gates"].get(candidate, {})
    lags = compared["lag_seconds"]
    one = {
        "candidate": candidate, "live": live, "compared_at": compared["compared_at"],
        "parameters": "; ".join(
            f"{name}: {was} to {now}" for name, (was, now) in compared["parameters"].items()
        ),
        "red_gates": sum(verdict == RED for verdict in gates.values()),
        "lag_live": lags.get(live), "lag_candidate": lags.get(candidate),
        "loses": sum(row["verdict"] == shadow.LOSES for row in everybody), "decision": OPEN,
    }  # fmt: skip
    return {"shadow_candidates": [one], "shadow_lists": lists, "shadow_sources": sources}


def _lists(candidate: str, surface: str, told: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for everybody, and one for each group of which enough people bought something."""
    of = {"candidate": candidate, "surface": surface, "people": told["people"]}
    everybody = {
        **of, "group_kind": EVERYBODY, "group": EVERYBODY, "buyers": 0, "verdict": shadow.UNKNOWN,
        "overlap": told["overlap"], "rank_biased_overlap": told["rank_biased_overlap"],
    }  # fmt: skip
    rows = []
    for one in told["gain"] if isinstance(told["gain"], list) else []:
        row = {
            **of, "group_kind": one["kind"], "group": one["group"], "buyers": one["people"],
            "gain": one["gain"], "low": one["low"], "high": one["high"], "verdict": one["verdict"],
        }  # fmt: skip
        if one["kind"] == EVERYBODY:
            everybody |= row
        else:
            rows.append(row)
    return [everybody, *rows]
