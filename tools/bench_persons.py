"""The benchmark's part ``persons``: how well persons are found, and how that falls with the noise.

Simulated shops that differ in one rate of noise each, at its default, twice and four times as much;
then in all of them. For each the steps up to ``identities`` run, and the persons they find are held
to the truth that the simulator wrote (``jobs.evaluation.persons_found`` defines the measures); and
so are the anonymous events that a login gave to a person.
"""

from __future__ import annotations

import logging
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs import io
from jobs.__main__ import command
from jobs.evaluation import metrics
from jobs.io import Lake
from jobs.sources.simulated.settings import Shop
from tools import ghosts

END = "2024-03-01"
RATES = ("false_links", "shared", "recycled", "links_late")
TIMES = (2, 4)
STEPS = ("source", "events", "identities", "sessions")


def measure(events: int, home: Path) -> list[dict[str, Any]]:
    """A row per shop and kind of pairs: the noise, and how well persons were found."""
    shutil.rmtree(home / "persons", ignore_errors=True)
    lake = Lake(home / "persons").open()
    logging.getLogger("nightjar").setLevel(logging.ERROR)
    where = ["--lake", str(lake.root), "--as-of", END, "--run-id", "bench"]
    rows = []
    try:
        command(["open-night", *where])
        for noise in noises():
            settings = "".join(f",{name}={value:g}" for name, value in noise.items())
            source = ["--source", f"simulated:events={events}{settings}"]
            for step in STEPS:
                command(["run", *where, *source, step])
                command(["gate", *where, *source, step])
            night = lake, io.parse_as_of(END)
            claims = claimed(*night)
            rows += [{"noise": noise, **row, **claims} for row in ghosts.found_pairs(*night)]
            print(f"persons{settings or ', the default noise'}: {rows[-4]}", flush=True)
    finally:
        command(["close-night", *where])
        shutil.rmtree(lake.root, ignore_errors=True)
    return rows


def claimed(lake: Lake, as_of: datetime) -> dict[str, int]:
    """Of the events under keys of nobody with an account (``anonymous``) those that a login gave to
    a person (``given``), and of these those of the person who really did it (``given_right``)."""
    source = Path(io.read_json(lake.published("source", as_of).table("source.json"))["folder"])
    stitched = lake.published("sessions", as_of).table("history")
    columns = ["event_id", "person_id", "resolved_by", "key_type", "key"]
    events = io.read_arrow(stitched, columns).to_pandas()
    said = io.read_arrow(source / "events", ["event_id", "session_id"]).to_pandas()
    did = io.read_arrow(source / "truth" / "sessions", ["session_id", "person"]).to_pandas()
    truth = said.drop_duplicates("event_id").merge(did, on="session_id")
    events = events.merge(truth[["event_id", "person"]], on="event_id")
    keys = io.read_arrow(
        lake.published("identities", as_of).table("identities"), ["key_type", "key", "person_id"]
    ).to_pandas()
    holders = io.read_arrow(source / "truth" / "keys", ["key_type", "key", "person"]).to_pandas()
    accounts = keys[keys["key_type"] == "account"].merge(holders, on=["key_type", "key"])
    whose = accounts.set_index("person_id")["person"]
    anonymous = keys[~keys["person_id"].isin(whose.index)][["key_type", "key"]]
    events = events.merge(anonymous, on=["key_type", "key"])
    given = events[events["resolved_by"] == "login"]
    return {
        "anonymous": len(events),
        "given": len(given),
        "given_right": int((given["person_id"].map(whose) == given["person"]).sum()),
    }


def noises() -> list[dict[str, float]]:
    """What each shop changes of the default noise."""
    usual = {name: float(getattr(Shop(), name)) for name in RATES}
    single = [{name: times * usual[name]} for name in RATES for times in TIMES]
    return [{}, *single, *({name: times * usual[name] for name in RATES} for times in TIMES)]


def table(rows: list[dict[str, Any]], events: int) -> list[str]:
    """Markdown: precision, recall and F1 of the pairs that a link joins, shop by shop."""
    lines = [
        "## Persons found", "",
        f"Simulated shops of {events:,} events; pairs of keys that a link joins, held to the truth "
        "(a key is a person's while nobody else uses it). In brackets Wilson's 95 % interval.", "",
        "| noise | joined pairs | precision | recall | F1 | connected pairs: precision | recall "
        "| events given by a login | rightly |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    readings: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["holders"] == "in_their_time":
            noise = ", ".join(f"{n} {v:.0%}" for n, v in row["noise"].items()) or "as it comes"
            readings.setdefault(noise, {})[row["pairs"]] = row
    for noise, of in readings.items():
        direct, connected = of["direct"], of["connected"]
        cells = [noise, f"{direct['joined']:,}"]
        cells += [_share(direct["right"], direct[of]) for of in ("found", "true")]
        cells.append(f"{direct['f1']:.4f}")
        cells += [f"{connected[name]:.4f}" for name in ("precision", "recall")]
        cells += [f"{direct['given']:,}", _share(direct["given_right"], direct["given"])]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _share(right: int, of: int) -> str:
    if not of:
        return "none"
    low, high = metrics.wilson(right, of)
    return f"{right / of:.4f} ({low:.4f} to {high:.4f})"
