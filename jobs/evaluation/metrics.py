"""Ranking metrics per person, and intervals over people.

Lists are given flat: row i says that person ``person[i]`` (a code from 0) has a candidate with
``score[i]`` that is relevant or not. Ties in score keep the order of the rows.
"""

from __future__ import annotations

import numpy as np


def ranks(person: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(n,) int64: each row's place from 0 in its person's list, highest score first."""
    order = np.lexsort((np.arange(len(person)), -score, person))
    sorted_person = person[order]
    starts = np.r_[0, np.flatnonzero(np.diff(sorted_person)) + 1] if len(person) else np.zeros(1)
    lengths = np.diff(np.r_[starts, len(person)])
    places = np.empty(len(person), np.int64)
    places[order] = np.arange(len(person)) - np.repeat(starts, lengths).astype(np.int64)
    return places


def ndcg(
    person: np.ndarray, rank: np.ndarray, relevant: np.ndarray, wanted: np.ndarray, k: int
) -> np.ndarray:
    """(n_people,) NDCG@k with binary gains (Järvelin and Kekäläinen, 2002).

    ``rank``: places from 0; ``wanted``: (n_people,) how many relevant items each person has, in
    the list or not, all above 0; the ideal list has ``min(k, wanted)`` of them on top.
    """
    counted = relevant & (rank < k)
    gains = np.bincount(person[counted], 1.0 / np.log2(rank[counted] + 2.0), minlength=len(wanted))
    ideal = np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))
    return gains / ideal[np.minimum(wanted, k) - 1]


def recall(
    person: np.ndarray, rank: np.ndarray, relevant: np.ndarray, wanted: np.ndarray, k: int
) -> np.ndarray:
    """(n_people,) the share of a person's relevant items among the first ``k``."""
    counted = relevant & (rank < k)
    return np.bincount(person[counted], minlength=len(wanted)) / wanted


def precision(
    person: np.ndarray, rank: np.ndarray, relevant: np.ndarray, people: int, k: int
) -> np.ndarray:
    """(people,) the share of the first ``k`` places that hold a relevant item; a place that a short
    list leaves empty holds none."""
    counted = relevant & (rank < k)
    return np.bincount(person[counted], minlength=people) / k


def hit_rate(
    person: np.ndarray, rank: np.ndarray, relevant: np.ndarray, people: int, k: int
) -> np.ndarray:
    """(people,) 1.0 where one of the first ``k`` places holds a relevant item, else 0.0."""
    return (precision(person, rank, relevant, people, k) > 0).astype(float)


def average_precision(
    person: np.ndarray, rank: np.ndarray, relevant: np.ndarray, wanted: np.ndarray, k: int
) -> np.ndarray:
    """(n_people,) the precision at each relevant place of the first ``k``, summed, over
    ``min(k, wanted)``; its mean over people is MAP@k. Arguments as for :func:`ndcg`; an item stands
    once in a list."""
    rows = np.flatnonzero(relevant & (rank < k))
    rows = rows[np.lexsort((rank[rows], person[rows]))]
    of = person[rows]
    starts = np.searchsorted(of, of)
    at_place = (np.arange(len(rows)) - starts + 1) / (rank[rows] + 1)
    return np.bincount(of, at_place, minlength=len(wanted)) / np.minimum(wanted, k)


def gain_ndcg(
    person: np.ndarray, rank: np.ndarray, gain: np.ndarray, ideal: np.ndarray
) -> np.ndarray:
    """(n_people,) NDCG with linear gains (Järvelin and Kekäläinen, 2002).

    ``gain``: (n,) what each place brings, 0 for nothing; ``ideal``: (n_people, k) the k largest
    gains of each person, largest first, 0 where there are fewer. NaN for a person without any.
    """
    k = ideal.shape[1]
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    counted = rank < k
    found = np.bincount(
        person[counted], gain[counted] * discount[rank[counted]], minlength=len(ideal)
    )
    best = ideal @ discount
    return np.divide(found, best, out=np.full(len(ideal), np.nan), where=best > 0)


def interval(
    values: np.ndarray, seed: int, resamples: int = 1_000, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over people (Efron, 1979), of whom there must
    be one."""
    if len(values) == 0:
        raise ValueError("nobody to draw from: an interval is of one person at least")
    _, low, high = intervals(values[:, None], seed, resamples, level)
    return float(low[0]), float(high[0])


def intervals(
    values: np.ndarray, seed: int, resamples: int = 1_000, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of (n_people, n_columns) values with percentile bootstrap intervals over people.

    One draw serves all columns (Efron, 1979). Zeros where there are no people.
    """
    size, columns = values.shape
    if size == 0:
        return np.zeros(columns), np.zeros(columns), np.zeros(columns)
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, columns))
    for row in range(resamples):
        counts = np.bincount(generator.integers(0, size, size), minlength=size)
        drawn[row] = counts @ values / size
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return values.mean(axis=0), low, high


def wilson(hits: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval (1927) of a share of ``hits`` in ``trials``, 95 % by default."""
    share, spread = hits / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * ((share * (1 - share) + spread / 4) / trials) ** 0.5 / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
