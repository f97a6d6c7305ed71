"""
# Nightly: raw events to a gated, published release

One night reads everything that the source had **received before its run date** and ends with a
release that serving reads. Where that will serve in place of a refresh that has read on, the
catalogue and the rules count as of that refresh: nothing comes back that it took out. Each job
stages its tables; the gate behind it judges them; only a green gate publishes, so a step never
reads what was not judged.

**The run date** (`as_of`, an exclusive UTC instant) is the trigger's `as_of`; without one, the
day after the run's partition key; without that, midnight of the moment the run was due. The
night of 2 December reads up to the end of 1 December.

## A red gate
The gate's task fails and is not retried; what follows it does not run, nothing is published, and
**last night's release still serves**. The task's log names the failing expectation, the number of
rows and where sample rows are kept (`evidence/<run date>/<step>/` in the lake; `make docs` makes
pages of it). When the source is mended, or the parameter that caused it is set right, clear the
failed step's *job* with its downstream tasks: Airflow takes the set-up along. Where refreshes have
read on since, the step says so: clear `catalogue` instead. Starting a new run of the same date does
the same from the first step, and replaces that date's tables.

## A failed job
Faults of the machine (a lost connection, a full queue) are retried twice with growing pauses.
Bad input and faults of the code are not: the log says what is wrong, where, and what to do.

## Doing nights again
Trigger a run with its `as_of`, or let Airflow fill a span, one night after the other, since each
starts from the model of the one before:
`airflow backfill create --dag-id nightly --from-date 2017-11-29 --to-date 2017-12-01T23:59:59
--max-active-runs 1 --reprocess-behavior completed`. A backfilled night has the rows of a single
one. To serve an earlier release: `make rollback`.

## Places
Variables `nightjar_lake` and `nightjar_source` name the lake and the source where the trigger
does not. Connection `nightjar_spark` names the engine: host `local[*]`, `spark://host:port` or
`sc://host:port`, Spark settings as `conf` in its extra field; without it Spark runs on the local
cores. Connection `nightjar_redis`, where it exists, receives the release too.

## Who is told
A night that fails is told, once until it is green again or a day has passed, to the connections
`nightjar_webhook` and `nightjar_smtp`, where they exist; `nightjar_alerts.py` says what they hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from airflow.sdk import (
    DAG,
    CronTriggerTimetable,
    TaskGroup,
    get_current_context,
    task,
)
from nightjar_alerts import tell_failure, tell_recovery
from nightjar_tasks import (
    EVERY_DAG,
    NEVER_AGAIN,
    NIGHTLY,
    RETRIES,
    as_of_param,
    call,
    command_line,
    judged,
    params_of_run,
    redis_options,
    run_date,
    spark_options,
)


@task(**RETRIES)
def open_night() -> None:
    """Check the parameters, take the lake for this run, start the engine."""
    call([*command_line("open-night"), *spark_options()])


@task(**RETRIES)
def run_step(step: str) -> None:
    """Do a step's work and stage its tables."""
    call([*command_line("run", step), *redis_options(step)])


@task(**NEVER_AGAIN)
def judge_step(step: str, *, outlet_events: Any = None) -> None:
    """Judge what the step staged; publish it when green, fail when not."""
    call([*command_line("gate", step), *redis_options(step)])
    context = get_current_context()
    outlet_events[judged(step)].extra = {"as_of": run_date(context["params"], context["dag_run"])}


@task(**NEVER_AGAIN)
def close_night() -> None:
    """End the engine and let the lake go, whatever happened before."""
    call(command_line("close-night"))


class Step(NamedTuple):
    """A job and the gate behind it; what reads the step's tables waits for the gate."""

    job: Any
    gate: Any


def step(name: str, *, reads: list[Step]) -> Step:
    """The two tasks of a step, behind the gates of the steps whose tables it reads."""
    job = run_step.override(task_id=name)(name)
    gate = judge_step.override(task_id=f"{name}_gate", outlets=[judged(name)])(name)
    job >> gate
    for read in reads:
        read.gate >> job
    return Step(job, gate)


with DAG(
    dag_id=NIGHTLY,
    description="Raw events to a gated, published release of recommendations",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    **EVERY_DAG,
    on_failure_callback=tell_failure,
    on_success_callback=tell_recovery,
    params={
        "as_of": as_of_param("Read only what had been received"),
        **params_of_run(),
    },
) as nightly:
    opened = open_night()

    with TaskGroup("sources", tooltip="Foreign formats to the source contract"):
        source = step("source", reads=[])

    with TaskGroup("signals", tooltip="What happened, to whom, and how much it says"):
        events = step("events", reads=[source])
        catalogue = step("catalogue", reads=[source, events])
        identities = step("identities", reads=[source, events])
        sessions = step("sessions", reads=[source, events, identities])
        interactions = step("interactions", reads=[identities, sessions, catalogue])
        with TaskGroup("audits", tooltip="Are the signals fresh, whole, kept to and in time?"):
            audits = step("audits", reads=[identities, catalogue, sessions, interactions])

    with TaskGroup("retrieval", tooltip="Vectors, their index, and candidates from every source"):
        embeddings = step("embeddings", reads=[interactions, audits])
        content_embeddings = step("content_embeddings", reads=[catalogue])
        index = step("index", reads=[embeddings, content_embeddings])
        candidates = step(
            "candidates",
            reads=[
                sessions,
                interactions,
                embeddings,
                content_embeddings,
                identities,
                catalogue,
            ],
        )

    with TaskGroup("filtering", tooltip="What may be shown where, and to whom not"):
        filters = step("filters", reads=[catalogue, identities, sessions])

    with TaskGroup("scoring", tooltip="What a person will buy, learned from earlier days"):
        examples = step(
            "examples", reads=[sessions, audits, identities, catalogue, content_embeddings]
        )
        ranker = step("ranker", reads=[examples])

    with TaskGroup(
        "ordering", tooltip="Lists of persons, of contexts and of items, for every surface"
    ):
        recommendations = step(
            "recommendations",
            reads=[
                source,
                events,
                catalogue,
                identities,
                sessions,
                embeddings,
                content_embeddings,
                candidates,
                filters,
                ranker,
            ],
        )
        item_lists = step(
            "item_lists",
            reads=[catalogue, sessions, interactions, embeddings, content_embeddings, filters],
        )

    with TaskGroup(
        "release", tooltip="The product: files first, manifest last, pointer by one step"
    ):
        release = step("release", reads=[index, recommendations, item_lists])

    steps = [
        source, events, catalogue, identities, sessions, interactions, audits, embeddings,
        content_embeddings, index, candidates, filters, examples, ranker, recommendations,
        item_lists, release,
    ]  # fmt: skip
    # A tear-down that could fail the run (on_failure_fail_dagrun) would be its only leaf, and a
    # night with a red gate would end green: the release's gate is the leaf that decides.
    closed = close_night().as_teardown(setups=opened)
    opened >> source.job
    # Behind every gate, not the last alone: a red gate fails the last one at once, while a job
    # beside it may still use the engine.
    [each.gate for each in steps] >> closed
