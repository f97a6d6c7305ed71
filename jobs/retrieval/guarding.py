"""When a refresh builds the index again: limits that ``index_refresh`` keeps, and why."""

from __future__ import annotations

from dataclasses import dataclass

from jobs import limits
from jobs.params import check


@dataclass(frozen=True)
class Guard:
    """When an index is built again instead of changed."""

    # Items that came or left over those held before: above it the cells describe another catalogue.
    churn: float = 0.2
    # A stratum whose recall is more than this under what it was when the cells were trained.
    fall: float = 0.05
    # ... and would be by chance, were it still the same, less often than this: a day of hourly
    # refreshes judges some thousand strata, few of which chance moves as far as the fall.
    chance: float = 0.001
    # People, and items of each stratum, who ask in one look: as many as a night asks, since people
    # and items are not found equally well, and a stratum is compared with its recall of that night.
    person_queries: int = 200
    item_queries: int = 40
    # Looks at most: another where a stratum is by more than half of the fall under what it was.
    looks: int = 3
    # An item is new for this long after it was added.
    new_days: int = 7
    # A category is a stratum of its own from this share of the items, or of the new ones, on.
    large: float = 0.02

    def __post_init__(self) -> None:
        check(self.churn >= 0, "churn must not be negative")
        check(0 <= self.fall <= 1, "fall must be in 0..1")
        check(0 < self.chance < 1, "chance must be between 0 and 1")
        check(self.person_queries >= 1, "person_queries must be at least 1")
        check(
            self.item_queries >= limits.RECALL_QUERIES,
            f"item_queries must be at least {limits.RECALL_QUERIES}",
        )
        check(self.looks >= 1, "looks must be at least 1")
        check(self.new_days >= 0, "new_days must not be negative")
        check(0 < self.large <= 1, "large must be in (0, 1]")
