"""``make refresh``: one run of the ``hourly_refresh`` DAG in this process.

Reads AS_OF, SOURCE, LAKE, PARAMS and MASTER from the environment. Without AS_OF it is the hour
after what the serving release has read, or up to which it says what may be shown; without SOURCE,
the source of that release. Exit codes as of ``make run``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tools import airflow_home, night

HOUR = timedelta(hours=1)


def main() -> int:
    airflow_home.set_environment()
    from jobs.errors import Fault
    from tools import progress

    try:
        conf = trigger(os.environ)
        with airflow_home.alone("make refresh"), night.signals():
            return _refresh(conf)
    except (night.BadInput, airflow_home.InUse, Fault) as unable:
        print(f"error: {unable}", file=sys.stderr)
        return 2
    except progress.Stopped:
        print("\nstopped; the engine is gone and nothing was published", file=sys.stderr)
        return 130


def trigger(values: Mapping[str, str]) -> dict[str, Any]:
    """What the trigger form would hold.

    Raises ``BadInput`` for a date or JSON that cannot be read, and ``Fault`` where the lake holds
    no release to go on from.
    """
    given = night.trigger({**values, "AS_OF": "2000-01-01"})
    del given["as_of"]
    if values.get("AS_OF"):
        try:
            as_of = datetime.fromisoformat(values["AS_OF"])
        except ValueError:
            raise night.BadInput(
                f"AS_OF: {values['AS_OF']!r} is not an instant; write YYYY-MM-DDTHH:MM (UTC)"
            ) from None
        as_of = as_of.astimezone(UTC) if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    else:
        # Behind a night that replaced a refresh nothing earlier would do.
        as_of = _serving(given).shown_as_of.replace(minute=0, second=0, microsecond=0) + HOUR
    source = given.get("source") or _serving(given).manifest["source"]
    return {**given, "source": source, "as_of": as_of.isoformat()}


def _serving(conf: Mapping[str, Any]) -> Any:
    from jobs.release import releases

    return releases.serving(night.lake_of(conf))[0]


def _refresh(conf: dict[str, Any]) -> int:
    from rich.console import Console

    title = f"The refresh of {conf['as_of'][:16]}, source {conf['source']}"
    state, told = night.run("hourly_refresh", conf, title)
    seconds = time.monotonic() - night.BEGAN
    from tools import closing

    console, lake = Console(), night.lake_of(conf)
    as_of = datetime.fromisoformat(conf["as_of"])
    if state == "success" and "open_refresh" not in {task.task_id for task in told.tasks}:
        # The task was skipped, which only a lake that another run holds makes it do.
        print(f"error: {lake.root} is in use by another run; try when it is done", file=sys.stderr)
        return 2
    if state == "success" and not any(task.error for task in told.tasks):
        show(console, lake, as_of, seconds)
        return 0
    closing.show_failure(console, lake, as_of, told.tasks)
    return 1


def show(console: Any, lake: Any, as_of: datetime, seconds: float) -> None:
    """Print what each step did and took, what was touched, and where the release lies."""
    from rich.table import Table

    from jobs.refresh import route
    from tools import closing

    table = Table(title=f"The refresh of {as_of:%Y-%m-%d %H:%M} UTC", title_justify="left")
    for name in ("step", "how", "gate"):
        table.add_column(name)
    for name in ("rows out", "seconds"):
        table.add_column(name, justify="right")
    work = 0.0
    for step, how in route.ROUTE.items():
        manifest = lake.published(step, as_of).manifest
        gate = manifest.get("gate", {})
        rows = sum(facts["rows"] for facts in manifest["tables"].values())
        spent = 0.0 if how == route.CARRIED else manifest["seconds"] + gate.get("seconds", 0.0)
        work += spent
        verdict = gate.get("verdict", "not judged")
        style = closing.VERDICTS.get(verdict, "red")
        took = "" if how == route.CARRIED else f"{spent:.1f}"
        table.add_row(step, how, f"[{style}]{verdict}[/{style}]", f"{rows:,}", took)
    console.print(table)
    console.print(
        f"{seconds:.0f} s in all; steps and gates {work:.0f} s, imports and "
        f"scheduling {max(0.0, seconds - work):.0f} s"
    )
    for name, value in facts(lake, as_of):
        console.print(f"  {name:16}  {value}", highlight=False, markup=False, soft_wrap=True)


def facts(lake: Any, as_of: datetime) -> list[tuple[str, str]]:
    """What a refresh changed: a name and a value each."""
    from jobs import io
    from jobs.refresh.changes import HEALED
    from tools import closing

    changes = lake.published("changes", as_of)
    counts = {row["what"]: row for row in io.read_arrow(changes.table("change_counts")).to_pylist()}
    hours = io.read_arrow(changes.table("intervals")).to_pylist()
    ordered = lake.published("recommendations", as_of)
    work = io.read_arrow(ordered.table("list_work")).to_pylist()[0]
    healed = sum(row["state"] == HEALED for row in hours)
    received, late = (sum(row[name] for row in hours) for name in ("events", "late"))
    found = [
        (
            what,
            f"{row['touched']:,} of {row['known']:,} touched ({row['share']:.1%}), "
            f"{row['due']:,} due",
        )
        for what, row in counts.items()
    ]
    found.append((
        "lists", f"of {work['anew']:,} people made anew; of {work['filled']:,} only "
        f"{ordered.manifest['notes']['places_lost']:,} places taken out and filled; of "
        f"{work['untouched']:,} ({work['untouched'] / work['known']:.1%}) untouched",
    ))  # fmt: skip
    found.append((
        "since the night", f"{received:,} events received in {len(hours)} hours"
        + (f", {healed} of them missed and healed" if healed else "")
        + (f", {late:,} events delivered late" if late else ""),
    ))  # fmt: skip
    released = closing.current(lake)
    if released is not None:
        found.append(("release", f"{released[0]} in {released[1]}"))
    return found


if __name__ == "__main__":
    sys.exit(main())
