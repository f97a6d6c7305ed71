"""What a list that lost a few places is filled from: of a person's candidates those by which the
list comes out as it would from all of them, so that little is scored for a gap.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jobs.scoring import features
from jobs.scoring.features import Pairs
from jobs.tables import SOURCES

# A list that lost more than this share of its places is made of all candidates.
FEW = 0.25
# Of what may come into a gap, the nearest by the prior; a list made anew is ranked from 250.
NEAREST = 60


def worth_scoring(
    pairs: Pairs, near: np.ndarray, always: np.ndarray, lowered: np.ndarray, removed: np.ndarray,
    slots: Mapping[str, int], most: int = 0,
) -> np.ndarray:  # fmt: skip
    """(n_pairs,) bool: what is looked at to fill the lists of the people of these pairs.

    ``near``: (n_pairs,), by the prior; ``always``, ``lowered``, ``removed``: (n_pairs,) bool, what
    stands in the list or a rule or pin raises, what is demoted, and what a rule takes out, which
    stands in the model's list alone; ``slots``: places that are owed to sources; ``most``: how many
    places a list may have lost.

    Besides what is always looked at, so many of each of the three kinds, so that none takes
    another's room, and of every source that is owed places the best so many: the prior puts new
    arrivals behind everything that a person bought.
    """
    free = ~always & ~removed
    found = always.copy()
    for kind in (free & ~lowered, free & lowered, removed & ~always):
        found |= _best(pairs, kind, near, max(NEAREST, most))
    for source, count in slots.items():
        signal = pairs.signals[:, SOURCES.index(source)]
        found |= _best(pairs, free & (signal > 0), signal, count)
    return found


def _best(pairs: Pairs, some: np.ndarray, score: np.ndarray, count: int) -> np.ndarray:
    """(n_pairs,) bool: of each person's pairs that ``some`` (n_pairs,) bool says, the best."""
    found, place = np.zeros(len(some), bool), np.flatnonzero(some)
    best = features.nearest(pairs.person[place], pairs.item[place], score[place], count)
    found[place[best]] = True
    return found
