"""What rules and ordering stages changed: the published lists beside the model's own.

Pure arrays. Two lists of each person are compared, one before and one after: the model's with what
the rules make of it, then this with what the stages (demotion, diversity, explore) make of it. So
a stage never adds to what rules are said to have changed.

A *slot* is a place of a person's list. It counts as changed by a cause where the item in it is
there because of the cause, each slot once in each comparison:

- a pinned item that stood elsewhere or not at all, and a boosted one that was not listed, or lower
  among the items that both lists hold: the pin's or the boost's;
- an item that was not listed and that fills the room of one that a rule took out (ban, margin
  floor, cap, or a boost below 1), or that a demotion pushed out: that rule's or stage's. A person's
  newcomers and missing items are matched in order, the causes in theirs;
- a place that was filled and that stays empty: the cause of the missing item;
- an item that was drawn to explore, or that stands for the sake of spread: that stage's.

Items that only move up or down because of these are no change. What a change costs is the model's
score of the item that left less that of the item that came, so that all causes together lose what
the published lists have less of the model's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from jobs.ordering.lists import Listed, places
from jobs.ordering.rules import Rule
from jobs.tables import TABLES

# Behind the rules, in the order in which they act.
STAGES = ("demotion", "diversity", "explore")
MODEL = -1
BY_RULE, BY_MODEL = "rule", "model"
PLACED_BY = (BY_MODEL, BY_RULE, *STAGES)
STAGE, ALL = "stage", "all"


@dataclass(frozen=True)
class Reasons:
    """Why a pair may have come to a list or left it; (n_pairs,) codes of causes, -1 for none.

    ``removed_by``: the rule that takes it out, or whose cap is full; ``boosted_by``: the boost that
    moves it, and ``raised``: (n_pairs,) bool, whether up; ``pinned_by``; ``demoted``: bool.
    """

    removed_by: np.ndarray
    boosted_by: np.ndarray
    raised: np.ndarray
    pinned_by: np.ndarray
    demoted: np.ndarray


def no_reasons(pairs: int) -> Reasons:
    """Nothing to come or go for."""
    none, no = np.full(pairs, -1), np.zeros(pairs, bool)
    return Reasons(none, none, no, none, no)


def only_demoted(reasons: Reasons) -> Reasons:
    """The same without what rules do."""
    return replace(no_reasons(len(reasons.demoted)), demoted=reasons.demoted)


@dataclass(frozen=True)
class Changes:
    """``cause``: (n_places,) of each place of the lists after, a rule's code, or ``n_rules`` and a
    stage's, -1 for none; ``slots`` and ``value``: (n_rules + n_stages,) what each cause changed and
    cost; ``places``: slots of either list; ``mass``: the model's score of the lists before."""

    cause: np.ndarray
    slots: np.ndarray
    value: np.ndarray
    places: int
    mass: float


def compare(
    person: np.ndarray,
    score: np.ndarray,
    model: Listed,
    published: Listed,
    reasons: Reasons,
    n_rules: int,
    explored: np.ndarray | None = None,
    otherwise: str = "diversity",
) -> Changes:
    """Attribute every change from the lists ``model`` to the lists ``published``.

    ``person``, ``score``: (n_pairs,); ``explored``: (n_places,) bool of the published places;
    ``otherwise``: the stage that a newcomer is owed to for whose room nothing else accounts.
    """
    demotion, _, explore = range(n_rules, n_rules + len(STAGES))
    causes = n_rules + len(STAGES)
    pair = published.pair
    rank_in_model = _ranks(model, len(person))
    rank_published = _ranks(published, len(person))
    new, gone = rank_in_model[pair] == 0, rank_published[model.pair] == 0

    cause = np.full(len(pair), MODEL)
    lifted = reasons.raised[pair] & (reasons.boosted_by[pair] >= 0)
    lifted &= new | _rose(person, model, published, rank_in_model, rank_published, reasons)
    cause[lifted] = reasons.boosted_by[pair[lifted]]
    pinned = (reasons.pinned_by[pair] >= 0) & (rank_in_model[pair] != published.rank)
    cause[pinned] = reasons.pinned_by[pair[pinned]]
    if explored is not None:
        cause[explored & new] = explore

    left = model.pair[gone]
    lowered = np.where(reasons.raised[left], MODEL, reasons.boosted_by[left])
    why = reasons.removed_by[left]
    why = np.where(why < 0, lowered, why)
    why = np.where((why < 0) & reasons.demoted[left], demotion, why)
    slots, value = np.zeros(causes, np.int64), np.zeros(causes)

    # Newcomers without a cause of their own fill the room of what was taken out.
    fillers = np.flatnonzero(new & (cause == MODEL))
    known = np.flatnonzero(why >= 0)
    known = known[np.lexsort((why[known], person[left[known]]))]
    match = _matched(person[pair[fillers]], person[left[known]])
    filled, by = fillers[match >= 0], known[match[match >= 0]]
    cause[filled] = why[by]
    cause[fillers[match < 0]] = n_rules + STAGES.index(otherwise)
    np.add.at(value, why[by], score[left[by]] - score[pair[filled]])

    # The rest came by a cause of their own, and pushed out what is missing else.
    rest = np.setdiff1d(np.flatnonzero(new), filled)
    rest = rest[np.lexsort((cause[rest], person[pair[rest]]))]
    missing = np.setdiff1d(np.arange(len(left)), by)
    match = _matched(person[pair[rest]], person[left[missing]])
    np.add.at(value, cause[rest], -score[pair[rest]])
    pushed = missing[match[match >= 0]]
    np.add.at(value, cause[rest[match >= 0]], score[left[pushed]])
    empty = np.setdiff1d(missing, pushed)
    lost = np.where(why[empty] >= 0, why[empty], explore)
    np.add.at(value, lost, score[left[empty]])
    np.add.at(slots, lost, 1)
    np.add.at(slots, cause[cause >= 0], 1)

    people = int(person.max(initial=-1)) + 1
    sizes = np.maximum(*(
        np.bincount(person[listed.pair], minlength=people) for listed in (model, published)
    ))  # fmt: skip
    return Changes(cause, slots, value, int(sizes.sum()), float(score[model.pair].sum()))


def causes(
    ruled: Listed, by_rules: Changes, published: Listed, by_stages: Changes | None
) -> np.ndarray:
    """(n_places,) the cause of each published place: a stage's, else the rule's that put the item
    into the list that the rules alone make, else -1."""
    if by_stages is None:
        return by_rules.cause
    size = int(max(ruled.pair.max(initial=-1), published.pair.max(initial=-1))) + 1
    of_pair = np.full(size, MODEL)
    of_pair[ruled.pair] = by_rules.cause
    return np.where(by_stages.cause >= 0, by_stages.cause, of_pair[published.pair])


def _ranks(listed: Listed, pairs: int) -> np.ndarray:
    """(n_pairs,) the rank of each pair in these lists, 0 where it is in none."""
    found = np.zeros(pairs, np.int64)
    found[listed.pair] = listed.rank
    return found


def _rose(
    person: np.ndarray, model: Listed, published: Listed, rank_in_model: np.ndarray,
    rank_published: np.ndarray, reasons: Reasons,
) -> np.ndarray:  # fmt: skip
    """(n_places,) bool: whether the item stands higher than the model had it, among the items that
    both lists hold and no rule pins."""
    both = (rank_in_model > 0) & (rank_published > 0) & (reasons.pinned_by < 0)
    orders = []
    for listed in (model, published):
        shared = listed.pair[both[listed.pair]]
        order = np.zeros(len(person), np.int64)
        order[shared] = places(person[shared])
        orders.append(order)
    return orders[1][published.pair] < orders[0][published.pair]


def _matched(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n_left,) the row of ``right`` that each row of ``left`` is matched with, a person's first
    with their first; -1 for none. Both hold persons, ascending."""
    first, last = (np.searchsorted(right, left, side) for side in ("left", "right"))
    at = first + places(left) - 1
    return np.where(at < last, at, -1)


# --- over a night ----------------------------------------------------------------------------
class Tally:
    """The changes of all blocks of people of one surface."""

    def __init__(self, surface: str, rules: Sequence[Rule], stages: Sequence[str]):
        """``stages``: those that are on."""
        self._surface, self._rules, self._stages = surface, rules, stages
        self._slots = np.zeros(len(rules) + len(STAGES), np.int64)
        self._value = np.zeros(len(rules) + len(STAGES))
        self._places, self._mass = 0, 0.0

    def add(self, by_rules: Changes, by_stages: Changes | None) -> None:
        self._places += by_rules.places
        self._mass += by_rules.mass
        for changes in (by_rules, by_stages):
            if changes is not None:
                self._slots += changes.slots
                self._value += changes.value

    def table(self) -> pa.Table:
        """The table ``overrides``: a row per rule in force, per stage that is on or changed
        something, and one of all rules together."""
        count = len(self._rules)
        rows = [
            self._row(rule.kind, rule.rule_id, self._slots[code], self._value[code])
            for code, rule in enumerate(self._rules)
        ]
        for code, stage in enumerate(STAGES, start=count):
            if stage in self._stages or self._slots[code]:
                rows.append(self._row(STAGE, stage, self._slots[code], self._value[code]))
        rows.append(self._row(ALL, ALL, self._slots[:count].sum(), self._value[:count].sum()))
        return pa.Table.from_pylist(rows, TABLES["overrides"].schema)

    def _row(self, kind: str, cause: str, slots: int, value: float) -> dict[str, object]:
        return {
            "surface": self._surface, "kind": kind, "cause": cause, "slots": int(slots),
            "share": float(slots) / self._places if self._places else 0.0,
            "value_lost": float(value),
            "value_share": float(value) / self._mass if self._mass > 0 else 0.0,
        }  # fmt: skip


def columns(
    model: Listed,
    published: Listed,
    cause: np.ndarray,
    propensity: np.ndarray,
    rules: Sequence[Rule],
) -> dict[str, pa.Array]:
    """The columns of ``recommendations`` that say how an item came to its place."""
    count = len(rules)
    cause = np.where(propensity < 1.0, count + STAGES.index("explore"), cause)
    names = pa.array([*[BY_RULE] * count, *STAGES, BY_MODEL])
    placed_by = names.take(pa.array(np.where(cause < 0, len(names) - 1, cause)))
    by_rule = (cause >= 0) & (cause < count)
    rule_ids = pa.array([rule.rule_id for rule in rules], pa.string())
    size = int(max(model.pair.max(initial=-1), published.pair.max(initial=-1))) + 1
    model_rank = _ranks(model, size)[published.pair].astype(np.int32)
    return {
        "propensity": pa.array(propensity),
        "placed_by": placed_by,
        "rule_id": rule_ids.take(pa.array(cause, mask=~by_rule)),
        "model_rank": pa.array(model_rank, mask=model_rank == 0),
    }
