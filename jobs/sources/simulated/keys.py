"""Under which keys people are seen: accounts, cards, and devices with their cookies over time.

A person has an account and a device in each of one to three places (a telephone, a laptop, …). A
device is replaced at a constant hazard; some places are shared, so that each device in them is used
by two to five people at once. The browser on a device keeps a cookie until it is replaced; some
cookie values pass to the browser of somebody else when their first time is over.

A key is known here by its code, ``index * 8 + kind``; ``index`` is a person, a device or a cookie
value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.sources.simulated.settings import KeySettings
from jobs.sources.simulated.spells import AFTER, BEFORE, renewed

KEY_TYPES = ("account", "cookie", "device", "loyalty_card", "email_hash")
ACCOUNT, COOKIE, DEVICE, CARD, EMAIL = range(len(KEY_TYPES))
PLACES = (0.5, 0.35, 0.15)  # share of people with one, two, three devices at a time
CARDS = 0.6  # share of people with a loyalty card
USERS = (2, 5)  # of a shared device, least and most
MASK = 2**48 - 1


@dataclass(frozen=True)
class Pace:
    """(people,) how many sessions each person is expected to have a day under a cookie, and under
    a device: for shares of what will be seen, not of what there is."""

    cookie: np.ndarray
    device: np.ndarray


class Keyring:
    """Who holds which key when, for ``people`` over ``days``.

    ``accounts``: (people,) text, the accounts' own names; the other keys begin with ``letter`` and
    tell nothing of theirs.
    """

    def __init__(
        self, settings: KeySettings, days: int, accounts: pa.Array, pace: Pace, letter: str = "k"
    ):
        rng = np.random.default_rng([settings.seed, 4])
        self.people, self.days, self.accounts, self.letter = len(accounts), days, accounts, letter
        self.cookie_days = settings.cookie_days
        self.has_card = rng.random(self.people) < CARDS
        self._make_places(rng, settings.shared, pace, settings.device_days)
        self.devices = renewed(rng, len(self.users), settings.device_days, days)
        self._make_cookies(rng)
        if settings.recycled:
            self._recycle(rng, settings.recycled, self._seen_chance(pace))
        self._used_device: list[np.ndarray] = []
        self._used_life: list[np.ndarray] = []
        self._seen = np.zeros(8 * max(self.people, len(self.value), len(self.devices)), bool)

    def _make_places(
        self, rng: np.random.Generator, shared: float, pace: Pace, device_days: float
    ) -> None:
        """Places for devices, ``users`` of each, and by person the places that they use."""
        own = 1 + rng.choice(len(PLACES), self.people, p=PLACES)
        owner = np.repeat(np.arange(self.people), own)
        users = np.minimum(rng.integers(USERS[0], USERS[1] + 1, len(owner)), self.people)
        alone, together, several = self._use_chances(own, owner, users, pace, device_days)
        # Of all devices seen, those that several people are seen on shall be the share.
        mixed = rng.permutation(len(owner))
        seen = alone.sum() + np.cumsum((together - alone)[mixed])
        short = np.cumsum(several[mixed]) - shared * seen
        users[mixed[int(np.searchsorted(short, 0.0)) if shared else 0 :]] = 1
        self.owner, self.users = owner, users
        self.first_use = np.concatenate([[0], np.cumsum(users)])
        place = np.repeat(np.arange(len(owner)), users)
        # The others are the next people by number, who are often of the same household.
        self.user = (owner[place] + np.arange(len(place)) - self.first_use[place]) % self.people
        order = np.argsort(self.user, kind="stable")
        self._place = place[order]
        self._begin = np.searchsorted(self.user[order], np.arange(self.people + 1))

    def _use_chances(
        self, own: np.ndarray, owner: np.ndarray, users: np.ndarray, pace: Pace, device_days: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The chances of each place that its device is seen, with its owner alone and with its
        ``users``; and that it is seen and several of them use it or its browser."""
        days = self.days / (1 + self.days / device_days) if device_days else self.days
        shown, nobody = np.zeros(len(owner)), np.ones(len(owner))
        one = np.zeros(len(owner))
        alone = -np.expm1(-days * pace.device[owner] / own[owner])
        for nth in range(USERS[1]):
            user = (owner + nth) % self.people
            share = (nth < users) * days / (own[user] + (nth > 0))
            shown += share * pace.device[user]
            used = -np.expm1(-share * (pace.device[user] + pace.cookie[user]))
            one = one * (1 - used) + nobody * used
            nobody = nobody * (1 - used)
        together = -np.expm1(-shown)
        return alone, together, together * (1 - nobody - one)

    def _make_cookies(self, rng: np.random.Generator) -> None:
        """The lives of cookies, sorted by device, then time; ``value`` is the life that made it."""
        devices, length = len(self.devices), self.cookie_days
        self._turn = rng.permutation(devices)
        self._phase = self._turn * length // devices  # how far into a life each is on the first day
        first = (np.maximum(self.devices.starts, 0) + self._phase) // length
        last = (np.minimum(self.devices.ends, self.days) - 1 + self._phase) // length
        count = last - first + 1
        self._life = np.cumsum(count) - count - first
        self.cookie_device = np.repeat(np.arange(devices), count)
        self._epoch = np.arange(len(self.cookie_device)) - self._life[self.cookie_device]
        self.value = np.arange(len(self.cookie_device))
        self._first, self._last = first, last

    def _bounds_of(self, life: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(starts, ends) of cookies' lives, in days."""
        device = self.cookie_device[life]
        began = self._epoch[life] * self.cookie_days - self._phase[device]
        return (
            np.maximum(began, self.devices.starts[device]),
            np.minimum(began + self.cookie_days, self.devices.ends[device]),
        )

    def _seen_chance(self, pace: Pace) -> np.ndarray:
        """(lives,) the chance that a cookie is seen at all during its life."""
        uses = np.diff(self._begin)
        of_use = pace.cookie[self.user] / uses[self.user]
        of_place = np.add.reduceat(of_use, self.first_use[:-1])
        starts, ends = self._bounds_of(np.arange(len(self.value)))
        days = np.minimum(ends, self.days) - np.maximum(starts, 0)
        return -np.expm1(-of_place[self.devices.slot[self.cookie_device]] * days)

    def _recycle(self, rng: np.random.Generator, share: float, chance: np.ndarray) -> None:
        """Give some lives the value of somebody else's life that was over when they began.

        In each epoch a life may follow only that of one other device, which changes its cookies no
        later; so a value is held by one browser at a time.
        """
        turn, device, epoch = self._turn, self.cookie_device, self._epoch
        at_turn = np.argsort(turn)
        epochs = int(epoch.max()) + 1
        step = rng.integers(1, max(2, len(turn) // 10), epochs)
        wanted = turn[device] + step[epoch]
        before = at_turn[np.minimum(wanted, len(turn) - 1)]
        owners = self.owner[self.devices.slot]
        strangers = np.abs(owners[before] - owners[device]) >= USERS[1]
        possible = np.flatnonzero(
            (wanted < len(turn)) & (epoch >= 1) & (self._first[before] <= epoch - 1)
            & (epoch - 1 <= self._last[before]) & strangers
        )  # fmt: skip
        follows = self._life[before[possible]] + epoch[possible] - 1
        apart = chance[possible] + chance[follows]
        together = apart - chance[possible] * chance[follows]
        # Of all values seen, what is seen of the chosen ones shall be the share.
        mixed = rng.permutation(len(possible))
        had = np.cumsum(together[mixed])
        left = chance.sum() - np.cumsum((apart - together)[mixed])
        chosen = mixed[: int(np.searchsorted(had - share * left, 0.0))]
        chosen = chosen[np.argsort(epoch[possible[chosen]], kind="stable")]
        bounds = np.searchsorted(epoch[possible[chosen]], np.arange(epochs + 1))
        for each in range(epochs):  # in order, since a value may pass on again
            rows = chosen[bounds[each] : bounds[each + 1]]
            self.value[possible[rows]] = self.value[follows[rows]]

    # --- under which key --------------------------------------------------------------------
    def device_of(self, rng: np.random.Generator, person: np.ndarray, day: int) -> np.ndarray:
        """One of the devices that each person uses that day."""
        uses = self._begin[person + 1] - self._begin[person]
        place = self._place[self._begin[person] + (rng.random(len(person)) * uses).astype(np.int64)]
        return self.devices.at(day)[place]

    def code(
        self, kind: np.ndarray | int, person: np.ndarray, device: np.ndarray, day: int
    ) -> np.ndarray:
        """The key of a kind that a person holds that day; of the device that they use now."""
        cookie = self.value[self._life_of(device, day)]
        kind = np.broadcast_to(kind, person.shape)
        index = np.where(kind == COOKIE, cookie, np.where(kind == DEVICE, device, person))
        return index * 8 + kind

    def _life_of(self, device: np.ndarray, day: int) -> np.ndarray:
        return self._life[device] + (day + self._phase[device]) // self.cookie_days

    def see(self, codes: np.ndarray) -> None:
        """Remember that these keys are in the data."""
        self._seen[codes] = True

    def use(self, key: np.ndarray, person: np.ndarray, device: np.ndarray, day: int) -> None:
        """Remember who used which shared device and cookie, from the sessions of a day."""
        place = self.devices.slot[device]
        kind = key & 7
        rows = np.flatnonzero((self.users[place] > 1) & ((kind == COOKIE) | (kind == DEVICE)))
        nth = (person[rows] - self.owner[place[rows]]) % self.people
        self._used_device.append(device[rows] * 8 + nth)
        of_cookie = kind[rows] == COOKIE
        life = self._life_of(device[rows][of_cookie], day)
        self._used_life.append(life * 8 + nth[of_cookie])

    def seen(self, codes: np.ndarray) -> np.ndarray:
        """Whether each of these keys was in the data before."""
        return self._seen[codes]

    def names(self, codes: np.ndarray) -> tuple[pa.DictionaryArray, pa.Array]:
        """(key types, keys) of codes."""
        kind = codes & 7
        # A bijection of 48-bit numbers: an odd factor modulo a power of two.
        number = (codes.astype(np.uint64) * np.uint64(0x9E3779B97F4B)) & np.uint64(MASK)
        hidden = pc.binary_join_element_wise(self.letter, pa.array(number).cast(pa.string()), "")
        is_account = kind == ACCOUNT
        own = self.accounts.take(pa.array(np.where(is_account, codes >> 3, 0)))
        types = pa.DictionaryArray.from_arrays(pa.array(kind.astype(np.int8)), pa.array(KEY_TYPES))
        return types, pc.if_else(pa.array(is_account), own, hidden)

    # --- the truth --------------------------------------------------------------------------
    def holders(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(code, person, starts, ends) of every holder of every key that was seen, in days."""
        seen = np.flatnonzero(self._seen)
        own = seen[np.isin(seen & 7, (ACCOUNT, CARD, EMAIL))]
        always = np.full(len(own), BEFORE), np.full(len(own), AFTER)
        device = seen[(seen & 7) == DEVICE] >> 3
        life = np.flatnonzero(self._seen[self.value * 8 + COOKIE])
        parts = [
            (own, own >> 3, *always),
            self._by_user(
                device * 8 + DEVICE, device, device, self._used_device,
                self.devices.starts[device], self.devices.ends[device],
            ),
            self._by_user(
                self.value[life] * 8 + COOKIE, self.cookie_device[life], life, self._used_life,
                *self._bounds_of(life),
            ),
        ]  # fmt: skip
        code, person, starts, ends = (np.concatenate([p[i] for p in parts]) for i in range(4))
        return code, person, starts, ends

    def _by_user(
        self, code: np.ndarray, device: np.ndarray, thing: np.ndarray, used: list[np.ndarray],
        starts: np.ndarray, ends: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """A row per user of each device or cookie: of a shared one that was used, per person who
        did; ``used``: ``thing`` * 8 + which of its users."""
        place = self.devices.slot[device]
        users = self.users[place]
        row = np.repeat(np.arange(len(device)), users)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(users) - users, users)
        uses = np.unique(np.concatenate([*used, np.empty(0, np.int64)]))
        idle = ~np.isin(thing, uses >> 3)
        kept = np.isin(thing[row] * 8 + nth, uses) | idle[row]
        row, nth = row[kept], nth[kept]
        return code[row], self.user[self.first_use[place[row]] + nth], starts[row], ends[row]
