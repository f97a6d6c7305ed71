"""What those who live with a person bought: the household's need beside the person's own.

A household never merges people. Each keeps its own past; the others' purchases are measures of the
pair, and who lives alone has none. Who refused personalisation lives alone here: the others' lists
know nothing of them, and theirs nothing of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs.retrieval import matrix
from jobs.signals import shop
from jobs.signals.behaviour import Keyed, Lines
from jobs.signals.past import Past, Record, runs
from jobs.signals.shop import Catalogue

HALF_LIFE = 60  # days


@dataclass(frozen=True)
class Mates:
    """Of a block of people: ``persons``, (n_people,) measures each, and those of pairs."""

    persons: dict[str, np.ndarray]
    pairs: Keyed


# What a member bought of an item: codes, its baskets halved every 60 days, the age of the newest.
BOUGHT = np.dtype(
    [("home", "i4"), ("member", "i4"), ("item", "i4"), ("decayed", "f8"), ("since", "f8")]
)

ABSENT = {"h_decayed_60": 0.0, "h_days_since": np.nan}
NOBODY = Keyed(np.zeros(0, np.int64), dict.fromkeys(ABSENT, np.zeros(0)), ABSENT)


@dataclass
class Homes:
    """Who lives with whom, and what each of them bought.

    ``people``: sorted ids; ``home``: (n_people,) int64 code of the household, -1 for who lives
    alone; ``size``: (n_homes,) how many of those who consent live there; ``bought``: rows of
    ``BOUGHT``, ascending by household, member and item, once everybody's past went through
    :meth:`watching`.
    """

    people: pa.StringArray
    home: np.ndarray
    size: np.ndarray
    bought: np.ndarray = field(default_factory=lambda: np.zeros(0, BOUGHT))

    @staticmethod
    def of(persons: pa.Table) -> Homes:
        """``persons``: person_id, household_id and personalised of everybody, in any order."""
        rows = persons.select(["person_id", "household_id", "personalised"]).sort_by("person_id")
        _, household = matrix.encode(rows["household_id"])
        shares = rows["personalised"].to_numpy()
        size = np.bincount(household[shares], minlength=int(household.max(initial=0)) + 1)
        codes = np.where(size > 1, np.cumsum(size > 1) - 1, -1)
        people = pa.concat_arrays([chunk.cast(pa.string()) for chunk in rows["person_id"].chunks])
        return Homes(people, np.where(shares, codes[household], -1), size[size > 1])

    def watching(self, pasts: Iterable[Past]) -> Iterator[Past]:
        """The pasts, of all people one block after the other, while their purchases are noted."""
        first, noted = 0, [np.zeros(0, BOUGHT)]
        for past in pasts:
            home = self.home[first : first + past.n_people]
            noted.append(self._bought(past.of((home >= 0)[past.person]), first))
            first += past.n_people
            yield past
        rows = np.concatenate(noted)
        noted.clear()
        self.bought = rows[np.lexsort((rows["item"], rows["member"], rows["home"]))]

    def _bought(self, past: Past, first: int) -> np.ndarray:
        """The rows of ``bought`` of a block of people, the first of whom has this code."""
        lines = Lines.of(past)
        starts, group = runs(lines.person, lines.item)
        ends = np.r_[starts[1:], len(group)][: len(starts)] - 1
        decayed = np.bincount(group, np.exp2(-lines.age / HALF_LIFE), len(starts))
        member = first + lines.person[starts]
        rows = np.zeros(len(starts), BOUGHT)
        rows["home"], rows["member"] = self.home[member], member
        rows["item"], rows["decayed"] = lines.item[starts], decayed
        rows["since"] = lines.age[ends]
        return rows

    def mates(self, people: pa.StringArray, n_items: int) -> Mates:
        """What is known of those who live with these people, sorted ids.

        ``h_mates``: how many they are; ``h_decayed_60``: their baskets with the item, each halved
        every 60 days; ``h_days_since``: since the last of them. A pair's key is ``person * n_items
        + item``.
        """
        if len(self.size) == 0:
            return Mates({"h_mates": np.zeros(len(people))}, NOBODY)
        code = matrix.known(people, self.people, "person of the household")
        home = self.home[code]
        living = np.flatnonzero(home >= 0)
        rows = self.bought
        begins, ends = (
            np.searchsorted(rows["home"], home[living], side) for side in ("left", "right")
        )
        count = ends - begins
        person = np.repeat(living, count)
        place = np.arange(len(person)) + np.repeat(begins - np.cumsum(count) + count, count)
        found = rows[place]
        others = found["member"] != code[person]
        person, found = person[others], found[others]
        keys, group = np.unique(person * n_items + found["item"], return_inverse=True)
        since = np.full(len(keys), np.inf)
        np.minimum.at(since, group, found["since"])
        alone = np.zeros(len(people))
        alone[living] = self.size[home[living]] - 1
        return Mates(
            {"h_mates": alone},
            Keyed(
                keys,
                {
                    "h_decayed_60": np.bincount(group, found["decayed"], len(keys)),
                    "h_days_since": since,
                },
                ABSENT,
            ),
        )


def measured(
    record: Record, persons: pa.Table, catalogue: Catalogue
) -> tuple[dict[str, np.ndarray], Homes]:
    """What everybody's past says of every item (``shop.measure``) and of those who live together:
    it is read once for both. ``persons``: as of :meth:`Homes.of`."""
    homes = Homes.of(persons)
    return shop.measure(homes.watching(record.blocks(homes.people)), catalogue), homes
