"""What can be set of a simulated shop and of the noise on keys and links, and how it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from jobs.errors import Fault
from jobs.params import check

Settings = TypeVar("Settings", bound="KeySettings")


@dataclass(frozen=True)
class KeySettings:
    """How people are seen under keys, and what becomes known of which keys belong together."""

    # Seeds every choice.
    seed: int = 7
    # Share of devices that two to five people use at the same time.
    shared: float = 0.02
    # Share of cookie values that pass to another person when their first holder's time is over.
    recycled: float = 0.05
    # A browser's cookie is replaced as often.
    cookie_days: int = 30
    # Mean life of a device until another takes its place; 0 is for ever.
    device_days: float = 540.0
    # Share of sessions under a cookie or a device in which the person logs in.
    logins: float = 0.15
    # Share of sessions under a cookie that began with a click in an e-mail.
    email_clicks: float = 0.05
    # Share of sessions under a cookie or a device that a matcher ties to another key by a guess.
    guesses: float = 0.10
    # Share of these guesses that are wrong.
    false_links: float = 0.03
    # Share of links that are received a day after they were observed.
    links_late: float = 0.10
    # Share of observed links that are taken back later.
    unlinks: float = 0.002
    # Share of link deliveries that repeat one.
    link_duplicates: float = 0.005
    # Share of people who live with others of whom the shop knows it.
    households: float = 0.20

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**32, "seed must be in [0, 2^32)")
        check(1 <= self.cookie_days <= 3650, "cookie_days must be in [1, 3650]")
        check(self.device_days == 0 or self.device_days >= 1, "device_days must be 0 or at least 1")
        self._check_shares(
            "shared", "recycled", "unlinks", "link_duplicates", least=0.0, most=0.5
        )  # fmt: skip
        self._check_shares(
            "logins", "email_clicks", "guesses", "false_links", "links_late", "households"
        )

    def _check_shares(self, *names: str, least: float = 0.0, most: float = 1.0) -> None:
        for name in names:
            check(least <= getattr(self, name) <= most, f"{name} must be in [{least:g}, {most:g}]")


@dataclass(frozen=True)
class Shop(KeySettings):
    """The settings of a simulated shop; a size of 0 means: in proportion to the events."""

    # Rows of the events table, repeated and corrected deliveries among them.
    events: int = 1_000_000
    # People; by default 50 events each.
    people: int = 0
    # Items of the catalogue; by default one for four people.
    items: int = 0
    # Days of history before `end`.
    days: int = 180
    # The first day that is not in the data: the run date that sees all of it.
    end: str = "2024-03-01"
    # Share of rows that repeat an event that was delivered before.
    duplicates: float = 0.005
    # Share of rows that correct an event (revision 1, another quantity), days later.
    corrections: float = 0.001
    # Share of events that are received hours to days after they happened.
    late: float = 0.01
    # Share of purchases that come back, three to twenty days later.
    returns: float = 0.03
    # Mean life of a taste, a person's favourite category or staple item; 0 is for ever. The chance
    # to be the same after a days is exp(-a / taste_days): by default a half after 83 days, near
    # the half-life of 90 that serves best on Complete Journey.
    taste_days: float = 120.0
    # Strength of the year: a category's demand runs from exp(-season) to exp(season) of its mean.
    season: float = 0.25
    # Share of items on promotion at any time, and how many times as often they are chosen then.
    promotions: float = 0.05
    uplift: float = 2.0
    # Share of items out of stock at any time, for days on end; nobody sees or buys them then.
    stockouts: float = 0.03
    # Share of online sessions that begin with the link of a campaign.
    campaigns: float = 0.15
    # Share of online sessions of two or more steps in which another campaign's link is followed.
    campaign_changes: float = 0.03
    # Share of online sessions that begin with a list of recommendations.
    requests: float = 0.10
    # A place of that list is looked at with chance position ** -position_bias.
    position_bias: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.events >= 1000, "events must be at least 1000")
        check(self.people == 0 or self.people >= 20, "people must be at least 20")
        check(self.items == 0 or self.items >= 50, "items must be at least 50")
        check(2 <= self.days <= 3650, "days must be in [2, 3650]")
        check(self.taste_days == 0 or self.taste_days >= 1, "taste_days must be 0 or at least 1")
        check(0 <= self.season <= 2, "season must be in [0, 2]")
        check(1 <= self.uplift <= 20, "uplift must be in [1, 20]")
        check(0 <= self.position_bias <= 3, "position_bias must be in [0, 3]")
        self._check_shares(
            "duplicates", "corrections", "late", "returns", "promotions", "stockouts", most=0.5
        )
        self._check_shares("requests", "campaigns", "campaign_changes")
        try:
            date.fromisoformat(self.end)
        except ValueError:
            raise ValueError(f"end is {self.end!r}, not a date like 2024-03-01") from None

    def sized(self) -> Shop:
        """The shop with its people and items counted out."""
        people = self.people or max(20, self.events // 50)
        values = {**asdict(self), "people": people}
        values["items"] = self.items or min(50_000, max(50, people // 4))
        return Shop(**values)

    @property
    def start(self) -> datetime:
        """The first instant of the first day."""
        end = date.fromisoformat(self.end)
        return datetime(end.year, end.month, end.day, tzinfo=UTC) - timedelta(days=self.days)


def parse(pairs: list[str], kind: type[Settings], source: str, usage: str) -> Settings:
    """Pairs like ``seed=7`` as settings; raises one ``Fault`` for all that is wrong."""
    known: dict[str, type] = {field.name: type(field.default) for field in fields(kind)}
    values: dict[str, Any] = {}
    faults = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in known:
            faults.append(f"{pair!r} is none of {', '.join(f'{each}=…' for each in known)}")
        elif name in values:
            faults.append(f"{name} is given twice")
        else:
            try:
                values[name] = known[name](text)
            except ValueError:
                faults.append(f"{name}={text!r} is no {known[name].__name__}")
    if not faults:
        try:
            return kind(**values)
        except ValueError as error:
            faults.append(str(error))
    raise Fault(f"source: {source}: {'; '.join(faults)}. Write it like {usage}")
