"""The staleness ladder: whose lists a refresh makes anew, and whose stay as they are.

People and items stand on a tier by when they were last active, and a tier says how old a list may
become. The night makes everything anew, so limits count from the night or from a refresh that made
the list since; they are met where nights fail. The ages are those of the measured staleness curve
(docs/decisions/staleness.md, interactions on Complete Journey).

Pure arrays: what is known goes in, a decision per person or item comes out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from jobs.params import check

HOT, WARM, COLD, DORMANT = TIERS = ("hot", "warm", "cold", "dormant")
# Made anew because its content is other than in the base; because the configuration of a list is;
# because one of the lists is older than the tier allows, whatever else is so; from the pools of the
# person's contexts, where one of the last two concerns somebody dormant who is not touched; not at
# all.
TOUCHED, CONFIGURED, AGED, POOLED, KEPT = DECISIONS = (
    "touched", "configured", "aged", "pooled", "kept",
)  # fmt: skip


@dataclass(frozen=True)
class Params:
    """Who is on which tier, and how old the lists of a tier may become."""

    # Active in as many days: hot; warm; and beyond the last one dormant, between them cold.
    hot_days: int = 7
    warm_days: int = 28
    dormant_days: int = 180
    # Hours that a list may stand: a night and half of one, so that a night that comes late makes
    # no work; the curve has lost 0.5 % of NDCG@10 by then, and hot people look at lists most often.
    hot_hours: int = 36
    # Three and a half days: 0.7 %.
    warm_hours: int = 84
    # 7.6 days: the 2 % that are accepted. Dormant people's as well.
    cold_hours: int = 182

    def __post_init__(self) -> None:
        check(
            0 < self.hot_days < self.warm_days < self.dormant_days,
            "hot_days, warm_days and dormant_days must rise from above 0",
        )
        check(
            0 < self.hot_hours <= self.warm_hours <= self.cold_hours,
            "hot_hours, warm_hours and cold_hours must not fall, from above 0",
        )


def tiers(active: np.ndarray, as_of: datetime, params: Params) -> np.ndarray:
    """(n,) codes of :data:`TIERS` from (n,) datetime64[us], UTC, of the last activity; NaT is
    dormant."""
    edges = [_instant(as_of - timedelta(days=days))
             for days in (params.hot_days, params.warm_days, params.dormant_days)]  # fmt: skip
    # No comparison with NaT holds, which leaves it on the lowest tier.
    return np.select([active >= edge for edge in edges], range(3), 3)


def decide(
    tier: np.ndarray, made: np.ndarray, touched: np.ndarray, configured: bool, as_of: datetime,
    params: Params, pooled: bool = True,
) -> np.ndarray:  # fmt: skip
    """(n,) codes of :data:`DECISIONS`.

    ``tier``: (n,) codes; ``made``: (n,) datetime64[us], UTC, when the list was made, NaT where
    there is none; ``touched``: (n,) bool; ``configured``: the configuration changed; ``pooled``:
    the dormant get pools, which items have none of.
    """
    hours = (params.hot_hours, params.warm_hours, params.cold_hours, params.cold_hours)
    limit = np.array(hours, "timedelta64[h]")[tier]
    aged = _instant(as_of) - made > limit
    due = aged | configured
    dormant = (tier == TIERS.index(DORMANT)) & due & pooled
    # Who is touched hour after hour has lists on nightly surfaces that nothing else makes anew.
    why = [aged & touched, touched, dormant, np.full(len(tier), configured), aged]
    names = [DECISIONS.index(name) for name in (AGED, TOUCHED, POOLED, CONFIGURED, AGED)]
    return np.select(why, names, DECISIONS.index(KEPT))


def made(
    decision: np.ndarray, before: np.ndarray, altered: np.ndarray, configured: bool, as_of: datetime
) -> np.ndarray:
    """(n,) datetime64[us] of when the oldest list of each was made.

    ``decision``: as decided; ``before``: (n,) datetime64[us], of the lists in the base;
    ``altered``: (n,) bool, whose lists are all made anew though they are touched alone. Who is
    touched by no more than events has lists on nightly surfaces that are as old as before.
    """
    whole = np.isin(decision, [DECISIONS.index(name) for name in (AGED, POOLED, CONFIGURED)])
    anew = whole | altered | (configured & (decision == DECISIONS.index(TOUCHED)))
    return np.where(anew, _instant(as_of), before)


def digest(configuration: Mapping[str, Any] | Sequence[Any]) -> str:
    """What a list was made with, as 16 hexadecimal digits."""
    canonical = json.dumps(configuration, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _instant(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
