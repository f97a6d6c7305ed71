"""Small pasts from rows of (person, item, type, days ago, and more), for the tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.retrieval import matrix
from jobs.signals import past
from jobs.signals.past import Past
from tests.conftest import AS_OF


def table(*rows: tuple, as_of: datetime = AS_OF) -> pa.Table:
    """Rows of ``history``: (person, item, type, days ago[, {column: value}])."""
    made: list[dict[str, Any]] = []
    for number, (person, item, kind, days, *more) in enumerate(rows):
        moment = as_of - timedelta(days=days)
        made.append({
            "event_id": f"e{number}", "person_id": person, "item_id": item, "event_type": kind,
            "event_time": moment, "received_time": moment, "session": f"{person}|{days}",
            "basket": f"{person}|{days}", "quantity": 1.0, "value": 2.0, "region": None,
            "channel": None, "event_date": moment.date(), "resolved_by": "key",
            "key_type": "account", "key": person, **(more[0] if more else {}),
        })  # fmt: skip
    from jobs.tables import TABLES

    return pa.Table.from_pylist(made, TABLES["history"].schema)


def past_of(*rows: tuple, people: list[str] | None = None, items: list[str] | None = None) -> Past:
    """The past of these rows; codes are places among the sorted ids, or among those given."""
    found = table(*rows)
    person_ids = pa.array(people or sorted({row[0] for row in rows}), pa.string())
    item_ids = pa.array(items or sorted({row[1] for row in rows}), pa.string())
    return past.arranged(
        found,
        matrix.positions(found["person_id"], person_ids),
        matrix.positions(found["item_id"], item_ids),
        len(person_ids),
        AS_OF,
    )


def equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    """Both have the same columns with the same values, to the last bit."""
    assert left.keys() == right.keys()
    for name, column in left.items():
        np.testing.assert_array_equal(column, right[name], err_msg=name)
