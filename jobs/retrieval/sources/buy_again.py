"""Buy again: what a person buys often and lately, and is not long overdue.

Personal frequency with a half-life, times a fade once the time since the last purchase passes the
expected gap between two purchases (the person's own gap, drawn towards the item's where the person
has few). On Complete Journey before 2017-12-01 the half-life of 90 days beat 45, 60 and none at
each of three monthly cuts; the fade is neutral there and keeps one-off items from staying for ever.
The frequency with a half-life is the baseline of Hu et al., "Modeling Personalized Item Frequency
Information for Next-basket Recommendation" (SIGIR 2020), with decay in days, not baskets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from jobs.params import check
from jobs.retrieval.matrix import Nominated, candidate_rows
from jobs.retrieval.neighbours import first_of_each
from jobs.signals.past import DAY, Past, kept_purchases, runs

NAME = "buy_again"


@dataclass(frozen=True)
class Params:
    """How repeat purchases are scored."""

    # A purchase counts half as much this many days later.
    half_life_days: float = 90.0
    # Past the expected gap the score falls by 1/e for each of these gaps.
    overdue_gaps: float = 4.0
    # A person's own gap weighs against this many of the item's gaps.
    prior_gaps: float = 2.0
    # An item without repeat purchases by anybody is taken to come due after this many days.
    default_gap_days: float = 30.0

    def __post_init__(self) -> None:
        check(self.half_life_days > 0, "half_life_days must be positive")
        check(self.overdue_gaps > 0, "overdue_gaps must be positive")
        check(self.prior_gaps > 0, "prior_gaps must be positive")
        check(self.default_gap_days > 0, "default_gap_days must be positive")


def candidates(
    past: Past,
    item_gap: np.ndarray,
    person_ids: pa.StringArray,
    item_ids: pa.StringArray,
    as_of: datetime,
    depth: int,
    params: Params,
) -> pa.Table:
    """The top ``depth`` bought items of each person, in the columns of ``candidates``.

    ``past``: all that these people did; ``item_gap``: (n_items,) days between two purchases of an
    item by one person, NaN where nobody repeated it. Ties go to the lower item.
    """
    bought = kept_purchases(past)
    day = np.ceil(bought.age)
    starts, line = runs(bought.person, bought.item, day)
    person, item, day = bought.person[starts], bought.item[starts], day[starts]
    firsts, pair = runs(person, item)
    count = np.bincount(pair, minlength=len(firsts))
    lasts = firsts + count - 1
    frequency = np.bincount(pair, np.exp2(-day / params.half_life_days), len(firsts))
    since, span = day[lasts], day[firsts] - day[lasts]
    gap = np.nan_to_num(item_gap[item[firsts]], nan=params.default_gap_days)
    expected = (span + params.prior_gaps * gap) / (count - 1 + params.prior_gaps)
    overdue = np.maximum(since / np.maximum(expected, 1.0) - 1.0, 0.0)
    score = frequency * np.exp(-overdue / params.overdue_gaps)
    person, item = person[firsts], item[firsts]
    best, rank = first_of_each(person, item, score, depth)
    newest = np.full(len(firsts), np.inf)
    np.minimum.at(newest, pair[line], bought.age)
    now = int(as_of.timestamp() * 1_000_000)
    seed_time = now - np.rint(newest[best] * DAY).astype(np.int64)
    found = Nominated(person[best], item[best], rank, score[best], item[best], seed_time)
    return candidate_rows(NAME, found, person_ids, item_ids)
