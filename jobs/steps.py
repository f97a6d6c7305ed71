"""The steps of a night, a refresh and the diagnosis in their order: which module does the work.

The DAGs draw the same steps; a test holds the two together.
"""

from __future__ import annotations

import importlib
from types import ModuleType

STEPS: dict[str, str] = {
    "source": "jobs.sources.source",
    "events": "jobs.signals.events",
    "catalogue": "jobs.signals.catalogue",
    "identities": "jobs.signals.identities",
    "sessions": "jobs.signals.sessions",
    "interactions": "jobs.signals.interactions",
    "audits": "jobs.signals.audits.audits",
    "embeddings": "jobs.retrieval.embeddings",
    "content_embeddings": "jobs.retrieval.content_embeddings",
    "index": "jobs.retrieval.index",
    "candidates": "jobs.retrieval.candidates",
    "filters": "jobs.filtering.filters",
    "examples": "jobs.scoring.examples",
    "ranker": "jobs.scoring.ranker",
    "recommendations": "jobs.ordering.recommendations",
    "item_lists": "jobs.ordering.item_lists",
    "release": "jobs.release.release",
}
# What only a refresh does; which of the night's steps it does, and how: jobs/refresh/route.py.
REFRESH: dict[str, str] = {"changes": "jobs.refresh.changes"}
# The daily diagnosis, over what of the night's steps it needs.
DIAGNOSIS: dict[str, str] = {
    "definitions": "jobs.diagnosis.definitions",
    "served": "jobs.diagnosis.log.served",
    "kpis": "jobs.diagnosis.kpis.kpis",
    "replay": "jobs.diagnosis.replay.replay",
    "parity": "jobs.diagnosis.parity.parity",
    "drift": "jobs.diagnosis.parity.drift",
    "leakage": "jobs.diagnosis.parity.leakage",
    "labels": "jobs.diagnosis.labels.labels",
    "decisioning": "jobs.diagnosis.decisions.decisioning",
    "slices": "jobs.diagnosis.decisions.slices",
    "off_policy": "jobs.diagnosis.policies.off_policy",
    "experiments": "jobs.diagnosis.experiments.experiments",
    "adoption": "jobs.diagnosis.log.adoption",
    "shadow": "jobs.diagnosis.shadow",
    "verdict": "jobs.diagnosis.verdict",
}
BEFORE_DIAGNOSIS = ("source", "events", "catalogue")
EVERY = STEPS | REFRESH | DIAGNOSIS


def module(step: str) -> ModuleType:
    """The job module of a step: it has ``Params`` and ``run(night, params)``, or where a refresh
    goes on from its base ``refresh(night, params)``."""
    return importlib.import_module(EVERY[step])
