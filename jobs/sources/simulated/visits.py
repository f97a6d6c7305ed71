"""The visits of one day: who comes, under which key, what they look at, put in the cart and buy.

Most steps of a visit follow the person's favourite categories; within a category items are Zipf
popular, with a bonus while they are new or on promotion; some steps are whatever everybody buys;
some are the person's staples, bought again when the item's own repurchase gap has gone by. A step
is a view or a click, then perhaps the cart, then perhaps the purchase. Some online visits begin
with a list of recommendations, whose clicks come first.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from jobs.sources.simulated import links
from jobs.sources.simulated.campaigns import Campaigns, Followed
from jobs.sources.simulated.crowd import (
    CHANNEL_SHARES,
    CHANNELS,
    COOKIE_ON_WEB,
    DEVICE_IN_APP,
    FAVOURITES,
    STAPLES,
    STORE,
    Crowd,
)
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.keys import ACCOUNT, CARD, COOKIE, DEVICE
from jobs.sources.simulated.requests import PLACES, Logging, Requests

TYPES = ("view", "click", "add_to_cart", "purchase", "remove_from_cart", "return", "reject")
VIEW, CLICK, CART, PURCHASE, REMOVE, RETURN, REJECT = range(len(TYPES))
HOUR_WEIGHTS = (1, 1, 1, 1, 1, 2, 4, 6, 8, 9, 10, 11, 12, 11, 10, 10, 11, 13, 15, 16, 15, 11, 6, 3)
FOLLOWED = 0.75  # share of steps that follow a favourite, in a category at its year's mean
SESSIONS_A_DAY = 10_000_000  # more than there are; a session's number is day * this + its place
SECOND = 1_000_000  # in microseconds
DAY_SECONDS = 86_400


@dataclass
class Rows:
    """Events of a day as columns; times are microseconds since 1970, item and person numbers."""

    number: np.ndarray  # the event's own number, its id
    time: np.ndarray
    received: np.ndarray
    person: np.ndarray
    key: np.ndarray  # code
    session: np.ndarray
    kind: np.ndarray
    item: np.ndarray
    quantity: np.ndarray
    price: np.ndarray  # of a unit, that day
    channel: np.ndarray
    revision: np.ndarray
    request: np.ndarray  # the session whose request the event answers, or -1
    campaign: np.ndarray  # whose link led to the step, or NONE

    def pick(self, rows: np.ndarray) -> Rows:
        return Rows(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        return Rows(**{
            each.name: np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(Rows)
        })  # fmt: skip


@dataclass
class Asked:
    """A day's requests that are wholly in the data: what was shown, under which key, and when."""

    requests: Requests
    key: np.ndarray
    time: np.ndarray
    channel: np.ndarray


@dataclass
class Day:
    """What the visits of a day leave; ``sessions`` and ``person`` name those in the data, and
    ``followed`` is about the same."""

    rows: Rows
    asked: Asked
    links: links.Links
    sessions: np.ndarray
    person: np.ndarray
    followed: Followed


class Visits:
    """Makes days of visits to a shop."""

    def __init__(self, goods: Goods, crowd: Crowd):
        self.shop, self.goods, self.crowd = goods.shop, goods, crowd
        self.logging = Logging(goods, crowd)
        self.campaigns = Campaigns(goods.shop, goods.start)

    def of_day(self, rng: np.random.Generator, day: int, count: int) -> Day:
        """Exactly ``count`` events of a day's visits."""
        there = self.goods.in_stock(day)
        demand = np.concatenate([[0.0], np.cumsum(self.goods.demand(day, there))])
        sessions = count // 4 + 8
        while True:
            person, channel = self._who(rng, sessions)
            steps = np.minimum(rng.geometric(0.3, sessions), 12)
            asking = np.flatnonzero(
                (channel != STORE) & (rng.random(sessions) < self.shop.requests)
            )
            shown = self.logging.show(rng, day, asking, person[asking], there)
            session, item, staple, place = self._steps(
                rng, day, person, steps, shown, there, demand
            )
            answers = place >= 0
            in_store = channel[session] == STORE
            carted = rng.random(len(item)) < np.where(staple, 0.7, 0.22)
            bought = rng.random(len(item)) < np.where(staple, 0.85, 0.5)
            ours = shown.bought.ravel()[place[answers]]
            carted[answers] |= ours
            bought[answers] = ours
            removed = rng.random(len(item)) < 0.25
            length = np.where(in_store, 1, 1 + carted + (carted & (bought | removed)))
            if length.sum() >= count:
                break
            sessions *= 2
        return self._day(
            rng, day, count, person, channel, shown, session, item, answers, length, bought
        )

    def _who(self, rng: np.random.Generator, sessions: int) -> tuple[np.ndarray, np.ndarray]:
        activity = self.crowd.activity
        person = np.searchsorted(activity, rng.random(sessions) * activity[-1])
        return person, rng.choice(len(CHANNELS), sessions, p=CHANNEL_SHARES)

    def _steps(
        self, rng: np.random.Generator, day: int, person: np.ndarray, steps: np.ndarray,
        shown: Requests, there: np.ndarray, demand: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Every step, in the sessions' order: its session, its item, whether it is a staple that is
        due, and where it answers a request, its row in ``shown`` * PLACES + its place, else -1."""
        own = np.repeat(np.arange(len(steps)), steps)
        staple, item = self._choose(rng, day, person[own], there, demand)
        request, place = np.nonzero(shown.clicked)
        session = np.concatenate([shown.session[request], own])
        # The clicks on a list come before the rest of their visit.
        order = np.argsort(session, kind="stable")
        listed = shown.items[request, shown.shown[request, place]]
        answer = np.concatenate([request * PLACES + place, np.full(len(own), -1)])
        return (
            session[order], np.concatenate([listed, item])[order],
            np.concatenate([np.zeros(len(request), bool), staple])[order], answer[order],
        )  # fmt: skip

    def _choose(
        self, rng: np.random.Generator, day: int, person: np.ndarray, there: np.ndarray,
        demand: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """(whether a step is a staple that is due, the item of each step)."""
        goods, crowd, count = self.goods, self.crowd, len(person)
        slot = person * STAPLES + rng.integers(0, STAPLES, count)
        staple = crowd.staple[crowd.staples.at(day)[slot]]
        since = (day + crowd.phase[slot]) % goods.gap[staple]
        due = (since < 2) & (rng.random(count) < 0.8) & there[staple]
        slot = person * FAVOURITES + rng.integers(0, FAVOURITES, count)
        taste = crowd.favourite[crowd.favourites.at(day)[slot]]
        season = goods.season(day)
        crowds = np.cumsum(goods.category_weight * season)
        crowd_category = np.searchsorted(crowds, rng.random(count) * crowds[-1])
        category = np.where(
            rng.random(count) < FOLLOWED * season[taste],
            taste, np.minimum(crowd_category, goods.categories - 1),
        )  # fmt: skip
        low = demand[goods.category_start[category]]
        high = demand[goods.category_start[category + 1]]
        found = np.searchsorted(demand, low + rng.random(count) * (high - low), side="right") - 1
        # Rounding may reach the next category's first item, which is to be had as well.
        return due, np.where(due, staple, np.minimum(found, self.shop.items - 1))

    def _day(
        self, rng: np.random.Generator, day: int, count: int, person: np.ndarray,
        channel: np.ndarray, shown: Requests, session: np.ndarray, item: np.ndarray,
        answers: np.ndarray, length: np.ndarray, bought: np.ndarray,
    ) -> Day:  # fmt: skip
        """The first ``count`` events of the steps, under their keys, with what they show."""
        sessions = len(person)
        total = np.cumsum(length)
        used = int(np.searchsorted(total, count)) + 1  # steps, the last perhaps in part
        step = np.repeat(np.arange(used), length[:used])[:count]
        place = np.arange(count) - (total - length)[step]
        looked = rng.choice([VIEW, CLICK, REJECT], count, p=[0.867, 0.13, 0.003])
        looked[answers[step]] = CLICK
        at = session[step]
        ended = np.where(bought[step], PURCHASE, REMOVE)
        kind = np.select(
            [channel[at] == STORE, place == 0, place == 1], [PURCHASE, looked, CART], ended
        )
        hour = rng.choice(24, sessions, p=np.array(HOUR_WEIGHTS) / sum(HOUR_WEIGHTS))
        began = np.minimum(hour * 3600 + rng.integers(0, 3600, sessions), DAY_SECONDS - 1800)
        began = self.goods.start + (day * DAY_SECONDS + began) * SECOND
        first_step = np.searchsorted(session, np.arange(sessions))
        in_session = step - first_step[at]
        elapsed = 5 + in_session * 60 + place * 20 + rng.integers(0, 15, count)
        time = began[at] + elapsed * SECOND
        cut = int(at[-1]) + 1  # sessions in the data; the last one may go on behind the last row
        goes_on = total[used - 1] > count or (used < len(session) and session[used] == at[-1])
        whole = cut - int(goes_on)
        first = np.searchsorted(at, np.arange(cut))
        last = np.append(first[1:], count) - 1
        device = self.crowd.keyring.device_of(rng, person[:cut], day)
        key = self.crowd.keyring.code(
            self._key_kinds(rng, person[:cut], channel[:cut]), person[:cut], device, day
        )
        self.crowd.keyring.use(key, person[:cut], device, day)
        seen, login = links.of_sessions(
            rng, self.crowd.keyring, self.shop, day,
            links.Sessions(person[:cut], key, device, time[first], time[last]),
        )  # fmt: skip
        logged_in = time > login[at]
        followed = self.campaigns.follow(
            day, channel[:cut] != STORE, np.bincount(session[:used], minlength=cut)
        )
        number = day * SESSIONS_A_DAY + np.arange(cut)
        return Day(
            rows=Rows(
                number=np.zeros(count, np.int64), time=time, received=np.zeros(count, np.int64),
                person=person[at],
                key=np.where(logged_in, person[at] * 8 + ACCOUNT, key[at]),
                session=number[at], kind=kind, item=item[step],
                quantity=np.where(kind == PURCHASE, np.minimum(rng.geometric(0.75, count), 9), 1),
                price=self.goods.prices(day)[item[step]],
                channel=channel[at], revision=np.zeros(count, np.int64),
                request=np.where(answers[step] & (at < whole), number[at], -1),
                campaign=followed.at(at, in_session),
            ),
            asked=_asked(shown, whole, key, began, channel, day),
            links=seen,
            sessions=number,
            person=person[:cut],
            followed=followed,
        )  # fmt: skip

    def _key_kinds(
        self, rng: np.random.Generator, person: np.ndarray, channel: np.ndarray
    ) -> np.ndarray:
        """The kind of key under which each session begins."""
        chance = rng.random(len(person))
        web = np.where(chance < COOKIE_ON_WEB, COOKIE, ACCOUNT)
        app = np.where(chance < DEVICE_IN_APP, DEVICE, ACCOUNT)
        store = np.where(self.crowd.keyring.has_card[person], CARD, ACCOUNT)
        return np.choose(channel, [web, app, store])


def _asked(
    shown: Requests, whole: int, key: np.ndarray, began: np.ndarray, channel: np.ndarray, day: int
) -> Asked:
    """The requests of sessions that are wholly in the data, under the sessions' full numbers."""
    kept = shown.pick(np.flatnonzero(shown.session < whole))
    at = kept.session
    kept.session = day * SESSIONS_A_DAY + at
    return Asked(kept, key[at], began[at], channel[at])
