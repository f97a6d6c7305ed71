"""``assign``: in which arm everybody known is, balanced, before an experiment begins.

Reads the experiment from the metrics file, and of the newest night ``persons`` and ``history``.
Writes ``experiments/<name>/`` in the lake, whole or not at all: ``arms/`` (person_id, stratum and
arm) and ``assignment.json`` (what it was made from). It is made once and kept, since whoever is in
an arm stays in it; serving and the step ``experiments`` read it by :func:`kept`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from jobs import io
from jobs.diagnosis import definitions
from jobs.diagnosis.definitions import Experiment
from jobs.diagnosis.experiments.assignment import STRATA, Assignment, balanced, strata
from jobs.diagnosis.log import served
from jobs.errors import Fault
from jobs.io import Lake

FOLDER, ARMS, FACTS = "experiments", "arms", "assignment.json"
BEFORE = timedelta(days=served.Params().before_days)
# Of a name that becomes a folder's.
NAME = re.compile(r"[\w][\w.-]*")


def home(lake: Lake, name: str) -> Path:
    """Where an experiment's assignment is kept."""
    if not NAME.fullmatch(name):
        raise Fault(
            f"assign: {name!r} is no name of a folder; call the experiment by letters, digits, "
            "points, dashes and underscores"
        )
    return lake.root / FOLDER / name


def kept(lake: Lake, defined: Experiment) -> Assignment | None:
    """The assignment that was made for an experiment; None where none was.

    Raises ``Fault`` where it was made with another salt or other arms: nobody is where either says.
    """
    if not NAME.fullmatch(defined.name) or not (home(lake, defined.name) / FACTS).is_file():
        return None
    folder = home(lake, defined.name)
    facts = io.read_json(folder / FACTS)
    if (facts["salt"], facts["arms"]) != (defined.salt, defined.arms):
        raise Fault(
            f"experiments: {folder} was made with the salt {facts['salt']} and the arms "
            f"{facts['arms']}, and the metrics file says {defined.salt} and {defined.arms}; take "
            "back the change there, or call the experiment by another name"
        )
    rows = io.read_arrow(folder / ARMS, ["person_id", "arm"])
    return Assignment(
        defined.salt,
        defined.arms,
        dict(zip(rows["person_id"].to_pylist(), rows["arm"].to_pylist(), strict=True)),
    )


def assigned(defined: Experiment, persons: pa.Table, bought: pa.Table) -> pa.Table:
    """person_id, stratum and arm of everybody.

    ``persons``: person_id; ``bought``: person_id, event_time and value of all purchases before the
    night, whose newest ``BEFORE`` days tell the value.
    """
    ids = persons["person_id"].combine_chunks()
    ids = ids.take(pc.sort_indices(ids))
    mine = bought.filter(pc.is_in(bought["person_id"], value_set=ids))
    person = pc.index_in(mine["person_id"], value_set=ids).to_numpy()
    returning = np.bincount(person, minlength=len(ids)) > 0
    since = pa.scalar(defined.starts - BEFORE, mine["event_time"].type)
    late = pc.greater_equal(mine["event_time"], since).to_numpy()
    paid = pc.fill_null(mine["value"], 0.0).to_numpy() * late
    stratum = strata(returning, np.bincount(person, paid, minlength=len(ids)))
    arm = balanced(defined.salt, ids.to_pylist(), stratum, defined.arms)
    return pa.table({
        "person_id": ids,
        "stratum": pa.array(STRATA).take(pa.array(stratum)),
        "arm": pa.array(sorted(defined.arms)).take(pa.array(arm)),
    })  # fmt: skip


def experiment(lake: Lake, as_of: datetime, name: str, file: str) -> Experiment:
    """The experiment as the metrics file defines it: ``file``, or that of the night's source."""
    source = lake.published("source", as_of).table("source.json")
    of_source = Path(io.read_json(source)["folder"]) / definitions.FILE
    path = Path(file).expanduser() if file else of_source
    given, found = definitions.load(path)
    faults = found or definitions.check(given)
    if faults:
        said = "; ".join(fault if found else f"{where} {fault}" for where, fault in faults.items())
        raise Fault(f"assign: {said if found else f'{path}: {said}'}")
    every = definitions.build(given).experiments
    chosen = next((one for one in every if one.name == name), None)
    if chosen is None:
        known = ", ".join(one.name for one in every) or "none"
        raise Fault(f"assign: {path} defines no experiment {name!r}; there is {known}")
    return chosen


def make(lake: Lake, name: str, file: str = "") -> pa.Table:
    """Assign everybody whom the newest night knows, and keep it. Raises ``Fault``."""
    folder = home(lake, name)
    stitched = lake.newest("sessions")
    if stitched is None:
        raise Fault(f"assign: the lake {lake.root} has no night, which says whom to assign")
    as_of = io.parse_as_of(stitched.as_of)
    defined = experiment(lake, as_of, name, file)
    if folder.exists():
        raise Fault(
            f"assign: {folder} is there already; whoever is in an arm stays in it. An experiment "
            "that was never begun is made anew when that folder is deleted"
        )
    if as_of > defined.starts:
        raise Fault(
            f"assign: {name} began at {io.label(defined.starts)}, before the newest night of "
            f"{stitched.as_of}; who is in it already would change arms. Let the salt go on alone, "
            "or begin another one"
        )
    bought = io.read_arrow(
        stitched.table("history"), ["person_id", "event_time", "value"],
        ds.field("event_type") == "purchase",
    )  # fmt: skip
    persons = lake.published("identities", as_of).table("persons")
    rows = assigned(defined, io.read_arrow(persons, ["person_id"]), bought)
    begun = folder.with_name(f".{name}")
    shutil.rmtree(begun, ignore_errors=True)
    io.write_arrow(begun / ARMS, rows)
    io.write_json(
        begun / FACTS,
        {"experiment": name, "salt": defined.salt, "arms": defined.arms, "night": stitched.as_of,
         "starts": defined.starts.isoformat(), "persons": rows.num_rows},
    )  # fmt: skip
    os.replace(begun, folder)
    return rows


def main(chosen: argparse.Namespace) -> None:
    """Assign, and print who is where."""
    lake = Lake(chosen.lake)
    rows = make(lake, chosen.experiment, chosen.file or "")
    arms = sorted(pc.unique(rows["arm"]).to_pylist())
    table = Table(title=f"{chosen.experiment}: {rows.num_rows:,} people", title_justify="left")
    table.add_column("stratum")
    for arm in arms:
        table.add_column(arm, justify="right")
    counted = rows.group_by(["stratum", "arm"]).aggregate([([], "count_all")]).to_pylist()
    of = {(one["stratum"], one["arm"]): one["count_all"] for one in counted}
    for stratum in STRATA:
        table.add_row(stratum, *(f"{of.get((stratum, arm), 0):,}" for arm in arms))
    console = Console()
    console.print(table)
    console.print(f"kept: {home(lake, chosen.experiment)}; who comes later gets the salt's arm.")
