"""The surfaces: what serving asks for by one name, each a configuration of the same jobs.

A surface says for whom its lists are (:data:`GRAINS`), from which sources and with what share of
the list owed to each, where these are blended, what is left out, what the order is for, how it is
spread and explored, how long it is, how often it is made anew, what stands in where there is no
list to give, and what is left to the online side. A shop changes a surface or adds its own by the
parameters of ``recommendations``; ``docs/surfaces.md`` lists those there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from jobs.ordering.diversity import Diversity
from jobs.ordering.explore import Explore
from jobs.ordering.stages import Demotion, Ordering
from jobs.params import check
from jobs.retrieval.sources.pools import SHARED
from jobs.tables import EVENT_TYPES, SOURCES

# For whom a list is: a person, everybody in a context (a region, a segment, a category, …), or
# whoever looks at an item.
PERSON, CONTEXT, ITEM = "person", "context", "item"
GRAINS = (PERSON, CONTEXT, ITEM)
# Where sources are blended: by fixed shares of what they name, by the ranker's score, or by the
# bandit that draws places from them.
RETRIEVAL, SCORING, ORDERING = "retrieval", "scoring", "ordering"
BLENDED = (RETRIEVAL, SCORING, ORDERING)
PURCHASES, VALUE = "purchases", "value"
OBJECTIVES = (PURCHASES, VALUE)
# What no list may hold (the gates check it) and what a surface may leave out besides.
ALWAYS = ("eligibility", "blocked")
KNOWN = "known"  # what the person has ever bought
NIGHTLY, HOURLY = CADENCES = ("nightly", "hourly")
# What serving does itself: look up what is in stock now, search the index with a fresh vector,
# score again, or add up the lists of the items in a basket.
ONLINE = ("availability", "retrieval", "scoring", "basket")
# What an item's list may be made of: how alike items are, or what shares baskets with them.
ALIKE = ("collaborative", "item_to_item", "content_neighbours")
TOGETHER = ("bought_together",)
# What a surface of items may state.
OF_ITEMS = ("grain", "length", "sources", "fallback", "cadence", "online")
MOST = 500  # places of a list


def _no_more() -> Mapping[str, float]:
    return dict.fromkeys(SOURCES, 0.0)


@dataclass(frozen=True)
class Surface:
    """One surface."""

    # For whom: person, context or item.
    grain: str = PERSON
    # Places of a list.
    length: int = 20
    # The sources a list is made from, and the least share of it that is owed to each, 0 for what
    # comes in by its score alone. A source that is not named stays out. Quotas enter at the end of
    # the list, where the order by score puts them; blended at retrieval the shares are the list.
    sources: Mapping[str, float] = field(default_factory=_no_more)
    # Where the sources are blended: retrieval (fixed shares), scoring (the ranker) or ordering (the
    # bandit, over explore places).
    blended: str = SCORING
    # What is left out. Eligibility and blocked pairs always are; known leaves out what the person
    # ever bought.
    filters: tuple[str, ...] = ALWAYS
    # What the order is for: purchases (their probability), or value (probability times the margin
    # in money of one piece, or its price where no margin is known).
    objective: str = PURCHASES
    # The shared sources that stand in, one after the other, where there is no list to give.
    fallback: tuple[str, ...] = ("popular", "trending", "new_arrivals", "editorial")
    # How often it is made anew: nightly, or hourly for whoever is due in a refresh. What may not be
    # shown any more leaves lists of either within an hour, and one that leaves out what is known is
    # hourly to who did something.
    cadence: str = NIGHTLY
    # What is left to the online side.
    online: tuple[str, ...] = ()
    # Diversity, off: at most so many places of a list for one category, 0 is no limit; what two
    # neighbours of a list may not share (category, seller); and how much being unlike the items
    # above counts against standing high, 0 to 1.
    category_cap: int = 0
    apart: tuple[str, ...] = ()
    unlikeness: float = 0.0
    # Parts of a category's path, from the broadest, that say what one category is.
    category_level: int = 2
    # From this place on, 0 is off, lists show more of the catalogue: a place goes to an item that
    # is in nobody's list where that is worth at least this share of what leaves.
    tail_from: int = 0
    tail_worth: float = 0.3
    # Explore places of a list, off; the first of them; the share that every source keeps.
    explore_places: int = 0
    explore_first: int = 11
    explore_floor: float = 0.1
    # Days of the log that say what exploring brought; eight weeks hold two of a grocer's months.
    explore_days: int = 56
    # Events that answer an explored item, by the request that showed it.
    explore_rewards: tuple[str, ...] = ("purchase",)
    # What was bought, or shown, so many days before the night competes with this factor of its
    # strength (0.5 doubles its place); 0 days is off.
    bought_days: int = 0
    bought_factor: float = 0.5
    shown_days: int = 0
    shown_factor: float = 0.5

    def __post_init__(self) -> None:
        for name, value, known in (
            ("grain", [self.grain], GRAINS),
            ("sources", self.sources, self._possible()),
            ("blended", [self.blended], BLENDED),
            ("filters", self.filters, (*ALWAYS, KNOWN)),
            ("objective", [self.objective], OBJECTIVES),
            ("fallback", self.fallback, SHARED),
            ("cadence", [self.cadence], CADENCES),
            ("online", self.online, ONLINE),
            ("explore_rewards", self.explore_rewards, EVENT_TYPES),
        ):
            strange = ", ".join(sorted(set(value) - set(known)))
            of_grain = f" of the grain {self.grain}" if name == "sources" else ""
            check(not strange, f"{name}{of_grain} may hold {', '.join(known)}, not {strange}")
        check(1 <= self.length <= MOST, f"length must be 1 to {MOST}")
        check(len(self.sources) > 0, "sources must name one at least")
        check(all(0 <= share <= 1 for share in self.sources.values()), "quotas must be in [0, 1]")
        check(sum(self.slots().values()) <= self.length, "quotas must not exceed the whole list")
        check(set(ALWAYS) <= set(self.filters), f"filters must hold {' and '.join(ALWAYS)}")
        check(self.category_level >= 1, "category_level must be at least 1")
        check(self.explore_days >= 1, "explore_days must be at least 1")
        self._check_blended()
        self.ordering("")

    def _possible(self) -> tuple[str, ...]:
        """The sources that lists of this grain can be made from."""
        if self.grain == ITEM:
            return (*ALIKE, *TOGETHER)
        return SHARED if self.grain == CONTEXT else SOURCES

    def _check_blended(self) -> None:
        whole = abs(sum(self.sources.values()) - 1.0) < 1e-9
        fixed = self.grain == CONTEXT or self.blended == RETRIEVAL
        if self.grain == CONTEXT:
            check(self.blended != SCORING, "a context's list has no person to score it for: blend "
                  "it at retrieval or at ordering")  # fmt: skip
            lately = KNOWN in self.filters or self.bought_days or self.shown_days
            check(not lately, "a context's list knows nobody's past")
        if self.grain == ITEM:
            check(self.blended == SCORING, "an item's list is ordered by how alike its items are")
            check(set(self.sources) in (set(ALIKE), set(TOGETHER)), "an item's list holds what is "
                  f"alike ({', '.join(ALIKE)}), or what is {TOGETHER[0]}")  # fmt: skip
            check(not any(self.sources.values()), "an item's list has no quotas")
            moved = [
                one.name for one in fields(self)
                if one.name not in OF_ITEMS and getattr(self, one.name) != one.default
            ]  # fmt: skip
            check(not moved, f"{', '.join(moved)}: an item's list is not ordered by that")
        elif fixed:
            check(whole, f"quotas of a list blended at {self.blended} are the list and must add "
                  f"up to 1, not {sum(self.sources.values()):g}")  # fmt: skip
        check(not (fixed and self.objective == VALUE), "the objective value needs the ranker's "
              "probabilities: blend at scoring")  # fmt: skip
        check(self.tail_from == 0 or self.scored, "a tail is of lists that the ranker orders")
        check(self.tail_from >= 0, "tail_from must not be negative")
        check(0 <= self.tail_worth <= 1, "tail_worth must be in [0, 1]")
        if self.blended == ORDERING:
            check(self.explore_places > 0, "a list blended at ordering needs explore_places")

    @property
    def scored(self) -> bool:
        """Whether the ranker orders its lists."""
        return self.grain == PERSON and self.blended != RETRIEVAL

    @property
    def new_only(self) -> bool:
        """Whether a list leaves out what the person ever bought."""
        return KNOWN in self.filters

    @property
    def follows(self) -> bool:
        """Whether a refresh makes the list of who did something anew: where that is its cadence,
        and where what was just bought may not stand any more."""
        return self.cadence == HOURLY or self.new_only

    def owed(self) -> dict[str, int]:
        """The places that each source with a quota is owed; at least one where it has a share."""
        free = 0 if self.scored else self.explore_places
        return {
            source: max(1, round(share * (self.length - free)))
            for source, share in self.sources.items()
            if share > 0
        }

    def slots(self) -> dict[str, int]:
        """The places that are kept for sources in lists that the ranker orders."""
        return self.owed() if self.scored else {}

    def shares(self) -> dict[str, float]:
        """The least share of a list that each source is owed."""
        if self.scored:
            return {source: count / self.length for source, count in self.owed().items()}
        # Places that explore are the bandit's to give, and owed to nobody.
        rest = (self.length - self.explore_places) / self.length
        return {source: share * rest for source, share in self.sources.items() if share > 0}

    def ordering(self, name: str) -> Ordering:
        """How the lists are ordered; raises ``ValueError`` for what does not fit together."""
        return Ordering(
            name,
            self.length,
            self.slots(),
            Diversity(self.category_cap, self.apart, self.unlikeness),
            Explore(self.explore_places, self.explore_first, self.explore_floor),
            Demotion(self.bought_days, self.bought_factor),
            Demotion(self.shown_days, self.shown_factor),
        )


NEW = tuple(source for source in SOURCES if source != "buy_again")

SURFACES: dict[str, Surface] = {
    # What a person finds on entering: candidates from here, stock looked up online. Two sources
    # are owed places that a pure ranking would starve: what is new to the person, and what is new
    # in the shop. Behind the first ten, lists together show more of the catalogue.
    "homepage": Surface(
        sources={**_no_more(), "item_to_item": 0.05, "new_arrivals": 0.05}, tail_from=11,
        cadence=HOURLY, online=("availability",),
    ),
    # What the person never bought.
    "discover": Surface(
        sources=dict.fromkeys(NEW, 0.0), filters=(*ALWAYS, KNOWN), cadence=HOURLY
    ),
    # A message a day, all of it made here: few places, two of a category at most, and further down
    # what came home these days or stood in a message of the week.
    "digest": Surface(
        length=10, category_cap=2, bought_days=3, shown_days=7, shown_factor=0.25,
    ),
    # What gains lately, for everybody in a region or segment.
    "trending": Surface(
        grain=CONTEXT, blended=RETRIEVAL, cadence=HOURLY,
        sources={"trending": 0.6, "popular": 0.25, "new_arrivals": 0.15},
    ),
    # A feed of short videos: the online side searches the index with what was just watched; here
    # stand the popular ones to begin with, and places that explore.
    "feed": Surface(
        grain=CONTEXT, blended=ORDERING, length=30, cadence=HOURLY,
        online=("retrieval", "scoring"),
        sources={"popular": 0.6, "trending": 0.2, "new_arrivals": 0.2},
        explore_places=10, explore_first=21, explore_rewards=("purchase", "click", "view"),
    ),
    # Beside an item: those most like it.
    "similar": Surface(grain=ITEM, sources=dict.fromkeys(ALIKE, 0.0), fallback=("popular",)),
    # Beside a basket: what goes with its items, which the online side adds up.
    "cart": Surface(
        grain=ITEM, sources=dict.fromkeys(TOGETHER, 0.0), online=("basket",),
        fallback=("popular", "trending"),
    ),
}  # fmt: skip

# The surface that a promise is judged by, and a reader asks for, where nothing else is named.
MAIN = "homepage"
