"""
# Nightly: raw events to a gated, published release

One night reads everything that the source had **received before its run date** and ends with a
release that serving reads. Each job stages its tables; the gate behind it judges them; only a
green gate publishes, so a step never reads what was not judged.

**The run date** (`as_of`, an exclusive UTC instant) is the trigger's `as_of`; without one, the
day after the run's partition key; without that, midnight of the moment the run was due. The
night of 2 December reads up to the end of 1 December.

## A red gate
The gate's task fails and is not retried; what follows it does not run, nothing is published, and
**last night's release still serves**. The task's log names the failing expectation, the number of
rows and where sample rows are kept (`evidence/<run date>/<step>/` in the lake; `make docs` makes
pages of it). When the source is mended, or the parameter that caused it is set right, clear the
failed step's *job* with its downstream tasks: Airflow takes the set-up along. Starting a new run
of the same date does the same from the first step, and replaces that date's tables.

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
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

from airflow.sdk import (
    DAG,
    Asset,
    Connection,
    CronTriggerTimetable,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    TaskGroup,
    Variable,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

# The same code on the same input fails again in the same way: these are never retried.
BUGS: list[type[BaseException] | str] = [
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
    TypeError, ValueError,
]  # fmt: skip
RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "retry_policy": ExceptionRetryPolicy(
        rules=[RetryRule(exception=BUGS, action=RetryAction.FAIL)]
    ),
    "execution_timeout": timedelta(hours=2),
}
NEVER_AGAIN: dict[str, Any] = {"retries": 0, "execution_timeout": timedelta(hours=1)}


def run_date(params: dict[str, Any], dag_run: Any) -> str:
    """The run's date as ISO text: ``params.as_of``, else the day after the partition key, else
    midnight UTC of ``run_after``."""
    if params.get("as_of"):
        return str(params["as_of"])
    key = getattr(dag_run, "partition_key", None)
    if key:
        return (datetime.fromisoformat(key) + timedelta(days=1)).date().isoformat()
    return dag_run.run_after.astimezone(UTC).date().isoformat()


def command_line(verb: str, *step: str) -> list[str]:
    """The arguments of ``python -m jobs`` for a task of the current run."""
    context = get_current_context()
    params, run = context["params"], context["dag_run"]
    line = [verb, *step, f"--as-of={run_date(params, run)}", f"--run-id={run.run_id}"]
    for option in ("lake", "source"):
        value = params.get(option) or Variable.get(f"nightjar_{option}", default=None)
        if value:
            line.append(f"--{option}={value}")
    if params.get("params"):
        line.append(f"--params={json.dumps(params['params'])}")
    return line


def spark_options() -> list[str]:
    """Master and settings of the connection ``nightjar_spark``; nothing where it is absent."""
    found = connection("nightjar_spark")
    if found is None:
        return []
    master = found.host or "local[*]"
    if not master.startswith("local"):
        master = master if "://" in master else f"spark://{master}"
        master = f"{master}:{found.port}" if found.port else master
    settings = found.extra_dejson.get("conf", {})
    return [f"--master={master}", *(f"--conf={name}={value}" for name, value in settings.items())]


def redis_options(step: str) -> list[str]:
    """Where the release also goes: the connection ``nightjar_redis``, if there is one."""
    found = connection("nightjar_redis") if step == "release" else None
    if found is None:
        return []
    login = f"{quote(found.login or '')}:{quote(found.password)}@" if found.password else ""
    return [f"--redis-url=redis://{login}{found.host}:{found.port or 6379}/{found.schema or 0}"]


def connection(name: str) -> Connection | None:
    try:
        return Connection.get(name)
    except AirflowNotFoundException:
        return None


def call(line: list[str]) -> None:
    """Run the jobs' command line; a fault fails the task for good, with the fault's own words."""
    from jobs.__main__ import command
    from jobs.errors import Fault

    try:
        command(line)
    except Fault as fault:
        raise AirflowFailException(str(fault)) from None


@task(**RETRIES)
def open_night() -> None:
    """Check the parameters, take the lake for this run, start the engine."""
    call([*command_line("open-night"), *spark_options()])


@task(**RETRIES)
def run_step(step: str) -> None:
    """Do a step's work and stage its tables."""
    call([*command_line("run", step), *redis_options(step)])


def judged(step: str) -> Asset:
    """What a green gate announces: this step's tables of the lake are new."""
    return Asset(name=f"nightjar/{step}", uri=f"nightjar://lake/{step}")


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
    dag_id="nightly",
    description="Raw events to a gated, published release of recommendations",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2010, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["nightjar"],
    params={
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Run date (as_of)",
            description="Read only what had been received before this date, 00:00 UTC. Empty: "
            "midnight of the day the run is due.",
        ),
        "source": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="Source",
            description="completejourney, online_retail, retailrocket, or a folder in the source "
            "contract. Empty: the Variable nightjar_source, else completejourney.",
        ),
        "lake": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="Lake",
            description="The folder of tables and releases. Empty: the Variable nightjar_lake, "
            "else the environment's NIGHTJAR_LAKE, else var/lake.",
        ),
        "params": Param(
            {},
            type="object",
            additionalProperties={"type": "object"},
            title="Parameters of the jobs",
            description='Overrides for this run, by step: {"candidates": {"depth": 200}}. An '
            "unknown step or parameter fails the run's first task with the names there are.",
        ),
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
        interactions = step("interactions", reads=[sessions, catalogue])
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
