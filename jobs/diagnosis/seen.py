"""Which places the page showed, as far as the log says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis import clusters


def shown(rows: pa.Table) -> np.ndarray:
    """(n,) bool whether the page showed each place of ``served``.

    A surface that in a period never says what it showed (mail, a feed) is taken to have shown all,
    whatever other surfaces say. ``rows``: with surface, period, shown_position.
    """
    told = pc.is_valid(rows["shown_position"]).to_numpy()
    surface, _ = clusters.codes(rows["surface"])
    period, periods = clusters.codes(rows["period"])
    cell = surface.astype(np.int64) * max(len(periods), 1) + period
    says = np.bincount(cell, told) > 0
    return told | ~says[cell]
