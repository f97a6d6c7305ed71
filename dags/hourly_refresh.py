"""
# Hourly refresh: what changed since the night, in a release of its own

A refresh goes on from its **base**, the newest release of the newest night, and ends with a
release in which only what changed is changed: the lists of people who did something (from all
they ever did, not from the last hour alone) on surfaces of an hourly cadence, the lists that hold
an item which may not be shown any more, the vectors and the index of new items, the pools of
trending items, and every filter. A recalled item is out of everything within one refresh. The
table `ladder` says who was made anew, and why; lists that are older than their tier of activity
allows are, where nights failed.

The model, its evidence and the audits are the night's. **The run date** (`as_of`, an exclusive
UTC instant) is the trigger's, else the last full hour. Hours that were missed need no backfill: a
refresh reads whatever the source holds that its base did not know, and the table `intervals` says
which hours it healed.

## A red gate, a failed job
Nothing of the stage is published, and the release before it serves. The next hour's refresh starts
from the same base again and catches up, so that nothing needs to be cleared. To do an hour again,
clear the run from its first task: a stage alone is refused where the base is another one by then.

## Rebuilt by a night
What only a night can mend is handed to one: where parameters that shape what is learnt were
changed since, or the vectors are of another space than the index, the refresh fails and `rebuild`
triggers `nightly` with this run's source, lake and parameters, once a date. The reason is in the
`conf` of the triggered run under `rebuild`.

## Beside the night
A lake belongs to one run at a time. A refresh that finds the night at work is skipped, and a
night that finds a refresh at work waits for it. Where there is no night to go on from, a refresh
is refused: run `nightly`.
Parameters of lists (`filters`, `candidates`, `recommendations`, `item_lists`) may change by the
hour; all lists are then made anew, which takes longer.

## Stages
One task each, to pay for one start of Python a stage: within it every step's job is followed by
its gate, as in the night. `nightly` has the pictures of the steps and the places of lake, source,
engine and Redis, and who is told of a failure.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from nightjar_alerts import tell_failure, tell_recovery
from nightjar_tasks import (
    EVERY_DAG,
    HOURLY,
    NEVER_AGAIN,
    NIGHT_NEEDED,
    NIGHTLY,
    RETRIES,
    call,
    command_line,
    judged,
    params_of_run,
    redis_options,
    run_date,
    spark_options,
)

# In the order of a refresh; jobs/refresh/route.py says what each does, a test that both agree.
STAGES: dict[str, tuple[str, ...]] = {
    "signals": (
        "source", "events", "catalogue", "identities", "sessions", "interactions", "filters",
        "changes",
    ),
    "retrieval": ("content_embeddings", "embeddings", "index", "candidates"),
    "ordering": ("recommendations", "item_lists"),
    "release": ("release",),
}  # fmt: skip


@task(**RETRIES)
def open_refresh() -> None:
    """Take the lake and choose the base; skipped where the night is at work."""
    from jobs.errors import Busy

    try:
        call([*command_line("open-refresh"), *spark_options()])
    except Busy as busy:
        raise AirflowSkipException(str(busy)) from None


@task(**RETRIES)
def run_stage(stage: str, *, outlet_events: Any = None) -> None:
    """Do each step of a stage and judge it; the first red gate ends the refresh."""
    for step in STAGES[stage]:
        call([*command_line("run", step), *redis_options(step)])
        call([*command_line("gate", step), *redis_options(step)])
    if stage == "release":
        context = get_current_context()
        run = run_date(context["params"], context["dag_run"], hourly=True)
        outlet_events[judged("release")].extra = {"as_of": run}


@task(**NEVER_AGAIN, trigger_rule="one_failed")
def night_needed() -> dict[str, Any]:
    """What the night is triggered with that mends what failed; skipped where none would."""
    context = get_current_context()
    params = context["params"]
    reasons = context["ti"].xcom_pull(task_ids=["open_refresh", "retrieval"], key=NIGHT_NEEDED)
    found = next((reason for reason in reasons if reason), None)
    if found is None:
        raise AirflowSkipException("what failed is not for a night to mend; see the failed task")
    given = {name: params[name] for name in ("source", "lake", "params") if params.get(name)}
    date = run_date(params, context["dag_run"], hourly=True)[:10]
    return {"as_of": date, **given, "rebuild": found}


@task(**NEVER_AGAIN)
def close_refresh() -> None:
    """End the engine and let the lake go, whatever happened before."""
    call(command_line("close-night"))


with DAG(
    dag_id=HOURLY,
    description="What changed since the night, in a gated release of its own",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("5 * * * *", timezone="UTC"),
    **EVERY_DAG,
    on_failure_callback=tell_failure,
    on_success_callback=tell_recovery,
    params={
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Run date (as_of)",
            description="Read only what had been received before this instant, UTC: "
            "2017-12-01T06:00:00Z. Empty: the last full hour before the run is due.",
        ),
        **params_of_run(),
    },
) as hourly_refresh:
    opened = open_refresh()
    stages = [
        run_stage.override(task_id=stage, outlets=[judged(stage)] if stage == "release" else [])(
            stage
        )
        for stage in STAGES
    ]
    closed = close_refresh().as_teardown(setups=opened)
    before = opened
    for each in stages:
        before >> each
        before = each
    stages >> closed
    needed = night_needed()
    # Fails or is left out with each task that can say so.
    stages[list(STAGES).index("retrieval")] >> needed
    needed >> TriggerDagRunOperator(
        task_id="rebuild",
        trigger_dag_id=NIGHTLY,
        # One a date: a night that fails is for people, not for the next hour to begin again.
        trigger_run_id="rebuild__{{ ti.xcom_pull(task_ids='night_needed')['as_of'] }}",
        conf="{{ ti.xcom_pull(task_ids='night_needed') | tojson }}",  # type: ignore[arg-type]
        skip_when_already_exists=True,
        fail_when_dag_is_paused=True,
        retries=0,
    )
