"""Collaborative: the items whose vectors a person's vector agrees with most, of those allowed.

The search is exact: what is not allowed is left out before the best are taken. The night allows
everything here, and takes what a person may not get out of what was named.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs.filtering.allowed import Allowed
from jobs.retrieval import exact
from jobs.retrieval.matrix import candidate_rows

NAME = "collaborative"


def top_items(
    person_ids: pa.StringArray,
    person_vectors: np.ndarray,
    item_ids: pa.StringArray,
    item_vectors: np.ndarray,
    allowed: Allowed,
    depth: int,
) -> pa.Table:
    """Each person's ``depth`` items of largest inner product, in the columns of ``candidates``.

    ``person_vectors``: (n_people, dim) float32; ``item_vectors``: (n_items, dim) float32;
    ``allowed``: what each of these people may get of these items.
    """
    nominated = exact.best(person_vectors, item_vectors, allowed, depth)
    return candidate_rows(NAME, nominated, person_ids, item_ids)
