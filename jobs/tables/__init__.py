"""Every table between the steps: its step, grain, key and columns.

A name here is the name everywhere: folder, task, suite and log. Types are Arrow's, since both
Spark and the numeric core read them; a column is nullable only where it says so.
"""

from __future__ import annotations

from jobs.tables import of_diagnosis, of_ordering, of_retrieval, of_signals
from jobs.tables.form import (
    BELOW,
    BOOL,
    DATE,
    EVENT_TYPES,
    F64,
    FEATURES,
    I64,
    SOURCES,
    TIME,
    S,
    Table,
)
from jobs.tables.of_diagnosis import SYMPTOM

__all__ = [
    "BELOW", "BOOL", "DATE", "EVENT_TYPES", "F64", "FEATURES", "I64", "SOURCES", "SYMPTOM",
    "TABLES", "TIME", "S", "Table", "of_step",
]  # fmt: skip

# In the order of the route.
TABLES: dict[str, Table] = (
    of_signals.TABLES | of_retrieval.TABLES | of_ordering.TABLES | of_diagnosis.TABLES
)


def of_step(step: str) -> list[Table]:
    """The tables that a step writes, in the order they are declared."""
    return [table for table in TABLES.values() if table.step == step]
