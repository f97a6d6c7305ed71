"""What the DAGs share: the jobs' command line as a task calls it, and when a fault is retried."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import (
    Asset,
    Connection,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    Variable,
    get_current_context,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

NIGHTLY, HOURLY = "nightly", "hourly_refresh"
NIGHT_NEEDED = "night_needed"
EVERY_DAG: dict[str, Any] = {
    "start_date": datetime(2010, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 1,
    "tags": ["nightjar"],
}
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


def run_date(params: dict[str, Any], dag_run: Any, hourly: bool = False) -> str:
    """The run's date as ISO text: ``params.as_of``, else the day after the partition key, else
    midnight UTC of ``run_after``; ``hourly``: its last full hour in place of these."""
    if params.get("as_of"):
        return str(params["as_of"])
    due = dag_run.run_after.astimezone(UTC)
    if hourly:
        return due.replace(minute=0, second=0, microsecond=0).isoformat()
    key = getattr(dag_run, "partition_key", None)
    if key:
        return (datetime.fromisoformat(key) + timedelta(days=1)).date().isoformat()
    return due.date().isoformat()


def command_line(verb: str, *step: str) -> list[str]:
    """The arguments of ``python -m jobs`` for a task of the current run."""
    context = get_current_context()
    params, run = context["params"], context["dag_run"]
    as_of = run_date(params, run, hourly=context["dag"].dag_id == HOURLY)
    line = [verb, *step, f"--as-of={as_of}", f"--run-id={run.run_id}"]
    for option in ("lake", "source"):
        value = place(option, params)
        if value:
            line.append(f"--{option}={value}")
    overrides = overrides_of(params)
    if overrides:
        line.append(f"--params={json.dumps(overrides)}")
    return line


def place(option: str, params: dict[str, Any]) -> str | None:
    """The lake or the source: the trigger's, else the Variable's."""
    return params.get(option) or Variable.get(f"nightjar_{option}", default=None)


def overrides_of(params: dict[str, Any]) -> dict[str, Any]:
    """The trigger's ``params`` by step, with its ``metrics`` file in them."""
    overrides: dict[str, Any] = params.get("params") or {}
    if params.get("metrics"):
        own = {**overrides.get("definitions", {}), "file": params["metrics"]}
        overrides = {**overrides, "definitions": own}
    return overrides


def lake_of(params: dict[str, Any]) -> Any:
    """The lake that a run with these params uses."""
    from jobs.__main__ import DEFAULT_LAKE
    from jobs.io import Lake

    return Lake(place("lake", params) or os.environ.get("NIGHTJAR_LAKE") or DEFAULT_LAKE)


def label_of(context: Any) -> str:
    """The run date as the lake's paths write it."""
    from jobs import io

    hourly = context["dag"].dag_id == HOURLY
    return io.label(io.parse_as_of(run_date(context["params"], context["dag_run"], hourly=hourly)))


def address_of(context: Any) -> str:
    """The run in Airflow's UI; empty where no task of it is at hand."""
    task = context.get("ti")
    return task.log_url.rpartition("/tasks/")[0] if task is not None else ""


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
    """Run the jobs' command line; a fault fails the task for good, with the fault's own words, and
    one that only a night mends says so under ``NIGHT_NEEDED``."""
    from jobs.__main__ import command
    from jobs.errors import Busy, Fault, NightNeeded

    try:
        command(line)
    except Busy:
        raise  # whoever calls decides whether to wait, to skip or to fail
    except Fault as fault:
        if isinstance(fault, NightNeeded):
            get_current_context()["ti"].xcom_push(NIGHT_NEEDED, str(fault))
        raise AirflowFailException(str(fault)) from None


def judged(step: str) -> Asset:
    """What a green gate announces: this step's tables of the lake are new."""
    return Asset(name=f"nightjar/{step}", uri=f"nightjar://lake/{step}")


def as_of_param(words: str, due: str = "midnight of the day the run is due") -> Param:
    """A run date of whole days; ``words``: what it bounds, ``due``: what stands in for none."""
    return Param(
        None,
        type=["null", "string"],
        format="date",
        title="Run date (as_of)",
        description=f"{words} before this date, 00:00 UTC. Empty: {due}.",
    )


def params_of_run() -> dict[str, Param]:
    """The trigger's parameters that every DAG has."""
    return {
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
    }
