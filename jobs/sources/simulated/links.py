"""What becomes known of which keys belong together: the one model of links and of their noise.

Logins, clicks in e-mails and a matcher's guesses come from sessions; registrations of cards and
e-mail addresses, and households, from people. Some guesses are wrong. Then links are delivered:
some late, some twice, and some are taken back.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.sources import writing
from jobs.sources.simulated import truth
from jobs.sources.simulated.keys import ACCOUNT, CARD, COOKIE, DEVICE, EMAIL, Keyring
from jobs.sources.simulated.settings import KeySettings

SOURCES = ("login", "registration", "email_click", "household", "probabilistic")
LOGIN, REGISTRATION, EMAIL_CLICK, HOUSEHOLD, PROBABILISTIC = range(len(SOURCES))
SURE = (0.95, 0.02)  # mean and deviation of a right guess's confidence
UNSURE = (0.70, 0.10)  # and of a wrong one's
LIVING_TOGETHER = 0.9  # confidence of a household link
REGISTERED = 0.7  # share of cards that are registered with an account
ADDRESSED = 0.8  # share of people whose account has an e-mail address
SIZES = (2, 5)  # of a household, least and most
SECOND = 1_000_000  # in microseconds
DAY = 86_400 * SECOND


@dataclass
class Sessions:
    """Sessions of one day: (n,) the person, the key's code, the device that is used (of a session
    in a store, one that is not), and first and last instant in microseconds."""

    person: np.ndarray
    key: np.ndarray
    device: np.ndarray
    began: np.ndarray
    ended: np.ndarray


@dataclass
class Links:
    """Observed links as columns; times in microseconds."""

    a: np.ndarray  # codes of keys
    b: np.ndarray
    source: np.ndarray
    confidence: np.ndarray
    observed: np.ndarray
    received: np.ndarray
    unlink: np.ndarray  # whether the link is taken back
    true: np.ndarray  # whether what it says was so when it was observed
    person: np.ndarray  # whose keys they are; of a household or a wrong guess, the first key's

    def pick(self, rows: np.ndarray) -> Links:
        return Links(*(getattr(self, each.name)[rows] for each in fields(self)))

    @staticmethod
    def join(parts: list[Links]) -> Links:
        return Links(*(
            np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Links)
        ))  # fmt: skip


def observed(
    a: np.ndarray, b: np.ndarray, source: int, confidence: np.ndarray | float, time: np.ndarray,
    person: np.ndarray, true: np.ndarray | bool = True,
) -> Links:  # fmt: skip
    """Links from one source, not yet delivered."""
    shape = a.shape
    return Links(
        a=a, b=b, source=np.full(shape, source), confidence=np.broadcast_to(confidence, shape),
        observed=time, received=time, unlink=np.zeros(shape, bool),
        true=np.broadcast_to(true, shape), person=person,
    )  # fmt: skip


def of_sessions(
    rng: np.random.Generator, keyring: Keyring, settings: KeySettings, day: int, sessions: Sessions
) -> tuple[Links, np.ndarray]:
    """What a day's sessions show; and of each session the instant at which somebody logs in, or
    far in the future."""
    count = len(sessions.person)
    kind = sessions.key & 7
    anonymous = (kind == COOKIE) | (kind == DEVICE)
    logs_in = np.flatnonzero(anonymous & (rng.random(count) < settings.logins))
    length = sessions.ended - sessions.began
    login_time = np.full(count, np.iinfo(np.int64).max)
    login_time[logs_in] = sessions.began[logs_in] + (
        rng.random(len(logs_in)) * length[logs_in]
    ).astype(np.int64)
    mailed = np.flatnonzero((kind == COOKIE) & (rng.random(count) < settings.email_clicks))
    guessed = np.flatnonzero(anonymous & (rng.random(count) < settings.guesses))
    account = sessions.person * 8 + ACCOUNT
    links = [
        observed(
            sessions.key[logs_in], account[logs_in], LOGIN, 1.0, login_time[logs_in],
            sessions.person[logs_in],
        ),
        observed(
            sessions.key[mailed], sessions.person[mailed] * 8 + EMAIL, EMAIL_CLICK, 1.0,
            sessions.began[mailed], sessions.person[mailed],
        ),
        _guesses(rng, keyring, settings, day, sessions, guessed),
    ]  # fmt: skip
    return Links.join(links), login_time


def _guesses(
    rng: np.random.Generator, keyring: Keyring, settings: KeySettings, day: int,
    sessions: Sessions, rows: np.ndarray,
) -> Links:  # fmt: skip
    """A matcher ties a session's key to the person's account or, where it has seen it before, to
    the other key of the device; where it is wrong, to those of somebody else of that day."""
    stranger = rng.integers(0, max(1, len(sessions.person)), len(rows))
    wrong = (rng.random(len(rows)) < settings.false_links) & (
        sessions.person[rows] != sessions.person[stranger]
    )
    whose = np.where(wrong, stranger, rows)
    twin = np.where((sessions.key[rows] & 7) == COOKIE, DEVICE, COOKIE)
    person, device = sessions.person[whose], sessions.device[whose]
    other = keyring.code(twin, person, device, day)
    other = np.where(
        (rng.random(len(rows)) < 0.5) & keyring.seen(other), other, person * 8 + ACCOUNT
    )
    mean, deviation = (np.where(wrong, UNSURE[i], SURE[i]) for i in range(2))
    confidence = np.clip(rng.normal(mean, deviation), 0.05, 0.999)
    return observed(
        sessions.key[rows], other, PROBABILISTIC, np.round(confidence, 4), sessions.ended[rows],
        sessions.person[rows], ~wrong,
    )  # fmt: skip


def of_people(
    rng: np.random.Generator, keyring: Keyring, households: np.ndarray, start: int
) -> Links:
    """Registrations and households: most from before the data, some during it.

    ``households``: (people,) a number each; ``start``: the data's first instant, microseconds.
    """
    person = np.arange(keyring.people)
    card = person[keyring.has_card & (rng.random(len(person)) < REGISTERED)]
    mail = person[rng.random(len(person)) < ADDRESSED]
    other = person[1:][households[1:] == households[:-1]]
    first = np.searchsorted(households, households[other])

    def moments(count: int) -> np.ndarray:
        earlier = rng.random(count) < 0.6
        day = np.where(earlier, rng.uniform(-300, 0, count), rng.uniform(0, keyring.days, count))
        return start + (day * DAY).astype(np.int64)

    return Links.join([
        observed(card * 8 + CARD, card * 8 + ACCOUNT, REGISTRATION, 1.0, moments(len(card)), card),
        observed(mail * 8 + ACCOUNT, mail * 8 + EMAIL, REGISTRATION, 1.0, moments(len(mail)), mail),
        observed(
            first * 8 + ACCOUNT, other * 8 + ACCOUNT, HOUSEHOLD, LIVING_TOGETHER,
            moments(len(other)), first,
        ),
    ])  # fmt: skip


def households(rng: np.random.Generator, people: int, share: float) -> np.ndarray:
    """(people,) the household of each, ascending; a ``share`` of people live with others."""
    together = (SIZES[0] + SIZES[1]) / 2
    alone = together * (1 - share) / share if share else np.inf
    several = rng.random(people) < 1 / (1 + alone)
    size = np.where(several, rng.integers(SIZES[0], SIZES[1] + 1, people), 1)
    return np.repeat(np.arange(people), size)[:people]


def deliver(rng: np.random.Generator, links: Links, settings: KeySettings) -> Links:
    """Links as they arrive: with what is taken back, what comes a day late and what comes twice."""
    mutable = np.isin(links.source, (LOGIN, EMAIL_CLICK, PROBABILISTIC))
    back = links.pick(np.flatnonzero(mutable & (rng.random(len(links.a)) < settings.unlinks)))
    back.observed = back.observed + (rng.uniform(1, 30, len(back.a)) * DAY).astype(np.int64)
    back.unlink = np.ones(len(back.a), bool)
    links = Links.join([links, back])
    lag = rng.exponential(60 * SECOND, len(links.a))
    late = rng.random(len(links.a)) < settings.links_late
    lag = np.where(late, DAY + rng.uniform(0, 7200 * SECOND, len(lag)), lag)
    links.received = links.observed + lag.astype(np.int64)
    again = links.pick(np.flatnonzero(rng.random(len(links.a)) < settings.link_duplicates))
    again.received = again.received + rng.integers(1, 21_600 * SECOND, len(again.a))
    links = Links.join([links, again])
    return links.pick(np.argsort(links.received, kind="stable"))


def write(folder: Path, keyring: Keyring, links: Links) -> int:
    """Write ``identity_links`` and, row by row the same, ``truth/links``; returns the rows."""
    keyring.see(links.a)
    keyring.see(links.b)
    type_a, key_a = keyring.names(links.a)
    type_b, key_b = keyring.names(links.b)
    names = pa.array(SOURCES), pa.array(["link", "unlink"])
    columns = {
        "key_type_a": type_a, "key_a": key_a, "key_type_b": type_b, "key_b": key_b,
        "source": pa.DictionaryArray.from_arrays(pa.array(links.source.astype(np.int8)), names[0]),
        "confidence": pa.array(links.confidence),
        "observed_time": truth.utc(links.observed),
        "received_time": truth.utc(links.received),
        "action": pa.DictionaryArray.from_arrays(pa.array(links.unlink.astype(np.int8)), names[1]),
    }  # fmt: skip
    told = {"true": pa.array(links.true), "person": pa.array(links.person)}
    truth.write(folder, "links", pa.table({**columns, **told}))
    return writing.write(folder, "identity_links", **columns)
