"""
# Diagnose: data, model or system?

What was served, what came of it, and which of the three is broken where the offline number is good
and the business number is not. It reads the recommendation log, the outcomes received **before its
run date** and the releases that the log names, and ends with a **verdict**: five gates in order
(measurement, replay, parity, decisioning, adoption). The first that is not go says whether to fix
data, model or system, and what to do next. The evidence is a page in the lake's `docs`.

**The run date** (`as_of`, an exclusive UTC instant) is the trigger's, else midnight of the day the
run is due: that of the night before, whose signals it then uses. What is not there yet of source,
events and catalogue, it makes.

## Red: a no-go
The task `judged` fails with the first gate's evidence, what to mend and where the page lies. All
tables of the diagnosis are published; the red run is the message. Nothing is
retried: mend it, and look at the next day's run. A release is not taken back by it; that is
`make rollback`.

## Red: a gate
`definitions` is red where the metrics file is missing, incomplete or contradicts itself: no step
after it runs, since nobody can say whether a business goes well that has not said what well is.
The log and the page list every fault of the file. Mend it and clear the task with its downstream
ones. Any other red gate means that a step wrote what it must not: the log names the expectation.

## A failed job
Faults of the machine are retried twice, bad input and faults of the code are not. No log of
recommendations, or none in the days that are looked at, fails `served` with that sentence. While a
night or a refresh holds the lake, `open_diagnosis` waits and tries again every ten minutes for
three hours.

## Doing days again
Trigger it with their `as_of`, from old to new, since the ledger goes on from the day before.

## Who is told
A failed run, a no-go, and a sudden fall of conversion, revenue, coverage or volume even where all
gates are go: see `nightjar_alerts.py`. `retrain` reads the verdict before it trains.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from nightjar_alerts import link_to, tell, tell_failure
from nightjar_tasks import (
    EVERY_DAG,
    NEVER_AGAIN,
    RETRIES,
    address_of,
    as_of_param,
    call,
    command_line,
    judged,
    label_of,
    lake_of,
    params_of_run,
    spark_options,
)

logger = logging.getLogger("nightjar")
# A test holds these to jobs.steps: what the diagnosis needs of a night, and its own steps.
SIGNALS = ("source", "events", "catalogue")
LOG = ("definitions", "served")
FINDERS = (
    "kpis", "replay", "parity", "drift", "leakage", "labels", "decisioning", "slices",
    "off_policy", "experiments", "adoption", "shadow",
)  # fmt: skip
# Each looks at millions of rows on the same machine: more at a time would share its memory.
AT_A_TIME = 2
# A night takes hours, and is at work until it is done.
PATIENT: dict[str, Any] = {
    **RETRIES,
    "retries": 18,
    "retry_delay": timedelta(minutes=10),
    "retry_exponential_backoff": False,
    "max_retry_delay": None,
}


@task(**PATIENT)
def open_diagnosis() -> None:
    """Check the parameters, take the lake, start the engine; waits while another run holds it."""
    call([*command_line("open-night"), *spark_options()])


@task(**RETRIES)
def ensure(step: str) -> None:
    """Do and judge a step of the night that is not published for the run date."""
    call(command_line("ensure", step))


@task(**RETRIES)
def run_and_judge(step: str, *, outlet_events: Any = None) -> None:
    """Do a step of the diagnosis and judge it."""
    call(command_line("run", step))
    call(command_line("gate", step))
    if step == "verdict":
        context = get_current_context()
        verdict = _verdict(context)
        outlet_events[judged(step)].extra = {"as_of": verdict.label, "verdict": verdict.name}


# Behind a red gate, too: its page says where the run stopped, and why.
@task(**RETRIES, trigger_rule="all_done")
def build_page() -> None:
    """Write the page of what this run judged; skipped where it judged nothing."""
    from jobs import io, steps
    from jobs.pages import docs

    context = get_current_context()
    lake, label, run_id = lake_of(context["params"]), label_of(context), context["run_id"]
    evidence = [lake.evidence(step, io.parse_as_of(label), run_id) for step in steps.EVERY]
    if not any(path.is_file() for path in evidence):
        raise AirflowSkipException("this run judged nothing")
    docs.build_one(lake, label, lake.root / "docs", link=address_of(context))


@task(**NEVER_AGAIN)
def judge_verdict() -> None:
    """Tell of what is wrong; fail where a gate is no-go."""
    from jobs import incidents

    context = get_current_context()
    verdict = _verdict(context)
    found = incidents.of_diagnosis(lake_of(context["params"]), verdict.label, verdict.run_id)
    tell(context, found, over=True)
    page = link_to(context, verdict.page)
    if verdict.failed:
        raise AirflowFailException(f"{verdict.why()} The page: {page}")
    logger.info("%s The page: %s", verdict.why(), page)


@task(**NEVER_AGAIN)
def close_diagnosis() -> None:
    """End the engine and let the lake go, whatever happened before."""
    call(command_line("close-night"))


def _verdict(context: Any) -> Any:
    from jobs.diagnosis import verdicts

    return verdicts.of(lake_of(context["params"]), label_of(context))


with DAG(
    dag_id="diagnose",
    description="Data, model or system: what is broken, and what to do about it",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("30 6 * * *", timezone="UTC"),
    **EVERY_DAG,
    max_active_tasks=AT_A_TIME,
    on_failure_callback=tell_failure,
    params={
        "as_of": as_of_param("Look at what was served, and had been received,"),
        "metrics": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="Metrics file",
            description="Where the team's definitions of KPI, label and costs lie. Empty: "
            "metrics.yaml in the source's folder.",
        ),
        **params_of_run(),
    },
) as diagnose:
    opened = open_diagnosis()

    with TaskGroup("signals", tooltip="What the night before has published already, or not"):
        signals = [ensure.override(task_id=step)(step) for step in SIGNALS]

    log = [run_and_judge.override(task_id=step)(step) for step in LOG]
    finders = [run_and_judge.override(task_id=step)(step) for step in FINDERS]
    verdict = run_and_judge.override(task_id="verdict", outlets=[judged("verdict")])("verdict")
    page = build_page.override(task_id="page")()
    judgement = judge_verdict.override(task_id="judged")()
    closed = close_diagnosis().as_teardown(setups=opened)

    before = opened
    for each in [*signals, *log]:
        before >> each
        before = each
    before >> finders >> verdict
    # A worst miss is told with whether a feature that leaked drives it.
    finders[FINDERS.index("leakage")] >> finders[FINDERS.index("slices")]
    # Behind every step, since one may fail while another is still at work. The page and the
    # judgement need neither the engine nor the lake for themselves.
    [*signals, *log, *finders, verdict] >> page
    [*signals, *log, *finders, verdict] >> closed
    [verdict, page] >> judgement
