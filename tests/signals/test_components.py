"""Which groups of keys are one person, on arrays, against a second implementation by sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.signals import components
from jobs.signals.components import Caps, Graph

CAPS = Caps.of(
    {"account": 1, "cookie>device": 1, "cookie": 3, "other": 3}, {"account": 1, "other": 6}, 6
)
ACCOUNT, COOKIE, DEVICE, OTHER = range(4)
assert CAPS.types == ("account", "cookie", "device", "other")
Link = tuple[int, int, float, bool]


def graph(kinds: list[int], links: list[Link]) -> Graph:
    """Keys by their kinds; a link is (left, right, confidence, guess)."""
    left, right, confidence, guess = zip(*links, strict=True) if links else ((), (), (), ())
    return Graph(
        np.array(kinds, np.int64), np.array(left, np.int64), np.array(right, np.int64),
        np.array(confidence, np.float64), np.array(guess, bool),
    )  # fmt: skip


def exact(left: int, right: int) -> Link:
    return (left, right, 1.0, False)


def guess(left: int, right: int, confidence: float = 0.95) -> Link:
    return (left, right, confidence, True)


def resolved(kinds: list[int], links: list[Link], caps: Caps = CAPS) -> tuple[list, list]:
    found = components.resolve(graph(kinds, links), caps)
    return found.person.tolist(), [components.OUTCOMES[c] for c in found.verdicts.outcome]


# --- hand-known cases ------------------------------------------------------------------------
def test_keys_that_links_chain_together_are_one_person_named_after_the_first():
    assert resolved([COOKIE, DEVICE, ACCOUNT, COOKIE], [exact(0, 1), exact(1, 2)]) == (
        [0, 0, 0, 3],
        ["admitted", "admitted"],
    )


def test_no_link_and_no_key_are_no_trouble():
    assert resolved([], []) == ([], [])
    assert resolved([ACCOUNT, COOKIE], []) == ([0, 1], [])


def test_a_cycle_and_a_repeated_link_change_nothing():
    links = [exact(0, 1), exact(1, 2), exact(2, 0), exact(1, 0)]
    assert resolved([COOKIE, COOKIE, COOKIE], links) == ([0, 0, 0], ["admitted"] * 4)


def test_a_device_of_two_accounts_is_nobodys_and_keeps_no_link():
    kinds = [ACCOUNT, ACCOUNT, DEVICE, COOKIE]
    links = [exact(0, 2), exact(1, 2), exact(2, 3), exact(0, 3)]
    assert resolved(kinds, links) == ([0, 1, 2, 0], ["too_many_of_type"] * 3 + ["admitted"])
    why = components.resolve(graph(kinds, links), CAPS).verdicts
    assert (why.key[0], why.kind[0], why.count[0], why.cap[0]) == (2, ACCOUNT, 2, 1)


def test_a_key_over_a_cap_that_founds_nobody_loses_only_the_links_to_that_type():
    kinds = [ACCOUNT, DEVICE, COOKIE, COOKIE, COOKIE, COOKIE]
    links = [exact(0, 1), *(exact(0, cookie) for cookie in range(2, 6))]
    assert resolved(kinds, links) == (
        [0, 0, 2, 3, 4, 5],
        ["admitted"] + ["too_many_of_type"] * 4,
    )


def test_a_recycled_cookie_leaves_both_devices_to_their_accounts():
    kinds = [ACCOUNT, ACCOUNT, DEVICE, DEVICE, COOKIE]
    links = [exact(0, 2), exact(1, 3), exact(2, 4), exact(3, 4)]
    persons, outcomes = resolved(kinds, links)
    assert persons == [0, 1, 0, 1, 4]
    assert outcomes == ["admitted", "admitted", "too_many_of_type", "too_many_of_type"]


def test_a_chain_between_two_accounts_is_taken_apart_as_a_whole():
    kinds = [ACCOUNT, COOKIE, COOKIE, ACCOUNT]
    links = [exact(0, 1), exact(1, 2), exact(2, 3)]
    assert resolved(kinds, links) == ([0, 1, 2, 3], ["would_join_two"] * 3)


def test_what_hangs_on_one_account_alone_stays_with_it_and_on_the_chain_with_nobody():
    kinds = [ACCOUNT, COOKIE, OTHER, ACCOUNT, DEVICE, COOKIE, COOKIE, COOKIE, DEVICE]
    chain = [exact(0, 1), exact(1, 2), exact(2, 3)]
    of_the_accounts = [exact(0, 4), exact(4, 5), exact(3, 6)]
    of_the_chain = [exact(1, 7), exact(7, 8)]
    persons, outcomes = resolved(kinds, chain + of_the_accounts + of_the_chain)
    assert persons == [0, 1, 2, 3, 0, 0, 3, 7, 7]
    assert outcomes == ["would_join_two"] * 3 + ["admitted"] * 3 + ["would_join_two", "admitted"]


def test_two_accounts_that_are_linked_stay_two_and_keep_their_keys():
    kinds = [ACCOUNT, ACCOUNT, COOKIE, COOKIE]
    links = [exact(0, 1), exact(0, 2), exact(1, 3)]
    assert resolved(kinds, links) == ([0, 1, 0, 1], ["would_join_two", "admitted", "admitted"])


def test_a_hundred_thousand_keys_between_two_accounts_are_found_in_seconds():
    keys = 200_001  # a chain from account to account, on each of whose keys another one hangs
    chain = np.arange(0, keys, 2)
    kinds = np.full(keys, OTHER)
    kinds[[0, chain[-1]]] = ACCOUNT
    left, right = np.r_[chain[:-1], chain[:-1]], np.r_[chain[1:], chain[:-1] + 1]
    found = components.between(keys, left, right, kinds == ACCOUNT)
    assert np.array_equal(np.flatnonzero(found), chain[1:-1])


def test_a_person_with_too_many_keys_is_none():
    links = [exact(key, key + 1) for key in range(6)]
    assert resolved([OTHER] * 7, links) == (list(range(7)), ["person_too_large"] * 6)
    assert resolved([OTHER] * 6, links[:5])[0] == [0] * 6


def test_a_guess_never_costs_a_key_its_exact_links():
    kinds = [ACCOUNT, ACCOUNT, DEVICE]
    assert resolved(kinds, [exact(0, 2), guess(1, 2, 0.99)]) == (
        [0, 1, 0],
        ["admitted", "too_many_of_type"],
    )


def test_the_surest_guess_joins_first_and_the_one_that_would_join_two_accounts_is_refused():
    kinds = [ACCOUNT, ACCOUNT, COOKIE, COOKIE, COOKIE]
    links = [exact(0, 2), exact(1, 4), guess(2, 3, 0.91), guess(3, 4, 0.97)]
    persons, outcomes = resolved(kinds, links)
    assert persons == [0, 1, 0, 1, 1]
    assert outcomes == ["admitted", "admitted", "would_join_two", "admitted"]


def test_a_guess_cannot_bring_back_a_key_of_a_group_that_was_taken_apart():
    kinds = [ACCOUNT, COOKIE, COOKIE, ACCOUNT, COOKIE]
    links = [exact(0, 1), exact(1, 2), exact(2, 3), guess(1, 4)]
    assert resolved(kinds, links) == (list(range(5)), ["would_join_two"] * 4)


def test_caps_are_read_by_pair_then_by_type_then_from_other():
    caps = Caps.of({"account": 1, "cookie>device": 2, "device": 7, "other": 9}, {}, 50)
    kind = caps.types.index
    assert caps.joined[kind("cookie"), kind("device")] == 2
    assert caps.joined[kind("account"), kind("device")] == 7
    assert caps.joined[kind("device"), kind("cookie")] == 9
    assert caps.types[-1] == "other"
    assert caps.founding() == []


def test_a_million_links_to_one_key_leave_it_and_them_apart():
    many = 1_000_000
    kinds = np.full(many + 1, ACCOUNT)
    kinds[0] = DEVICE
    hub = Graph(
        kinds, np.zeros(many, np.int64), np.arange(1, many + 1), np.ones(many), np.zeros(many, bool)
    )
    found = components.resolve(hub, CAPS)
    assert np.array_equal(found.person, np.arange(many + 1))
    assert (found.verdicts.outcome == components.TOO_MANY_OF_TYPE).all()
    assert (found.verdicts.count == many).all()
    assert (found.component == 0).all()


def test_a_hundred_thousand_guesses_in_one_component_settle():
    random, keys = np.random.default_rng(5), 50_000
    left, right = random.integers(0, keys, (2, 100_000))
    apart = left != right
    kinds = np.where(random.random(keys) < 0.3, ACCOUNT, 1)
    wide = Caps.of({"other": 1_000}, {"account": 1, "other": 10**6}, 10**6)
    assert wide.types == ("account", "other")
    tangle = Graph(
        kinds, left[apart], right[apart], random.random(apart.sum()), np.ones(apart.sum(), bool)
    )
    found = components.resolve(tangle, wide)
    accounts = np.bincount(found.person[kinds == ACCOUNT])
    assert accounts.max() == 1
    assert (found.verdicts.outcome == components.WOULD_JOIN_TWO).any()


# --- properties ------------------------------------------------------------------------------
@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], list[Link]]:
    kinds = draw(st.lists(st.integers(ACCOUNT, OTHER), min_size=2, max_size=14))
    keys = st.integers(0, len(kinds) - 1)
    link = st.tuples(keys, keys, st.sampled_from([0.9, 0.95, 1.0]), st.booleans()).filter(
        lambda one: one[0] != one[1]
    )
    return kinds, draw(st.lists(link, max_size=24))


@settings(max_examples=400, deadline=None)
@given(graphs())
def test_arrays_and_sets_find_the_same_persons_and_reasons(drawn):
    kinds, links = drawn
    found = components.resolve(graph(kinds, links), CAPS)
    persons, outcomes = by_sets(kinds, links, CAPS)
    assert found.person.tolist() == persons
    assert [components.OUTCOMES[code] for code in found.verdicts.outcome] == outcomes


@settings(max_examples=200, deadline=None)
@given(graphs(), st.randoms())
def test_the_order_of_the_links_does_not_matter(drawn, random):
    kinds, links = drawn
    order = list(range(len(links)))
    random.shuffle(order)
    persons, outcomes = resolved(kinds, links)
    again, shuffled = resolved(kinds, [links[i] for i in order])
    assert again == persons
    assert shuffled == [outcomes[i] for i in order]


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_no_person_breaks_a_cap_and_every_admitted_link_is_within_one(drawn):
    kinds, links = drawn
    found = components.resolve(graph(kinds, links), CAPS)
    person = found.person
    assert np.bincount(person).max() <= CAPS.keys
    for kind in CAPS.founding():
        members = person[np.array(kinds) == kind]
        assert not len(members) or np.bincount(members).max() <= CAPS.of_type[kind]
    assert (person <= np.arange(len(kinds))).all()
    assert (found.component[person] == found.component).all()
    for (left, right, _, _), code in zip(links, found.verdicts.outcome, strict=True):
        assert code != components.ADMITTED or person[left] == person[right]


@settings(max_examples=200, deadline=None)
@given(graphs(), graphs())
def test_what_becomes_of_a_component_depends_on_nothing_outside_of_it(one, other):
    """Two graphs side by side, their keys interleaved, resolve as each does alone."""
    size = max(len(one[0]), len(other[0]))
    kinds = [OTHER] * (2 * size)
    links: list[Link] = []
    for offset, (its_kinds, its_links) in enumerate((one, other)):
        for key, kind in enumerate(its_kinds):
            kinds[2 * key + offset] = kind
        links += [(2 * a + offset, 2 * b + offset, c, g) for a, b, c, g in its_links]
    persons, outcomes = resolved(kinds, links)
    for offset, (its_kinds, its_links) in enumerate((one, other)):
        alone, its_outcomes = resolved(its_kinds, its_links)
        assert [p // 2 for p in persons[offset::2][: len(its_kinds)]] == alone
        start = 0 if offset == 0 else len(one[1])
        assert outcomes[start : start + len(its_links)] == its_outcomes


# --- the same policy by sets -----------------------------------------------------------------
def by_sets(kinds: list[int], links: list[Link], caps: Caps) -> tuple[list[int], list[str]]:
    """The policy in plain Python, one rule at a time."""
    outcomes = ["admitted"] * len(links)
    sure = [i for i, link in enumerate(links) if not link[3]]
    guesses = [i for i, link in enumerate(links) if link[3]]

    def too_many(counted: list[int]) -> set[tuple[int, int]]:
        joined: dict[tuple[int, int], set[int]] = {}
        for i in counted:
            for near, far in (links[i][:2], links[i][1::-1]):
                joined.setdefault((near, kinds[far]), set()).add(far)
        return {
            (key, kind)
            for (key, kind), others in joined.items()
            if len(others) > caps.joined[kinds[key], kind]
        }

    over = too_many(sure)
    shared = {key for key, kind in over if kind in caps.founding()}
    for i, (left, right, _, is_guess) in enumerate(links):
        hit = not is_guess and {(left, kinds[right]), (right, kinds[left])} & over
        if hit or {left, right} & shared:
            outcomes[i] = "too_many_of_type"
    over = too_many(sure + guesses)
    for i in guesses:
        left, right = links[i][:2]
        if {(left, kinds[right]), (right, kinds[left])} & over:
            outcomes[i] = "too_many_of_type"

    def kept(chosen: list[int]) -> list[int]:
        return [i for i in chosen if outcomes[i] == "admitted"]

    person = {key: frozenset([key]) for key in range(len(kinds))}
    for i in kept(sure):
        both = person[links[i][0]] | person[links[i][1]]
        person.update(dict.fromkeys(both, both))
    why: dict[int, str | None] = {}
    torn = [i for i in kept(sure) if breach(person[links[i][0]], kinds, caps) == "would_join_two"]
    for kind in caps.founding():
        if caps.of_type[kind] == 1:
            pairs = [links[i][:2] for i in torn]
            founders = {key for pair in pairs for key in pair if kinds[key] == kind}
            why.update(dict.fromkeys(on_paths(pairs, founders), "would_join_two"))
            for i in torn:
                if set(links[i][:2]) <= founders:
                    outcomes[i] = "would_join_two"
    person = {key: frozenset([key]) for key in range(len(kinds))}
    for i in kept(sure):
        if not set(links[i][:2]) & why.keys():
            both = person[links[i][0]] | person[links[i][1]]
            person.update(dict.fromkeys(both, both))
    for key, group in person.items():
        why[key] = breach(group, kinds, caps) or why.get(key)
    for i in kept(sure) + kept(guesses):
        outcomes[i] = why[links[i][0]] or why[links[i][1]] or outcomes[i]
    person.update({key: frozenset([key]) for key, reason in why.items() if reason})
    for i in sorted(kept(guesses), key=lambda i: (-links[i][2], *sorted(links[i][:2]))):
        both = person[links[i][0]] | person[links[i][1]]
        reason = breach(both, kinds, caps)
        if reason and person[links[i][0]] != person[links[i][1]]:
            outcomes[i] = reason
        else:
            person.update(dict.fromkeys(both, both))
    return [min(person[key]) for key in range(len(kinds))], outcomes


def on_paths(pairs: list[tuple[int, int]], founders: set[int]) -> set[int]:
    """The keys that no single other key parts from all founders: two paths lead from such a key to
    two of them and meet nowhere (Menger's theorem)."""
    keys = {key for pair in pairs for key in pair}

    def reaches(key: int, without: int) -> bool:
        met, ahead = {key, without}, [key]
        while ahead:
            at = ahead.pop()
            if at in founders:
                return True
            beside = {b if a == at else a for a, b in pairs if at in (a, b)} - met
            met |= beside
            ahead += beside
        return False

    return {key for key in keys - founders if all(reaches(key, other) for other in keys - {key})}


def breach(group: frozenset[int], kinds: list[int], caps: Caps) -> str | None:
    for kind in caps.founding():
        if sum(kinds[key] == kind for key in group) > caps.of_type[kind]:
            return "would_join_two"
    return "person_too_large" if len(group) > caps.keys else None
