"""Which keys are one person: connected components under caps, on arrays.

The policy, per *raw component* (connected over every candidate link), so that what becomes of a
key depends on nothing outside of it, neither on the order of rows:

1. A key that joins more keys of a type than it may loses all of its links to that type: which of
   them is right, nobody can say. Where the type is a founding one (two accounts on one kiosk,
   family tablet or recycled cookie) the key is shared by several people and loses all of its
   links. Exact links are counted among themselves first, so that guesses never cost a key its
   exact links; guesses are counted together with them.
2. Exact links join. Where a group would then hold two accounts (keys of a type of which a person
   holds one), every key that lies on a path between two of them may be either's: it stays apart,
   from guesses too, and what is tied to one account alone stays with it. A group that still holds
   too many of a founding type, or more keys than a person can have, is not joined at all.
3. Guesses join in the order of their confidence (ties by the keys' numbers), each only where the
   person it makes keeps the caps.

**A wrong merge is worse than a missed one**: it shows one person's purchases to another, cannot be
seen from outside and poisons what is learned from both, while a missed merge only learns less.
Therefore wherever a cap is broken the keys stay apart.

A key's *number* is its place in the order of founding (first seen first), so the least number of a
group is its founder. A key's *kind* is the number of its type among ``Caps.types``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# What a link's verdict can be; the codes are positions in OUTCOMES.
OUTCOMES = ("admitted", "too_many_of_type", "person_too_large", "would_join_two")
ADMITTED, TOO_MANY_OF_TYPE, PERSON_TOO_LARGE, WOULD_JOIN_TWO = range(len(OUTCOMES))
OTHER = "other"  # stands for every type that no cap names; they are counted together


@dataclass(frozen=True)
class Caps:
    """How much may be joined.

    ``types``: the names of the kinds, ``other`` last. ``joined``: (n_kinds, n_kinds) int64, how
    many keys of kind j one key of kind i may join. ``of_type``: (n_kinds,) int64, how many keys of
    a kind a person may hold. ``keys``: how many keys in all.
    """

    types: tuple[str, ...]
    joined: np.ndarray
    of_type: np.ndarray
    keys: int

    @staticmethod
    def of(max_joined: Mapping[str, int], max_of_type: Mapping[str, int], max_keys: int) -> Caps:
        """From names: ``type``, or ``joiner>type`` for joiners of one type, or ``other``."""
        named = {part for name in (*max_joined, *max_of_type) for part in name.split(">")}
        types = (*sorted(named - {OTHER}), OTHER)
        joined = [
            [max_joined.get(f"{a}>{b}", max_joined.get(b, max_joined[OTHER])) for b in types]
            for a in types
        ]
        of_type = [max_of_type.get(name, max_of_type.get(OTHER, max_keys)) for name in types]
        return Caps(types, np.array(joined, np.int64), np.array(of_type, np.int64), max_keys)

    def founding(self) -> list[int]:
        """The kinds of which a person may hold fewer than keys in all."""
        return [kind for kind, cap in enumerate(self.of_type.tolist()) if cap < self.keys]


@dataclass(frozen=True)
class Graph:
    """Keys and candidate links.

    ``kinds``: (n_keys,) the kind of each key. ``left``, ``right``: (n_links,) numbers of a link's
    two keys. ``confidence``: (n_links,) float64. ``guess``: (n_links,) bool, false where the link
    is exact.
    """

    kinds: np.ndarray
    left: np.ndarray
    right: np.ndarray
    confidence: np.ndarray
    guess: np.ndarray

    def only(self, links: np.ndarray) -> Graph:
        """The same keys with the links that a mask chooses."""
        return Graph(
            self.kinds, self.left[links], self.right[links], self.confidence[links],
            self.guess[links],
        )  # fmt: skip


@dataclass(frozen=True)
class Verdicts:
    """What became of each link, and why not where it was refused.

    ``outcome``: (n_links,) code. ``count`` and ``cap``: (n_links,) int64, the number that broke a
    cap; ``kind``: of which kind of key (-1: of all); ``key``: at which key (-1: in the person).
    """

    outcome: np.ndarray
    key: np.ndarray
    kind: np.ndarray
    count: np.ndarray
    cap: np.ndarray

    @staticmethod
    def admitted(links: int) -> Verdicts:
        unset = (np.full(links, -1, np.int64) for _ in range(4))
        return Verdicts(np.zeros(links, np.uint8), *unset)

    def refuse(self, links: np.ndarray, outcome: object, **why: object) -> None:
        """Set the verdict of the links that a mask or positions choose."""
        self.outcome[links] = outcome
        for name, value in why.items():
            getattr(self, name)[links] = value


@dataclass(frozen=True)
class Settled:
    """``person``, ``component``: (n_keys,) the least key number of the key's person and of its raw
    component; ``verdicts``: one a link."""

    person: np.ndarray
    component: np.ndarray
    verdicts: Verdicts


def resolve(graph: Graph, caps: Caps) -> Settled:
    """Persons of a whole graph by the policy above."""
    keys = len(graph.kinds)
    component = label(keys, graph.left, graph.right)
    verdicts = cap_degrees(graph, caps)
    kept = verdicts.outcome == ADMITTED
    person = component if kept.all() else label(keys, graph.left[kept], graph.right[kept])
    # A group that keeps the caps with all its links keeps them with any of them: nothing to settle.
    broken = breaches(person, graph.kinds, caps).outcome != ADMITTED
    if not broken.any():
        return Settled(person, component, verdicts)
    inside = broken[person]
    chosen = np.flatnonzero(inside)
    number = np.full(keys, -1, np.int64)
    number[chosen] = np.arange(len(chosen))
    links = np.flatnonzero(kept & inside[graph.left])
    part = Graph(
        graph.kinds[chosen], number[graph.left[links]], number[graph.right[links]],
        graph.confidence[links], graph.guess[links],
    )  # fmt: skip
    settled, why = settle(part, caps)
    person = person.copy()
    person[chosen] = chosen[settled]
    verdicts.refuse(links, why.outcome, kind=why.kind, count=why.count, cap=why.cap)
    return Settled(person, component, verdicts)


def label(keys: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n_keys,) int64: the least key number in each key's connected component."""
    if not len(left):
        return np.arange(keys)
    ones = np.ones(len(left), np.int8)
    graph = coo_array((ones, (left, right)), shape=(keys, keys)).tocsr()
    count, found = connected_components(graph, directed=False)
    least = np.empty(count, np.int64)
    least[found[::-1]] = np.arange(keys - 1, -1, -1)  # the last write, the least key, stays
    return least[found]


def cap_degrees(graph: Graph, caps: Caps) -> Verdicts:
    """Step 1: refuse the links from a key to a kind of which it joins too many.

    A key that exact links tie to too many founding keys is shared by several people: it loses all
    of its links, since it would come to one of them by a detour. Exact links are counted first.
    Where both ends are over a cap, the left one is named.
    """
    verdicts = Verdicts.admitted(len(graph.left))
    everything = np.ones(len(graph.left), bool)
    if not graph.guess.all():
        _cap_degrees(graph, ~graph.guess, caps, verdicts, everything, ~graph.guess)
    if graph.guess.any():
        _cap_degrees(graph, everything, caps, verdicts, None, graph.guess)
    return verdicts


def _cap_degrees(
    graph: Graph,
    counted: np.ndarray,
    caps: Caps,
    verdicts: Verdicts,
    of_shared: np.ndarray | None,
    of_kind: np.ndarray,
) -> None:
    """Count distinct neighbours over the ``counted`` links and refuse the links of keys over a cap:
    of those that ``of_kind`` chooses, the links to that kind; of those that ``of_shared`` chooses,
    all links where the kind is a founding one."""
    kinds, left, right = graph.kinds, graph.left, graph.right
    first, second = distinct_pairs(len(kinds), left[counted], right[counted])
    founding = set(caps.founding())
    over: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    for kind in range(len(caps.types)):
        joined = np.concatenate([first[kinds[second] == kind], second[kinds[first] == kind]])
        if len(joined) <= caps.joined[:, kind].min():
            continue
        count = np.bincount(joined, minlength=len(kinds))
        cap = caps.joined[kinds, kind]
        if (count > cap).any():
            over.append((kind, count, cap, count > cap))
    for key, other in ((left, right), (right, left)):
        for kind, count, cap, is_over in over:
            concerned = of_kind & (kinds[other] == kind)
            if of_shared is not None and kind in founding:
                concerned = of_shared
            hit = np.flatnonzero(concerned & is_over[key] & (verdicts.outcome == ADMITTED))
            at = key[hit]
            verdicts.refuse(hit, TOO_MANY_OF_TYPE, key=at, kind=kind, count=count[at], cap=cap[at])


def distinct_pairs(keys: int, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unordered pairs that the links join, each once, as two arrays of key numbers."""
    low, high = np.minimum(left, right).astype(np.int64), np.maximum(left, right)
    codes = np.sort(low * keys + high)
    codes = codes[np.concatenate([[True], codes[1:] != codes[:-1]])] if len(codes) else codes
    return codes // max(keys, 1), codes % max(keys, 1)


def breaches(group: np.ndarray, kinds: np.ndarray, caps: Caps) -> Verdicts:
    """Which cap each group breaks, indexed by the group's label (a key number); founding types
    come before size."""
    keys = len(group)
    found = Verdicts.admitted(keys)
    for kind in caps.founding():
        count = np.bincount(group[kinds == kind], minlength=keys)
        over = np.flatnonzero((count > caps.of_type[kind]) & (found.outcome == ADMITTED))
        found.refuse(over, WOULD_JOIN_TWO, kind=kind, count=count[over], cap=caps.of_type[kind])
    size = np.bincount(group, minlength=keys)
    over = np.flatnonzero((size > caps.keys) & (found.outcome == ADMITTED))
    found.refuse(over, PERSON_TOO_LARGE, count=size[over], cap=caps.keys)
    return found


def settle(graph: Graph, caps: Caps) -> tuple[np.ndarray, Verdicts]:
    """Steps 2 and 3 for links that step 1 left: (n_keys,) person and the verdicts."""
    keys, kinds, left, right = len(graph.kinds), graph.kinds, graph.left, graph.right
    verdicts, why = Verdicts.admitted(len(left)), Verdicts.admitted(keys)
    exact = ~graph.guess
    group = label(keys, left[exact], right[exact])
    broken = breaches(group, kinds, caps)
    torn = exact & (broken.outcome[group[left]] == WOULD_JOIN_TWO)
    for kind in caps.founding():
        if caps.of_type[kind] == 1:
            founds = kinds == kind
            tied = np.flatnonzero(between(keys, left[torn], right[torn], founds))
            _blame(why, tied, broken, group[tied])
            both = np.flatnonzero(torn & founds[left] & founds[right])
            _blame(verdicts, both, broken, group[left[both]])
    apart = why.outcome != ADMITTED
    joins = exact & (verdicts.outcome == ADMITTED) & ~apart[left] & ~apart[right]
    person = label(keys, left[joins], right[joins])
    broken = breaches(person, kinds, caps)
    whole = np.flatnonzero(broken.outcome[person] != ADMITTED)
    _blame(why, whole, broken, person[whole])
    for end in (right, left):  # where both ends stay apart, the left one is named
        hit = np.flatnonzero(why.outcome[end] != ADMITTED)
        _blame(verdicts, hit, why, end[hit])
    person = np.where(why.outcome != ADMITTED, np.arange(keys), person)
    open_guesses = np.flatnonzero(graph.guess & (verdicts.outcome == ADMITTED))
    if not len(open_guesses):
        return person, verdicts
    by_confidence = np.lexsort(
        (
            np.maximum(graph.left, graph.right)[open_guesses],
            np.minimum(graph.left, graph.right)[open_guesses],
            -graph.confidence[open_guesses],
        )
    )
    return _admit(graph, person, open_guesses[by_confidence], caps, verdicts), verdicts


def _blame(verdicts: Verdicts, at: np.ndarray, reasons: Verdicts, of: np.ndarray) -> None:
    """Refuse what stands ``at`` these places for the reasons that stand at ``of``."""
    verdicts.refuse(
        at, reasons.outcome[of], kind=reasons.kind[of], count=reasons.count[of], cap=reasons.cap[of]
    )


def between(keys: int, left: np.ndarray, right: np.ndarray, founds: np.ndarray) -> np.ndarray:
    """(n_keys,) bool: the keys on a path, which meets no key twice, between two founding keys.

    With one more vertex tied to every founding key (``founds``: (n_keys,) bool) they are what lies
    on a circle through it: what shares a biconnected component with it (Hopcroft and Tarjan, 1973).
    """
    found = np.zeros(keys, bool)
    ends = np.flatnonzero(founds & np.isin(np.arange(keys), np.concatenate([left, right])))
    if len(ends) < 2:
        return found
    root = keys
    near = np.concatenate([left, right, ends, np.full(len(ends), root)])
    far = np.concatenate([right, left, np.full(len(ends), root), ends])
    order = np.argsort(near, kind="stable")
    bounds = np.searchsorted(near[order], np.arange(keys + 2))
    others, stop, turn = far[order].tolist(), bounds[1:].tolist(), bounds[:-1].tolist()
    seen, low, parent = [-1] * (keys + 1), [0] * (keys + 1), [-1] * (keys + 1)
    seen[root], count = 0, 1
    walk, waiting = [root], list[int]()
    while walk:
        key = walk[-1]
        if turn[key] < stop[key]:
            other = others[turn[key]]
            turn[key] += 1
            if seen[other] < 0:
                seen[other] = low[other] = count
                parent[other], count = key, count + 1
                walk.append(other)
                waiting.append(other)
            elif other != parent[key]:
                low[key] = min(low[key], seen[other])
            continue
        walk.pop()
        above = parent[key]
        if above < 0:
            continue
        low[above] = min(low[above], low[key])
        if low[key] >= seen[above]:
            block = [waiting.pop()]
            while block[-1] != key:
                block.append(waiting.pop())
            if above == root and len(block) > 1:
                found[block] = True
    return found & ~founds


@dataclass
class _Persons:
    """A union-find over persons whose roots carry the counts that the caps look at."""

    parent: list[int]
    size: list[int]
    founding: dict[int, list[int]] = field(default_factory=dict)

    def root(self, key: int) -> int:
        parent = self.parent
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key


def _admit(
    graph: Graph, person: np.ndarray, order: np.ndarray, caps: Caps, verdicts: Verdicts
) -> np.ndarray:
    """Step 3: join persons link by link in this order; (n_keys,) the persons after it."""
    keys = len(person)
    persons = _Persons(
        list(range(keys)),
        np.bincount(person, minlength=keys).tolist(),
        {
            kind: np.bincount(person[graph.kinds == kind], minlength=keys).tolist()
            for kind in caps.founding()
        },
    )
    lefts, rights = person[graph.left[order]].tolist(), person[graph.right[order]].tolist()
    limits = [(persons.founding[kind], int(caps.of_type[kind]), kind) for kind in caps.founding()]
    size, root = persons.size, persons.root
    for link, left, right in zip(order.tolist(), lefts, rights, strict=True):
        one, other = root(left), root(right)
        if one == other:
            continue
        if one > other:
            one, other = other, one
        refused = False
        for counts, cap, kind in limits:
            if counts[one] + counts[other] > cap:
                count = counts[one] + counts[other]
                verdicts.refuse(link, WOULD_JOIN_TWO, kind=kind, count=count, cap=cap)  # type: ignore[arg-type]
                refused = True
                break
        if refused:
            continue
        if size[one] + size[other] > caps.keys:
            count = size[one] + size[other]
            verdicts.refuse(link, PERSON_TOO_LARGE, count=count, cap=caps.keys)  # type: ignore[arg-type]
            continue
        persons.parent[other] = one
        size[one] += size[other]
        for counts, _, _ in limits:
            counts[one] += counts[other]
    roots = np.array([root(key) for key in np.unique(person).tolist()])
    return roots[np.searchsorted(np.unique(person), person)]
