"""
# Retrain: a night of its own, unless what it would learn from is in doubt

A model that is trained on features which are not what is served, or on lists that nobody was
shown, learns the fault. So this DAG reads the lake's newest **verdict** (of `diagnose`) first:

* its gates `replay` and `parity` are go and saw enough, and it is not older than `max_age_days`:
  the night of the run date is triggered at once;
* one of them is no-go or saw too little, the verdict is older, a later diagnosis stopped at a red
  gate, or there is none: a person has to
  **approve** it, with a reason, in the UI under *Required Actions*, within four hours. Rejected, or
  left alone, this run fails and no night is triggered.

Who approved it when, why, and against which verdict, is kept in the lake as
`approvals/<run>.json`, and in the `conf` of the triggered run under `retrain`.

## What is trained
What a run of `nightly` trains: the ranker, its blend and its calibration from nothing, on examples
that are made anew, and the vectors of content. The collaborative vectors go on from those of the
night before, everybody's and those of the items that changed, which keeps them comparable; they are
fitted from nothing only where the parameters of `embeddings` change, so change one of them (say
`{"embeddings": {"confidence": 3.9}}`) here *and* in the nights that follow, where the old space
itself is to go.

## Red
`approved` red: rejected, nobody answered in time, or the reason has fewer than ten characters.
`recorded` red: approved without a reason. Trigger the DAG again. `night` red: `nightly` is paused,
or gone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from nightjar_tasks import (
    EVERY_DAG,
    NEVER_AGAIN,
    NIGHTLY,
    as_of_param,
    lake_of,
    params_of_run,
    run_date,
)

LONGEST_WAIT = timedelta(hours=4)
SHORTEST_REASON = 10  # characters; "ok" is none


@task.branch(**NEVER_AGAIN)
def read_verdict() -> str:
    """Whether a person has to be asked, and why."""
    from jobs import incidents, io
    from jobs.diagnosis import verdicts

    context = get_current_context()
    params = context["params"]
    lake, limit = lake_of(params), timedelta(days=params["max_age_days"])
    verdict = verdicts.newest(lake)
    if verdict is None:
        doubts = [f"No verdict is published in {lake.root}: run `diagnose` first."]
        facts = None
    else:
        doubts = verdict.untrusted()
        lies = verdict.age(io.parse_as_of(run_date(params, context["dag_run"])))
        if lies > limit:
            doubts.append(
                f"The newest verdict is of {verdict.label}, {lies.days} days before the run date."
            )
        doubts += [
            f"The diagnosis of {label} stopped at a red gate and reached no verdict: {step}."
            for label, step in incidents.unfinished(lake, verdict)
        ]
        facts = {
            "as_of": verdict.label,
            "name": verdict.name,
            "go": {gate["gate"]: gate["go"] for gate in verdict.gates},
        }
    context["ti"].xcom_push("found", {"doubts": doubts, "verdict": facts})
    return "approved" if doubts else "recorded"


# Behind the branch or behind an approval, never behind one that was not given.
@task(**NEVER_AGAIN, trigger_rule="none_failed_min_one_success")
def record() -> dict[str, Any]:
    """Keep who approved it and why; returns what the night is triggered with."""
    from jobs import io

    context = get_current_context()
    params, run = context["params"], context["dag_run"]
    found = context["ti"].xcom_pull(task_ids="verdict", key="found")
    answer = context["ti"].xcom_pull(task_ids="approved")
    kept = {"run": run.run_id, **found, "approval": None}
    if answer is not None:
        reason = (answer["params_input"].get("reason") or "").strip()
        if len(reason) < SHORTEST_REASON:
            raise AirflowFailException("approved without a reason; trigger the DAG again")
        user = answer["responded_by_user"]
        kept["approval"] = {
            "by": user["name"],
            "id": user["id"],
            "at": str(answer["responded_at"]),
            "reason": reason,
        }
        io.write_json(lake_of(params).root / "approvals" / f"{run.run_id}.json", kept)
    given = {name: params[name] for name in ("source", "lake", "params") if params.get(name)}
    return {"as_of": run_date(params, run), **given, "retrain": kept}


with DAG(
    dag_id="retrain",
    description="Train anew, unless replay or parity is red and nobody vouches for it",
    doc_md=__doc__,
    schedule=None,
    **EVERY_DAG,
    params={
        "as_of": as_of_param("Train on what had been received", due="midnight of today"),
        "max_age_days": Param(
            3,
            type="number",
            minimum=0,
            title="Oldest verdict",
            description="Days before the run date; an older verdict says nothing, and a person "
            "has to.",
        ),
        **params_of_run(),
    },
) as retrain:
    verdict = read_verdict.override(task_id="verdict")()
    approved = ApprovalOperator(
        task_id="approved",
        subject="Retrain although the verdict does not vouch for what is learned from?",
        body="{{ ti.xcom_pull(task_ids='verdict', key='found')['doubts'] | join('\n\n') }}",
        params={
            "reason": Param(
                # Not a string alone: the empty form itself must fit, or the task cannot start.
                None,
                type=["null", "string"],
                minLength=SHORTEST_REASON,
                title="Reason (required)",
                description="Why it is right to train now, in ten characters or more; it is kept "
                "with your name. An approval without a reason triggers nothing.",
            ),
        },
        response_timeout=LONGEST_WAIT,
        fail_on_reject=True,
        retries=0,
    )
    recorded = record.override(task_id="recorded")()
    night = TriggerDagRunOperator(
        task_id="night",
        trigger_dag_id=NIGHTLY,
        conf="{{ ti.xcom_pull(task_ids='recorded') | tojson }}",  # type: ignore[arg-type]
        fail_when_dag_is_paused=True,
        retries=0,
    )
    verdict >> [approved, recorded]
    approved >> recorded >> night
