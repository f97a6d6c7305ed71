"""The step ``shadow``: candidates that were held beside what served, and who gained by then.

Reads ``shadow/*/comparison.json``, which ``make shadow`` writes, the releases that these name, and
the newest ``history``. Writes ``shadow_candidates``, ``shadow_lists`` and ``shadow_sources``.

A comparison is made on the day of the decision, when nobody knows yet what will be bought. Here it
is made again with what was, as long as the lake keeps both releases (three nights by default);
after that the rows of the last diagnosis that could are carried on.
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

OPEN, UNREADABLE = "open", "unreadable"
DECISIONS = (*shadow.DECISIONS, OPEN)
NEEDED = ("candidate", "live", "parameters", "gates", "surfaces")
VERDICTS = (shadow.GAINS, shadow.LOSES, shadow.UNKNOWN)
EVERYBODY = "all"
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
    files = {path: _read(path) for path in _files(night)}
    for compared in comparisons(files, night.as_of, params):
        told = again(night, compared)
        rows = before.get(_pair(compared)) if told is None else rows_of(told)
        for name, more in (rows or rows_of(without_later(compared, night))).items():
            found[name] += more
    serving = releases.current_id(night.lake)
    for row in found["shadow_candidates"]:
        when, told = decided.get(row["candidate"], (row["compared_at"], {}))
        # What was decided before it was compared anew is of another comparison.
        row |= told if when >= row["compared_at"] else {}
        row["serves"] = row["candidate"] == serving
    found["shadow_candidates"] += [
        _unreadable(path, night.as_of) for path, compared in files.items() if compared is None
    ]
    for name in NAMES:
        night.write(name, pa.Table.from_pylist(found[name], TABLES[name].schema))


def comparisons(
    files: dict[Path, dict[str, Any] | None], as_of: datetime, params: Params
) -> Iterator[dict[str, Any]]:
    """What ``make shadow`` found in the last weeks, by candidate."""
    for compared in files.values():
        moment = releases.moment(compared["live"]) if compared else None
        if compared and moment and as_of - timedelta(days=params.days) <= moment <= as_of:
            yield compared


def _files(night: Night) -> list[Path]:
    return sorted((night.lake.root / "shadow").glob(f"*/{shadow.FILE}"))


def _read(path: Path) -> dict[str, Any] | None:
    """A comparison; None where the file is none."""
    try:
        compared = io.read_json(path)
        if any(name not in compared for name in NEEDED):
            return None
        return compared | {"compared_at": datetime.fromisoformat(compared["compared_at"])}
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _unreadable(path: Path, as_of: datetime) -> dict[str, Any]:
    """The row of a file that is no comparison, so that what counts is not lost unseen."""
    return {
        "candidate": path.parent.name, "live": "", "compared_at": as_of, "loses": 0,
        "parameters": f"{path} is no comparison; compare the candidate again, or remove it",
        "decision": UNREADABLE, "serves": False,
    }  # fmt: skip


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    return row["candidate"], row["live"]


def without_later(compared: dict[str, Any], night: Night) -> dict[str, Any]:
    """A comparison without what it knows of purchases after the run date."""
    if (compared.get("bought_until") or "") <= io.label(night.as_of):
        return compared
    surfaces = {
        name: {**told, **({"gain": shadow.UNKNOWN} if "gain" in told else {})}
        for name, told in compared["surfaces"].items()
    }
    return compared | {"surfaces": surfaces, "bought_until": None}


def again(night: Night, compared: dict[str, Any]) -> dict[str, Any] | None:
    """The comparison with what has been bought by the run date; None where a release is gone, or
    nobody has bought anything yet."""
    here = releases.root(night.lake)
    live = _opened(here / compared["live"])
    # Promoted, the lake has it too; else it lies where it was built.
    candidate = _opened(here / compared["candidate"]) or _opened(Path(compared.get("folder", "")))
    newest = shadow.newest_history(night.lake, night.as_of)
    if live is None or candidate is None or newest is None or candidate.id != compared["candidate"]:
        return None
    later = night.earlier("sessions", newest.as_of)
    anew = shadow.compare(live, candidate, later, night.as_of)
    return anew | {"compared_at": compared["compared_at"]} if anew["bought_until"] else None


def _opened(folder: Path) -> Release | None:
    try:
        return releases.opened(folder) if folder.is_dir() else None
    except Fault:
        return None


def decisions(night: Night) -> dict[str, tuple[datetime, dict[str, Any]]]:
    """By candidate: when it was decided on last, the ``decision``, its ``reason`` and who decided.
    What served then is no part of it: a candidate is compared with a night, and put in the place of
    a refresh of it."""
    found = {}
    for line in releases.history(night.lake):
        what = str(line.get("what", ""))
        if what.startswith("shadow "):
            told = {
                "decision": what.removeprefix("shadow "),
                "reason": line.get("reason"),
                "decided_by": line.get("by"),
            }
            found[line["to"]] = datetime.fromisoformat(line["time"]), told
    return found


def _before(night: Night) -> dict[tuple[str, str], Rows]:
    """The rows of the last diagnosis, by candidate and what served."""
    last = night.previous("shadow")
    if last is None:
        return {}
    told = {name: io.read_arrow(last.table(name)).to_pylist() for name in NAMES}
    return {
        _pair(one): {
            name: [row for row in rows if row["candidate"] == one["candidate"]]
            for name, rows in told.items()
        }
        for one in told["shadow_candidates"]
        if one["decision"] != UNREADABLE
    }


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
    gates, seconds, until = (
        compared["gates"], compared.get("build_seconds", {}), compared.get("bought_until")
    )  # fmt: skip
    one = {
        "candidate": candidate, "live": live, "compared_at": compared["compared_at"],
        "parameters": "; ".join(
            f"{name}: {was} to {now}" for name, (was, now) in compared["parameters"].items()
        ),
        "build_live": seconds.get(live), "build_candidate": seconds.get(candidate),
        "warned_live": shadow.warnings(gates.get(live, {})),
        "warned_candidate": shadow.warnings(gates.get(candidate, {})),
        "loses": sum(row["verdict"] == shadow.LOSES for row in everybody), "decision": OPEN,
        "bought_until": io.parse_as_of(until) if until else None, "serves": False,
    }  # fmt: skip
    return {"shadow_candidates": [one], "shadow_lists": lists, "shadow_sources": sources}


def _lists(candidate: str, surface: str, told: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for everybody, and one for each group of which enough people bought something."""
    of = {"candidate": candidate, "surface": surface, "people": told["people"]}
    everybody = {
        **of, "group_kind": EVERYBODY, "group": EVERYBODY, "buyers": 0, "verdict": shadow.UNKNOWN,
        "overlap": told["overlap"], "rank_biased_overlap": told["rank_biased_overlap"],
        "rank_correlation": told.get("rank_correlation"),
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
