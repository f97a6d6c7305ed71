"""Published inputs of kpis and experiments, written by hand: what a test leaves out is dull."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pyarrow as pa

from jobs import io, tables
from jobs.io import Lake
from tests.conftest import AS_OF
from tests.expectations import good

TODAY = AS_OF.date() - timedelta(days=1)
AGREED: dict[str, Any] = {
    "kpi": "revenue_per_session",
    "model_metric": {"name": "ndcg", "at": 10},
    "label": {"event": "purchase", "attribution": "request", "within_hours": 72,
              "maturity_days": 7, "returns": "subtract"},
    "decision": {"threshold": None, "capacity": 20, "value_of_hit": 1.0, "cost_of_show": 0.02},
    "segments": ["region", "category"],
    "baseline": "fallback",
    "guardrails": [],
    "experiments": [],
}  # fmt: skip
PLACE = {
    "request_time": AS_OF - timedelta(hours=9), "day": TODAY, "period": "current", "mature": True,
    "surface": "home", "key_type": "account", "key": "k", "region": "north", "segment": "s",
    "tenure": "long", "position": 1, "category": "c", "release_id": "r", "published": True,
    "clicked": False, "bought": False, "value": 0.0, "returned": False, "channel": "web",
}  # fmt: skip
VISIT = {
    "day": TODAY, "period": "current", "experiment": "", "arm": "", "key_type": "account",
    "region": "north", "segment": "s", "tenure": "long", "requests": 1, "clicks": 0, "orders": 0,
    "revenue": 0.0, "attributed": 0.0, "before_value": 0.0, "returning": False,
}  # fmt: skip


def served(rows: list[dict[str, Any]] | dict[str, Any]) -> pa.Table:
    return _with(PLACE, "served", rows)


def visits(rows: list[dict[str, Any]] | dict[str, Any]) -> pa.Table:
    return _with(VISIT, "visits", rows)


def published(lake: Lake, agreed: dict[str, Any], items: int, **found: pa.Table) -> Lake:
    """The lake with these tables published, the definitions and a catalogue of so many items."""
    found.setdefault("events", tables.TABLES["events"].schema.empty_table())
    found["definitions"] = good.table("definitions", [
        {"name": name, "value": json.dumps(value)} for name, value in agreed.items()
    ])  # fmt: skip
    found["items"] = good.table("items", [
        {"item_id": f"i{n}", "position": n, "available": True, "flags": []} for n in range(items)
    ])  # fmt: skip
    for step in {tables.TABLES[name].step for name in found}:
        for table in tables.of_step(step):
            rows = found.get(table.name, table.schema.empty_table())
            io.write_arrow(lake.staged(step, AS_OF) / table.name, rows)
        lake.publish(step, AS_OF, "one")
    return lake


def _with(
    usual: dict[str, Any], name: str, rows: list[dict[str, Any]] | dict[str, Any]
) -> pa.Table:
    if isinstance(rows, dict):
        return good.table(name, usual | rows)
    return good.table(name, [usual | row for row in rows])
