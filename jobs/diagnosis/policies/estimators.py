"""What a policy would bring, estimated from lists that another policy showed (arrays alone).

A list is judged place by place: its reward is the sum over its places, and the chance of an item
at a place does not depend on what else is shown. This is the item-position model of Li,
Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen (Offline Evaluation of Ranking Policies with
Click Models, 2018), also called independent IPS. It needs only the marginal chance that the item
stood at the place. Weights of whole lists would need the chance of the list, which is not logged.

Estimators, with w the target's chance over the logged one:

- ``ips``: the mean of w r (Horvitz and Thompson, 1952);
- ``clipped_ips``: w no larger than a bound (Ionides, 2008; Strehl, Langford, Li and Kakade, 2010);
- ``snips``: place by place, over the sum of w (Swaminathan and Joachims, 2015);
- ``direct``: what a reward model expects of the target's items;
- ``doubly_robust``: that plus w times the model's error (Dudik, Erhan, Langford and Li, 2014);
- ``position_based``: rewards of an item at any place count, by the position-based model of Li et
  al.: w is the target's chance that the item is looked at over the logged one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

from jobs.diagnosis.policies.bootstrap import LEVEL, Bootstrap, Estimate, dealt, percentile

ESTIMATORS = ("ips", "snips", "clipped_ips", "direct", "doubly_robust", "position_based")
# Rewards of an average item that an item starts from in the reward model. More of them draw rare
# items nearer to the mean: 5 made the direct method wrong by 9 % on the simulator, 1 by 5 %.
PRIOR = 1.0
TAIL = 0.01


@dataclass(frozen=True)
class Log:
    """Logged rows; all (n,), row i is what stood at a place of a request, once a place.

    ``request``, ``context``, ``item``: codes from 0; ``place`` from 0; ``propensity`` in (0, 1]:
    the chance of the item at that place. ``segment``: (contexts,) codes of what the reward model
    tells apart; contexts with one code learn from each other. ``items``: how many there are; a
    target may name others than were shown. ``visitor``: (requests,) codes of whose a request is,
    None where each is another's.
    """

    request: np.ndarray
    place: np.ndarray
    context: np.ndarray
    item: np.ndarray
    propensity: np.ndarray
    reward: np.ndarray
    segment: np.ndarray
    items: int
    visitor: np.ndarray | None = None

    @cached_property
    def requests(self) -> int:
        return int(self.request.max(initial=-1)) + 1

    @cached_property
    def places(self) -> int:
        return int(self.place.max(initial=-1)) + 1

    @cached_property
    def shown(self) -> np.ndarray:
        """(contexts * places,) how many requests of a context have a place."""
        return np.bincount(self.slot, minlength=len(self.segment) * self.places)

    @cached_property
    def slot(self) -> np.ndarray:
        """(n,) the context and place of a row as one code."""
        return self.context * self.places + self.place

    def key(self, context: np.ndarray, place: np.ndarray, item: np.ndarray) -> np.ndarray:
        return (context * self.places + place) * self.items + item

    @cached_property
    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """The sorted keys of what stood where in which context, and (n,) each row's cell."""
        found, row = np.unique(self.key(self.context, self.place, self.item), return_inverse=True)
        return found, row


@dataclass(frozen=True)
class Target:
    """A policy: (m,) its chance of an item at a place in a context, in the codes of the log.

    Chances of a context and place add up to 1; what is not named has none.
    """

    context: np.ndarray
    place: np.ndarray
    item: np.ndarray
    chance: np.ndarray


@dataclass(frozen=True)
class Support:
    """How much the log says of a target.

    ``effective_sample_size``: Kish's, of rows, over the mean number of places: as many
    requests of the target itself would say as much. ``effective_rewards``: the same of the
    weighted rewards, not divided. ``largest_weight`` and ``weight_tail``: the share of all weight
    that one row and the heaviest hundredth of rows have. ``overlap``: the share of the target's
    mass on cells that were logged with a chance of at least the floor. ``mean_weight``: 1 where
    the logged chances are right and all that the target would show may be logged.
    """

    effective_sample_size: float
    effective_rewards: float
    largest_weight: float
    weight_tail: float
    overlap: float
    mean_weight: float


class Evaluation:
    """A log made ready for any number of targets, which share the draws.

    All is drawn by visitor. The reward model is not fitted anew in a replicate: it never saw the
    visitors whose rows it corrects (cross-fitting), and ``direct``, which rests on it alone, has a
    delete-a-group jackknife over the folds instead. Neither knows what shrinkage makes it miss.
    """

    def __init__(
        self, log: Log, seed: int, *, replicates: int = 1_000, folds: int = 10, clip: float = 10.0,
        floor: float = 0.001, looks: np.ndarray | None = None,
    ):  # fmt: skip
        self.log, self.clip, self.floor = log, clip, floor
        self.looks = looks if looks is not None else looks_at(log, log.reward)
        self.bootstrap = Bootstrap(log.request, seed, replicates, log.visitor)
        visitor = np.arange(log.requests) if log.visitor is None else log.visitor
        of_request = dealt(visitor, folds, np.random.default_rng([seed, 47]))
        self.fold, self.fold_sizes = of_request[log.request], np.bincount(of_request, None, folds)
        self.models = [_fit(log, self.fold != one) for one in range(folds)]

    def logged(self) -> Estimate:
        """What the logged lists themselves brought."""
        return self.bootstrap.mean(self.log.reward)

    def of(self, target: Target) -> tuple[dict[str, Estimate], Support]:
        """Every estimator's answer and how much the log says of this target."""
        log = self.log
        chance = self._chance(target)
        weight = chance / log.propensity
        told, expected = self._expected(target)
        mean = self.bootstrap.mean
        found = {
            "ips": mean(weight * log.reward),
            "snips": self._normalised(weight),
            "clipped_ips": mean(np.minimum(weight, self.clip) * log.reward),
            "direct": self._jackknife(target),
            "doubly_robust": mean(told + weight * (log.reward - expected)),
            "position_based": mean(self._looked(target) * log.reward),
        }
        return found, self._support(target, weight)

    # --- estimators --------------------------------------------------------------------------
    def _normalised(self, weight: np.ndarray) -> Estimate:
        """Place by place the weighted mean reward, times the share of requests with the place."""
        drawn = self.bootstrap
        shape = (drawn.groups, self.log.places)
        slot = drawn.group * self.log.places + self.log.place
        count, total, earned = (
            np.bincount(slot, rows, minlength=shape[0] * shape[1]).reshape(shape)
            for rows in (np.ones(len(weight)), weight, weight * self.log.reward)
        )

        def value(draws: np.ndarray) -> np.ndarray:
            by_place = _ratio(draws @ earned, draws @ total) * (draws @ count)
            return by_place.sum(axis=1) / np.maximum(draws @ drawn.sizes, 1.0)

        return percentile(value(np.ones((1, shape[0])))[0], value(drawn.draws))

    def _jackknife(self, target: Target) -> Estimate:
        """The direct method with each group of visitors left out in turn (Kott, 2001)."""
        log, folds = self.log, len(self.models)
        values = np.empty(folds)
        for one, model in enumerate(self.models):
            out = np.bincount(log.slot[self.fold == one], minlength=len(log.shown))
            kept = max(log.requests - self.fold_sizes[one], 1)
            values[one] = ((log.shown - out) * self._by_slot(target, model)).sum() / kept
        value = float(values.mean())
        error = np.sqrt((folds - 1) / folds * ((values - value) ** 2).sum())
        half = float(stdtrit(folds - 1, (1 + LEVEL) / 2) * error)
        return Estimate(value, value - half, value + half, values)

    def _by_slot(self, target: Target, model: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(contexts * places,) what a model expects of the target."""
        log, (by_place, appeal) = self.log, model
        of_item = appeal[log.segment[target.context], target.item]
        return np.bincount(
            target.context * log.places + target.place,
            target.chance * by_place[target.place] * of_item,
            minlength=len(log.shown),
        )

    def _expected(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        """(n,) each what the model expects of the target and of the logged item, a row's place,
        by the model that was fitted without the row's fold."""
        log = self.log
        told, expected = np.empty(len(log.place)), np.empty(len(log.place))
        for one, model in enumerate(self.models):
            rows = np.flatnonzero(self.fold == one)
            told[rows] = self._by_slot(target, model)[log.slot[rows]]
            segment = log.segment[log.context[rows]]
            expected[rows] = model[0][log.place[rows]] * model[1][segment, log.item[rows]]
        return told, expected

    # --- weights -----------------------------------------------------------------------------
    def _chance(self, target: Target) -> np.ndarray:
        """(n,) the target's chance of what was logged."""
        cells, row = self.log.cells
        key = self.log.key(target.context, target.place, target.item)
        place = np.minimum(np.searchsorted(cells, key), len(cells) - 1)
        known = cells[place] == key
        return np.bincount(place[known], target.chance[known], minlength=len(cells))[row]

    def _looked(self, target: Target) -> np.ndarray:
        """(n,) weights of the position-based model.

        The log has a chance only of where an item stood. Its chance at the other places is the
        row's own, by the ratio of the item's harmonic means there and here over the context; where
        it never stood, by their mean over the places where it did. A place counts as often as
        lists of the context have it.
        """
        log = self.log
        pairs, row = np.unique(log.context * log.items + log.item, return_inverse=True)
        shape = (len(pairs), log.places)
        slot, size = row * log.places + log.place, shape[0] * shape[1]
        # The mean over shown rows would be too high where chances vary: high ones show more often.
        usual = _ratio(
            np.bincount(slot, minlength=size), np.bincount(slot, 1 / log.propensity, minlength=size)
        ).reshape(shape)
        seen = usual > 0
        filled = np.where(seen, usual, (usual.sum(axis=1) / seen.sum(axis=1))[:, None])
        shown = log.shown.reshape(-1, log.places)
        looks = self.looks * _ratio(shown, shown.max(axis=1, keepdims=True))
        there = (filled * looks[pairs // log.items]).sum(axis=1)
        logged = there[row] * log.propensity / usual.ravel()[slot]
        key = target.context * log.items + target.item
        place = np.minimum(np.searchsorted(pairs, key), len(pairs) - 1)
        known = pairs[place] == key
        wanted = np.bincount(
            place[known],
            (target.chance * looks[target.context, target.place])[known],
            minlength=len(pairs),
        )
        return _ratio(wanted[row], logged)

    def _support(self, target: Target, weight: np.ndarray) -> Support:
        log, total = self.log, float(weight.sum())
        cells, row = log.cells
        logged = _ratio(np.bincount(row, log.propensity), np.bincount(row))
        mass = target.chance * log.shown[target.context * log.places + target.place]
        key = log.key(target.context, target.place, target.item)
        place = np.minimum(np.searchsorted(cells, key), len(cells) - 1)
        covered = (cells[place] == key) & (logged[place] >= self.floor)
        heaviest = max(1, round(TAIL * len(weight)))
        tail = np.partition(weight, len(weight) - heaviest)[-heaviest:]
        return Support(
            effective_sample_size=kish(weight) / (len(weight) / log.requests),
            effective_rewards=kish(weight * log.reward),
            largest_weight=float(weight.max()) / total if total else 1.0,
            weight_tail=min(float(tail.sum()) / total, 1.0) if total else 1.0,
            overlap=min(float(mass[covered].sum() / mass.sum()), 1.0) if mass.any() else 0.0,
            mean_weight=total / len(weight),
        )


def looks_at(log: Log, outcome: np.ndarray) -> np.ndarray:
    """(places,) how often a place is looked at beside the one that is looked at most.

    By what the uniform policy's items would bring there (self-normalised), so that better items on
    top do not pass for attention (as by swaps in Joachims, Swaminathan and Schnabel, 2017).
    ``outcome``: (n,) the reward, or a more frequent one that needs a look all the same.
    """
    inverse = 1.0 / log.propensity
    earned = np.bincount(log.place, outcome * inverse, minlength=log.places)
    mean = np.maximum(_ratio(earned, np.bincount(log.place, inverse, minlength=log.places)), 0.0)
    return mean / mean.max() if mean.any() else np.ones(log.places)


def _fit(log: Log, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A reward model of some rows: (places,) mean rewards and (segments, items) factors.

    An item's factor is what it brought over what its places bring, and its segment's the same over
    that; both start from ``PRIOR`` rewards at factor 1 (Gamma-Poisson shrinkage, DuMouchel, 1999).
    """
    place, item, reward = log.place[rows], log.item[rows], log.reward[rows]
    segments = int(log.segment.max(initial=-1)) + 1
    rewarded = np.count_nonzero(reward)
    prior = PRIOR * reward.sum() / rewarded if rewarded else 0.0
    if prior <= 0:
        return np.zeros(log.places), np.ones((segments, log.items))

    def factor(code: np.ndarray, expected: np.ndarray, size: int) -> np.ndarray:
        earned = np.bincount(code, reward, minlength=size)
        return (earned + prior) / (np.bincount(code, expected, minlength=size) + prior)

    base = reward.mean() * factor(place, np.full(len(place), reward.mean()), log.places)
    expected = base[place]
    of_item = factor(item, expected, log.items)
    both = log.segment[log.context[rows]] * log.items + item
    of_both = factor(both, expected * of_item[item], segments * log.items)
    return base, of_item * of_both.reshape(segments, log.items)


def kish(weight: np.ndarray) -> float:
    """How many rows of one weight rows of these weights are worth (Kish, 1965)."""
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Their ratio, 0 where the lower is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
