"""Who is in which arm: a salted hash, and in a table for the known so that the arms are balanced.

Serving and the diagnosis use this one module. A person's place in [0, 1) is the sha256 of the
experiment's salt and the person; the arms lie side by side on [0, 1), each as wide as its share and
in the order of their names. The place never changes, so a person stays in one arm through every
session, on every machine, without a store; another salt shuffles all anew.

Of a few thousand people chance alone may put more of the big spenders in one arm. ``balanced``
takes those who are known when the experiment begins, orders each stratum (new or returning, low or
high value) by the places, and cuts it at the shares: a permuted assignment that leaves no stratum
off by more than one person. It is made once and kept; who comes later gets the arm of the plain
hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

NEW, LOW, HIGH = STRATA = ("new", "returning, low value", "returning, high value")
BITS = 53  # of the hash: as many as a double holds, so that no place is rounded up to 1


@dataclass(frozen=True)
class Assignment:
    """An experiment's arms: the plain hash, and before it ``known``, the arm of each person whom
    ``balanced`` placed."""

    salt: str
    arms: Mapping[str, float]
    known: Mapping[str, str] = field(default_factory=dict)

    def arm(self, person: str) -> str:
        """The arm of one person, always the same."""
        return self.known.get(person) or assign(self.salt, person, self.arms)

    def arms_of(self, persons: Sequence[str]) -> np.ndarray:
        """(n,) codes of the arms of many, as places in ``sorted(arms)``."""
        found = assign_all(self.salt, persons, self.arms)
        if self.known:
            names = sorted(self.arms)
            of_known = (self.known.get(person) for person in persons)
            code = np.array([-1 if arm is None else names.index(arm) for arm in of_known], np.int64)
            found = np.where(code >= 0, code, found)
        return found


def place(salt: str, person: str) -> float:
    """The person's place in [0, 1); the separator keeps ("a", "bc") and ("ab", "c") apart."""
    digest = hashlib.sha256(f"{salt}\x1f{person}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - BITS)) / 2**BITS


def places(salt: str, persons: Sequence[str]) -> np.ndarray:
    """(n,) places of many."""
    found = (place(salt, person) for person in persons)
    return np.fromiter(found, float, len(persons))


def assign(salt: str, person: str, arms: Mapping[str, float]) -> str:
    """The arm of one person. ``arms``: shares above 0, 1 together."""
    return sorted(arms)[int(_cut(np.array([place(salt, person)]), arms)[0])]


def assign_all(salt: str, persons: Sequence[str], arms: Mapping[str, float]) -> np.ndarray:
    """(n,) codes of the arms of many, as places in ``sorted(arms)``."""
    return _cut(places(salt, persons), arms)


def balanced(
    salt: str, persons: Sequence[str], stratum: np.ndarray, arms: Mapping[str, float]
) -> np.ndarray:
    """(n,) codes of arms that are balanced in every stratum, as places in ``sorted(arms)``.

    ``stratum``: (n,) codes from 0. The person of rank r among the n of a stratum, by place, gets
    the arm at (r + u) / n; u, of the hash too, decides by chance which arm an odd person goes to.
    """
    at = places(salt, persons)
    order = np.lexsort((at, stratum))
    size = np.bincount(stratum)
    first = np.cumsum(size) - size
    rank = np.arange(len(order)) - first[stratum[order]]
    offset = places(salt, [f"stratum {code}" for code in range(len(size))])
    found = np.empty(len(order), np.int64)
    found[order] = _cut((rank + offset[stratum[order]]) / size[stratum[order]], arms)
    return found


def strata(returning: np.ndarray, before_value: np.ndarray) -> np.ndarray:
    """(n,) codes in ``STRATA``: high value is above the median of those who had bought.

    ``returning``: (n,) bool; ``before_value``: (n,) money spent before the experiment.
    """
    middle = np.median(before_value[returning]) if returning.any() else 0.0
    high = returning & (before_value > middle)
    return np.where(high, 2, np.where(returning, 1, 0))


def _cut(at: np.ndarray, arms: Mapping[str, float]) -> np.ndarray:
    ends = np.cumsum([arms[name] for name in sorted(arms)])
    # The last arm has the rest, whatever the sum of the shares was rounded to.
    return np.searchsorted(ends[:-1], at, side="right")
