"""The steps of a night in their order, and those of a refresh: which module does the work.

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
EVERY = STEPS | REFRESH


def module(step: str) -> ModuleType:
    """The job module of a step: it has ``Params`` and ``run(night, params)``, or where a refresh
    goes on from its base ``refresh(night, params)``."""
    return importlib.import_module(EVERY[step])
