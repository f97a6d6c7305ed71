"""``make diagnose``: one run of the ``diagnose`` DAG in this process, and its verdict.

Reads AS_OF, SOURCE, METRICS, LAKE, PARAMS and MASTER from the environment. Without AS_OF it is the
run date of the lake's newest night: what is recommended since then was not answered yet. Without
SOURCE it is that night's.
Exit codes: 0 go, 3 no-go, 1 red gate or failed step (there is no verdict), 2 bad input, 130 stopped
by a signal.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools import airflow_home, night

NO_GO = 3
SYMPTOMS = 5  # that are told; the page has them all


def main() -> int:
    airflow_home.set_environment()
    from jobs.errors import Fault
    from tools import progress

    try:
        conf = trigger(os.environ)
        with airflow_home.alone("make diagnose"), night.signals():
            _free(night.lake_of(conf))
            return _diagnose(conf)
    except (night.BadInput, airflow_home.InUse, Fault) as unable:
        print(f"error: {unable}", file=sys.stderr)
        return 2
    except progress.Stopped:
        print("\nstopped; the engine is gone and there is no verdict", file=sys.stderr)
        return 130


def trigger(values: Mapping[str, str]) -> dict[str, Any]:
    """What the trigger form would hold.

    Raises ``BadInput`` for a value that cannot be read, and ``Fault`` where the lake holds no night
    to take the run date or the source from.
    """
    given = night.trigger({**values, "AS_OF": values.get("AS_OF") or "2000-01-01"})
    if values.get("METRICS"):
        path = Path(values["METRICS"]).expanduser().resolve()
        if not path.is_file():
            raise night.BadInput(f"METRICS: there is no file {path}")
        given["metrics"] = str(path)
    if not values.get("AS_OF"):
        given["as_of"] = f"{_newest(given).night:%Y-%m-%d}"
    if "source" not in given:
        given["source"] = _newest(given).manifest["source"]
    return given


def _newest(conf: Mapping[str, Any]) -> Any:
    """The newest release of the lake; what serves after a rollback is an older one."""
    from jobs.errors import Fault
    from jobs.release import releases

    lake = night.lake_of(conf)
    shelf = releases.readable(lake)
    if not shelf:
        raise Fault(
            f"{lake.root} holds no release, and so nothing was served from it; run nights with "
            "`make run` first, or give another LAKE"
        )
    return shelf[-1]


def _free(lake: Any) -> None:
    """Raise ``Busy`` where another run holds the lake: the DAG would wait for hours."""
    from jobs import lock

    mine = f"make-diagnose-{secrets.token_hex(4)}"
    lock.acquire(lake.open(), mine)
    lock.release(lake, mine)


def _diagnose(conf: dict[str, Any]) -> int:
    from rich.console import Console

    title = f"The diagnosis of {conf['as_of']}, source {conf['source']}"
    state, told = night.run("diagnose", conf, title)
    seconds = time.monotonic() - night.BEGAN
    from jobs.diagnosis import verdicts
    from tools import closing

    console, lake = Console(), night.lake_of(conf)
    verdict = verdicts.of(lake, conf["as_of"])
    if verdict is None or verdict.run_id != told.run_id:
        as_of = datetime.fromisoformat(conf["as_of"]).replace(tzinfo=UTC)
        closing.show_failed(console, lake, as_of, told.tasks)
        page = verdicts.page(lake, conf["as_of"])
        where = f"page: {page}" if page.is_file() else "nothing was judged"
        console.print(f"there is no verdict; {where}", highlight=False, soft_wrap=True)
        return 1
    show(console, verdict)
    console.print(f"{seconds:.0f} s in all", highlight=False)
    if verdict.failed:
        return NO_GO
    return 0 if state == "success" else 1


def show(console: Any, verdict: Any) -> None:
    """Print the gates, the first symptoms, where the page lies and what to do next."""
    from rich.table import Table
    from rich.text import Text

    from jobs.diagnosis import verdicts

    table = Table(title=f"The verdict of {verdict.label}: {verdict.name}", title_justify="left")
    for name in ("gate", "", "evidence"):
        table.add_column(name)
    for gate in verdict.gates:
        said = "[green]go[/green]" if gate["go"] else "[red]no-go[/red]"
        table.add_row(gate["gate"], said, Text(gate["evidence"]))
    console.print(table)

    def line(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    if verdict.symptoms:
        line(f"\nFirst of {len(verdict.symptoms)} findings:", "bold")
    for row in verdict.symptoms[:SYMPTOMS]:
        weight = "warning, " if row["warning"] else ""
        line(f"  {row['place']}. {verdicts.title(row)} ({weight}{row['subject']}, {row['step']})")
        line(f"     {row['sentence']}")
    failed = verdict.failed
    line(f"\n{failed['classified']}: {failed['action']}" if failed else "\nAll five gates are go.")
    line(f"page: {verdict.page}" if verdict.page.is_file() else "its page was not built")
    line("\nNext:", "bold")
    for text in _next(verdict):
        line(f"  {text}")


def _next(verdict: Any) -> list[str]:
    """Commands that serve now."""
    found = [
        "make docs       all pages of the lake",
        "make ui         Airflow's own UI, with this run in it, and retrain",
    ]
    if verdict.failed:
        step = verdict.first["step"]
        found = [
            f"make lineage TABLE={step}_symptoms       what the first finding comes from",
            "make rollback   serve an earlier release, where the newest is at fault",
            *found,
            "make diagnose   again, when it is mended",
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
