"""Campaigns, and the visits that follow their links.

One campaign of each kind runs at any time. Some online sessions begin with a campaign's link, and
in some a link of another campaign is followed later; the events of the step behind a link name its
campaign, all others name none. Nothing else of a visit depends on it: all chances come from
generators of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.sources.simulated import truth
from jobs.sources.simulated.settings import Shop

KINDS = ("email", "search", "social")
CAMPAIGN_DAYS = (7, 14, 21)
NONE = -1


@dataclass(frozen=True)
class Followed:
    """What the sessions of a day followed, (n,) each: numbers of campaigns or NONE; ``turn``: at
    which of its steps, from 0, a session comes to ``later``."""

    first: np.ndarray
    later: np.ndarray
    turn: np.ndarray

    def at(self, session: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The campaign of steps, from their sessions and their places in these."""
        later = np.where(place == self.turn[session], self.later[session], NONE)
        return np.where(place == 0, self.first[session], later)


class Campaigns:
    """The calendar; ``kind``, ``starts`` and ``ends`` of campaigns by number, in days."""

    def __init__(self, shop: Shop, start: int):
        self.shop, self.start = shop, start
        rng = np.random.default_rng([shop.seed, 11])
        runs = shop.days // CAMPAIGN_DAYS[0] + 2
        length = rng.choice(CAMPAIGN_DAYS, (len(KINDS), runs))
        ends = np.cumsum(length, axis=1) - rng.integers(0, CAMPAIGN_DAYS[0], len(KINDS))[:, None]
        starts = ends - length
        used = starts < shop.days
        self.kind = np.nonzero(used)[0]
        self.starts, self.ends = starts[used], ends[used]

    def names(self) -> list[str]:
        """``email-0`` and the like, numbered over all kinds."""
        return [f"{KINDS[kind]}-{number}" for number, kind in enumerate(self.kind)]

    def follow(self, day: int, online: np.ndarray, steps: np.ndarray) -> Followed:
        """What sessions follow; ``online``: (n,) bool, ``steps``: (n,) how many each has."""
        rng = np.random.default_rng([self.shop.seed, 10, day])
        running = np.flatnonzero((self.starts <= day) & (day < self.ends))
        count = len(online)
        begins = online & (rng.random(count) < self.shop.campaigns)
        turns = online & (steps > 1) & (rng.random(count) < self.shop.campaign_changes)
        one = rng.integers(0, len(KINDS), count)
        other = (one + rng.integers(1, len(KINDS), count)) % len(KINDS)
        turn = 1 + np.floor(rng.random(count) * (steps - 1)).astype(np.int64)
        return Followed(
            np.where(begins, running[one], NONE), np.where(turns, running[other], NONE), turn
        )  # fmt: skip

    def named(self, numbers: np.ndarray) -> pa.DictionaryArray:
        """The names of campaigns; null for NONE."""
        codes = pa.array(numbers.astype(np.int32), mask=numbers == NONE)
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.names()))

    def write(self, folder: Path) -> int:
        """Write the truth ``campaigns``."""
        return truth.write(folder, "campaigns", pa.table({
            "campaign": self.names(), "kind": [KINDS[kind] for kind in self.kind],
            "starts": truth.day_time(self.starts, self.start),
            "ends": truth.day_time(self.ends, self.start),
        }))  # fmt: skip
