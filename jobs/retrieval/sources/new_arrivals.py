"""New arrivals: items that the catalogue has had for a few weeks at most."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import tables
from jobs.retrieval.sources.interest import Interest

NAME = "new_arrivals"
SECONDS_PER_DAY = 86_400.0


def newness(items: pa.Table, as_of: datetime, arrival_days: int) -> np.ndarray:
    """(n_items,) float64: 1 for an item that came just now, down to 0 after ``arrival_days``; NaN
    for older and unavailable ones. ``items``: created_time, first_seen and available, null where
    the instant does not know the item."""
    born = pc.coalesce(items["created_time"], items["first_seen"]).cast(tables.TIME)
    ago = pc.subtract(pa.scalar(as_of, tables.TIME), born).cast(pa.int64()).cast(pa.float64())
    days = ago.to_numpy() / 1e6 / SECONDS_PER_DAY  # NaN where nothing says when it came
    new = (days < arrival_days) & pc.fill_null(items["available"], False).to_numpy()
    return np.where(new, 1.0 - days / arrival_days, np.nan)


def scores(counted: Interest, newness: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) context, item and score of arrivals, best-selling first, then newest; for everybody
    (context 0) those that nobody chose yet stand behind."""
    arrived = ~np.isnan(newness)
    rows = np.flatnonzero(arrived[counted.item])
    unsold = arrived.copy()
    unsold[counted.item[counted.context == 0]] = False
    idle = np.flatnonzero(unsold)
    context = np.r_[np.zeros(len(idle), np.int64), counted.context[rows]]
    item = np.r_[idle, counted.item[rows]]
    sold = np.r_[np.zeros(len(idle)), counted.popularity[rows]]
    return context, item, sold + 1e-3 * newness[item]
