"""``make decay``: what a day of refreshes loses against the night that follows.

Night after night in one lake: the night, refreshes at ``HOURS`` of its day, and the next night,
which makes all anew from what the refreshes went on from, and an hour's signals more. The lists of
the last refresh and of that night are judged by what the same people bought in the seven days after
it.

Settings come from the environment: ``SOURCE`` (completejourney), ``AS_OF`` (the first night; for
completejourney 2017-10-24, so that what judges the last of 30 ends before 2017-12-01), ``NIGHTS``
(30), ``HOURS`` (23; several with commas), ``LAKE`` (``var/decay``), ``PARAMS`` and ``MASTER`` as of
``make run``. One engine serves all that is made, and is warm after the first night. What was made
and judged is kept: a run that was stopped goes on, and one that asks for something else is refused.
Prints tables, and writes them and the curves under ``decay/`` in the
lake.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from scipy import stats

from jobs import io, spark, tables
from jobs.errors import Busy, Fault, exit_code
from jobs.evaluation import metrics, nights
from jobs.io import Lake
from jobs.pages import plots
from jobs.release import releases
from jobs.release.releases import Release
from jobs.retrieval import matrix
from jobs.sources import source as sources
from tools import by_hand
from tools.asked import source_of
from tools.lockfile import held
from tools.paired import by_night, compared, told

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_SOURCE, DEFAULT_AS_OF = "completejourney", "2017-10-24"
SURFACE = "homepage"
DAY, HORIZON = timedelta(days=1), timedelta(days=7)
NDCG_AT, RECALL_AT = 10, 20
REFRESHED, REBUILT = "refreshed", "rebuilt"
MEASURES = {"ndcg": f"NDCG@{NDCG_AT}", "recall": f"recall@{RECALL_AT}"}
# What a refreshed release may lose of each: half a point, of which a measure has a hundred, and,
# which is less, half a per cent of what the rebuilt one finds.
BOUND = 0.5
POINT, PER_CENT = "half a point", "half a per cent"
PATIENCE = 60  # seconds that a child has to close its night


@dataclass(frozen=True)
class Asked:
    """What a run was asked for; ``hours`` of a night's day, ascending."""

    source: str
    first: datetime
    nights: int
    hours: tuple[int, ...]
    root: Path

    def night(self, number: int) -> datetime:
        """The run date of this night, 0 the first."""
        return self.first + DAY * number


def main() -> int:
    return exit_code(lambda: run(asked(os.environ)))


def asked(values: Mapping[str, str]) -> Asked:
    """The settings, checked; an empty value is not given. Raises ``Fault``."""
    source = values.get("SOURCE") or DEFAULT_SOURCE
    first = values.get("AS_OF") or (DEFAULT_AS_OF if source == DEFAULT_SOURCE else "")
    try:
        started = io.parse_as_of(date.fromisoformat(first).isoformat())
    except ValueError:
        raise Fault(
            f"AS_OF: {first!r} is not a date; write AS_OF=YYYY-MM-DD, the first night"
        ) from None
    hours = values.get("HOURS") or "23"
    number = values.get("NIGHTS") or "30"
    try:
        chosen = tuple(sorted({int(hour) for hour in hours.split(",")}))
        count = int(number)
    except ValueError:
        chosen, count = (), 0
    if not chosen or chosen[0] < 1 or chosen[-1] > 23 or count < 1:
        raise Fault(
            f"HOURS={hours} NIGHTS={number}: write hours from 1 to 23 with commas between, and one "
            "night or more"
        )
    return Asked(
        source=source_of(source),
        first=started,
        nights=count,
        hours=chosen,
        root=Path(values.get("LAKE") or ROOT / "var" / "decay").expanduser().resolve(),
    )


def run(chosen: Asked) -> int:
    """Nights and their refreshes, judged; returns the exit code."""
    lake = Lake(chosen.root).open()
    kept = chosen.root / "decay"
    kept.mkdir(exist_ok=True)
    with by_hand.stoppable(), held(kept / "in_use", "make decay", refusal):
        source = sources.prepare(chosen.source, lake.root / "sources")
        cuts = [chosen.night(number) for number in range(1, chosen.nights + 1)]
        nights.check_cuts(source, cuts, HORIZON, "decay")
        note(chosen, nights.state_of(source), kept)
        with contextlib.closing(Engines(kept)) as engines:
            if not follow(chosen, lake, source.folder / "events", kept, engines):
                return 1
        found = list(read(chosen, kept))
        text = "\n".join(table(found, seconds(chosen, kept)))
        (kept / "report.md").write_text(text + "\n", encoding="utf-8")
        (kept / "decay.svg").write_text(drawing(found), encoding="utf-8")
        print(text)
        print(f"curves: {kept / 'decay.svg'}")
    return 0


def refusal(holder: str) -> Busy:
    """What a second run on one lake is told: they would take each other's night for their own."""
    return Busy(f"decay: {holder} is at work on this lake; wait for it, or give another LAKE")


def note(chosen: Asked, state: str, kept: Path) -> None:
    """Write what the results are made of; raises ``Fault`` where those that lie there are made of
    something else."""
    facts = {
        "source": chosen.source, "state": state, "first": io.label(chosen.first),
        "hours": list(chosen.hours), "params": os.environ.get("PARAMS", ""),
        "code": nights.code_of_night(),
    }  # fmt: skip
    path = kept / "made.json"
    if not path.exists():
        io.write_json(path, facts)
    other = [name for name, value in io.read_json(path).items() if facts.get(name) != value]
    if other:
        raise Fault(
            f"decay: what lies in {kept.parent} was made with another {', '.join(other)} (see "
            f"{path}); give another LAKE, or remove that folder"
        )


# --- nights and refreshes --------------------------------------------------------------------
class Engines:
    """One engine for all that is made, started where it is first asked for, and again where it has
    ended. ``kept``: where it is noted, so that a run after one that was killed ends it."""

    def __init__(self, kept: Path):
        self._note, self._log = kept / "engine.json", kept / "spark.log"
        self.close()

    def held(self) -> spark.Engine:
        engine = spark.Engine.load(self._note) if self._note.exists() else None
        if engine is None or not engine.alive():
            engine = spark.start(os.environ.get("MASTER") or "local[*]", self._log)
            engine.save(self._note)
        return engine

    def close(self) -> None:
        if self._note.exists():
            spark.Engine.load(self._note).stop()
            self._note.unlink()


def follow(chosen: Asked, lake: Lake, events: Path, kept: Path, engines: Engines) -> bool:
    """Make and judge what is missing, night after night; whether all of it is there."""
    judged_at = [kept / f"{io.label(chosen.night(n))}.parquet" for n in range(chosen.nights + 1)]
    waiting = [n > 0 and not path.exists() for n, path in enumerate(judged_at)]
    for number in range(chosen.nights + 1):
        night = chosen.night(number)
        goes_on = number < chosen.nights and waiting[number + 1]
        if (waiting[number] or goes_on) and not made(lake, night, chosen.source, kept, engines):
            return False
        if waiting[number]:
            last = night - DAY + timedelta(hours=chosen.hours[-1])
            rows = judged(of(lake, last), of(lake, night), purchases(events, night))
            pq.write_table(rows, judged_at[number])
        hours = [night + timedelta(hours=hour) for hour in chosen.hours] if goes_on else []
        # Of many hours the first may have gone from the lake when a run goes on.
        there = [n for n, hour in enumerate(hours) if lake.at("release", io.label(hour))]
        for hour in hours[max(there, default=-1) + 1 :]:
            if not made(lake, hour, chosen.source, kept, engines):
                return False
    return True


def made(lake: Lake, as_of: datetime, source: str, kept: Path, engines: Engines) -> bool:
    """Make a night, or a refresh where the run date has an hour, unless it lies there; whether it
    then does."""
    label = io.label(as_of)
    if lake.at("release", label) is not None:
        return True
    print(f"{label}: {'refresh' if as_of.hour else 'night'}", flush=True)
    engine, log = engines.held(), kept / f"{label}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "tools.bench_night", str(lake.root), label, source],
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "MASTER": engine.address},
        )  # fmt: skip
        try:
            code = _ended(child, engine)
        finally:
            _end(child)
    if code:
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-8:]), f"\nerror: {label} stopped; see {log}", file=sys.stderr)
        if not engine.alive():
            print(engine.ended(), file=sys.stderr)
    return code == 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """Have a child close what it has open, and end it where it does not."""
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _ended(child: subprocess.Popen[bytes], engine: spark.Engine) -> int:
    """The exit code of a child; 1 where the engine ended under it, which the child, to whom it is
    another's, would ask again for minutes."""
    while True:
        try:
            return child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            if not engine.alive():
                return 1


def seconds(chosen: Asked, kept: Path) -> dict[str, list[float]]:
    """Seconds by the clock of each night and of each refresh, as far as their logs are there; the
    engine's processor time is in no log, since it outlives them."""
    found: dict[str, list[float]] = {"night": [], "refresh": []}
    for number in range(chosen.nights + 1):
        for hour in (0, *chosen.hours):
            log = kept / f"{io.label(chosen.night(number) + timedelta(hours=hour))}.log"
            if log.exists():
                lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
                spent = sum(json.loads(line).get("seconds", 0.0) for line in lines)
                found["refresh" if hour else "night"].append(spent)
    return found


def of(lake: Lake, as_of: datetime) -> Release:
    """The release of a run date."""
    found = [release for release in releases.readable(lake) if release.as_of == as_of]
    if not found:
        raise Fault(
            f"decay: {lake.root} has no whole release of {io.label(as_of)}; empty the lake and "
            "start anew"
        )
    return max(found, key=lambda release: release.age)


# --- judging ---------------------------------------------------------------------------------
def purchases(events: Path, night: datetime) -> pa.Table:
    """key_type, key, item_id, ``after``: bool: what was bought in the days after a night, and
    whatever was done on the day before it (``after`` is False); as delivered, without what was
    corrected later. ``events``: the source's table."""
    time = ds.field("event_time").cast(tables.TIME)
    began, now, ended = (
        pa.scalar(each, tables.TIME) for each in (night - DAY, night, night + HORIZON)
    )
    after = (time >= now) & (time < ended) & (ds.field("event_type") == "purchase")
    names = ("key_type", "key", "item_id")
    return ds.dataset([str(file) for file in io.parquet_files(events)]).to_table(
        columns={
            **{name: ds.field(name).cast(pa.string()) for name in names}, "after": time >= now,
        },
        filter=after | ((time >= began) & (time < now)),
    )  # fmt: skip


def judged(refreshed: Release, rebuilt: Release, done: pa.Table) -> pa.Table:
    """name, person, acted, ndcg and recall of each release's homepage, for everybody who bought
    something and has a list in one of the two.

    ``done``: as of :func:`purchases`; whose it was is told by the identities of ``rebuilt``. A
    person without a list, as who came in the last hour, finds nothing.
    """
    keyed = io.read_arrow(rebuilt.path("identities"), ["key_type", "key", "person_id"])
    done = done.join(keyed, keys=["key_type", "key"], join_type="inner")
    lists = {name: shown(release) for name, release in
             ((REFRESHED, refreshed), (REBUILT, rebuilt))}  # fmt: skip
    listed = pa.concat_tables(lists.values())
    bought = done.filter(done["after"]).select(["person_id", "item_id"])
    bought = bought.group_by(["person_id", "item_id"]).aggregate([])
    bought = bought.filter(pc.is_in(bought["person_id"], value_set=pc.unique(listed["person_id"])))
    people, person = matrix.encode(bought["person_id"])
    items, item = matrix.encode(bought["item_id"])
    wanted = np.bincount(person, minlength=len(people))
    pairs = np.sort(person * len(items) + item)
    before = pc.unique(done.filter(pc.invert(done["after"]))["person_id"])
    acted = pc.is_in(people, value_set=before)
    parts = []
    for name, rows in lists.items():
        who = matrix.positions(rows["person_id"], people)
        what = matrix.positions(rows["item_id"], items)
        rows = rows.filter(pa.array(who >= 0))
        who, what = who[who >= 0], what[who >= 0]
        hit = (what >= 0) & matrix.among(who * len(items) + what, pairs)
        place = rows["rank"].to_numpy() - 1
        parts.append(
            pa.table(
                {
                    "name": pa.repeat(name, len(people)), "person": people, "acted": acted,
                    "ndcg": metrics.ndcg(who, place, hit, wanted, NDCG_AT),
                    "recall": metrics.recall(who, place, hit, wanted, RECALL_AT),
                }
            )
        )  # fmt: skip
    return pa.concat_tables(parts)


def shown(release: Release) -> pa.Table:
    """person_id, item_id and rank of a release's homepage."""
    mine = ds.field("surface") == SURFACE
    return io.read_arrow(
        release.path("recommendations"), ["person_id", "item_id", "rank"], where=mine
    )


# --- telling ---------------------------------------------------------------------------------
def read(chosen: Asked, kept: Path) -> Iterator[dict[str, Any]]:
    """The rows of ``tools.paired``."""
    for number in range(1, chosen.nights + 1):
        rows = pq.read_table(kept / f"{io.label(chosen.night(number))}.parquet")
        for name in (REFRESHED, REBUILT):
            mine = rows.filter(pc.equal(rows["name"], name))
            yield {
                "night": number, "name": name, "person": mine["person"].combine_chunks(),
                **{column: mine[column].to_numpy() for column in ("acted", "ndcg", "recall")},
            }  # fmt: skip


def table(rows: list[dict[str, Any]], spent: Mapping[str, list[float]]) -> list[str]:
    """Markdown: what a day of refreshes finds beside the night after it, and what both cost."""
    count = max(row["night"] for row in rows)
    lines = [
        f"## A day of refreshes beside the night after it: {count} nights", "",
        "Differences are shares of what the night's lists find, paired over people, with 95 % "
        "intervals.", "",
        "| people | NDCG@10, refreshed | rebuilt | difference | recall@20: difference |",
        "| --- | --: | --: | --: | --: |",
    ]  # fmt: skip
    for title, acted in (("all", None), ("who did something on that day", True), ("others", False)):
        means = []
        for name in (REFRESHED, REBUILT):
            mine = [row for row in rows if row["name"] == name]
            chosen = [row["ndcg"] if acted is None else row["ndcg"][row["acted"] == acted]
                      for row in mine]  # fmt: skip
            found = np.concatenate(chosen)
            means.append(f"{found.mean():.4f}" if len(found) else "nobody")
        beside = [told(compared(rows, REFRESHED, REBUILT, measure, acted)) for measure in MEASURES]
        lines.append(f"| {title} | {' | '.join([*means, *beside])} |")
    lines += ["", *bounded(rows)]
    if all(spent.values()):
        night, hour = median(spent["night"]), median(spent["refresh"])
        lines.append(
            f"Seconds of steps and gates, medians: a night {night:.0f}, a refresh {hour:.0f}, "
            f"{night / max(hour, 1e-9):.1f} times less."
        )
    return [*lines, ""]


def bounded(rows: list[dict[str, Any]]) -> list[str]:
    """What is lost over nights and night by night, and whether it is within the bounds.

    A night's model is a draw of its own, of which people who are drawn with all their nights say
    nothing: the loss is within where it is so over people and over nights.
    """
    lines = []
    losses: dict[str, list[tuple[float, float]]] = {POINT: [], PER_CENT: []}
    for measure, title in MEASURES.items():
        refreshed, rebuilt = by_release(rows, measure)
        points = 100 * (refreshed - rebuilt)
        base = np.concatenate([row[measure] for row in rows if row["name"] == REBUILT]).mean()
        share, low, _ = compared(rows, REFRESHED, REBUILT, measure)
        for bound, found, whole in ((POINT, points, base), (PER_CENT, points / rebuilt, 1.0)):
            lows = [100 * whole * low]
            if len(found) > 1:
                mean, least, most = over_nights(found)
                lows.append(least)
                unit = "points" if bound == POINT else "%"
                lines.append(
                    f"Over nights {title} differs by {mean:+z.2f} {unit} "
                    f"({least:+z.2f} to {most:+z.2f})."
                )
            losses[bound].append((100 * whole * share, min(lows)))
        lines.append(
            f"{title} is within half a point in {int((np.abs(points) <= BOUND).sum())} of "
            f"{len(points)} nights; the furthest is {points[np.abs(points).argmax()]:+z.2f}."
        )
    for bound, lost in losses.items():
        mean, low = (min(values) for values in zip(*lost, strict=True))
        within = (
            "within" if low >= -BOUND else "not shown to be within" if mean >= -BOUND else "beyond"
        )
        lines.append(f"Of all people the loss is {within} {bound}.")
    return lines


def by_release(rows: list[dict[str, Any]], measure: str) -> tuple[np.ndarray, np.ndarray]:
    """(n_nights,) what the refreshed lists find of each night, and the rebuilt ones."""
    refreshed, rebuilt = (
        np.array([row[measure].mean() for row in rows if row["name"] == name])
        for name in (REFRESHED, REBUILT)
    )
    return refreshed, rebuilt


def over_nights(found: np.ndarray) -> tuple[float, float, float]:
    """The mean of two nights or more with its interval of 95 % (Student's t)."""
    reach = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    mean = float(found.mean())
    return mean, mean - float(reach), mean + float(reach)


def drawing(rows: list[dict[str, Any]]) -> str:
    """SVG: by how many points each night's refreshed lists are above the rebuilt ones, with what
    people alone would make of it, and what may be lost."""
    series: dict[str, tuple[list[float], list[float], list[float], list[float]]] = {}
    for measure, title in MEASURES.items():
        nights, *shares = by_night(rows, REFRESHED, REBUILT, measure)
        middles, lows, highs = (by_release(rows, measure)[1] * np.array(shares)).tolist()
        series[title] = (nights, middles, lows, highs)
    bound = [-BOUND] * len(nights)
    series[POINT] = (nights, bound, bound, bound)
    return plots.curves("nights", "refreshed to rebuilt, points", **series)


if __name__ == "__main__":
    sys.exit(main())
