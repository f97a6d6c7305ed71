"""Refreshes leave what one build leaves, and cells that lose items are built again the same run."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import params
from jobs.errors import Fault
from jobs.retrieval import bundles, index, index_refresh, recall
from jobs.retrieval.guarding import Guard
from jobs.retrieval.index_refresh import Expected, Items
from jobs.retrieval.recall import Measured, Strata
from tests.retrieval.conftest import AS_OF, catalogue

DIM = 16
CROWDS = 8
# Cells for a few thousand items, and room for categories of longer vectors than any before.
BUILDING = index.Params(exact_below=0, cell_factor=4.0, headroom=4.0)
PARAMS = Guard()


class Shop:
    """Items around the centres of their categories, in which every night some come and some go."""

    def __init__(self, seed: int, n_items: int = 6000, building: index.Params = BUILDING) -> None:
        self.generator = np.random.default_rng(seed)
        self.seed, self.building = seed, building
        centres = self.generator.normal(size=(CROWDS, DIM))
        self.centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        self.people = self.around(self.generator.integers(0, CROWDS, 400))
        self.category = self.generator.integers(0, CROWDS, n_items)
        self.new = np.zeros(n_items, bool)
        self.now = Items(np.arange(n_items), self.around(self.category))
        self.bundle, self.built = index_refresh.rebuilt(
            self.now, "v", self.strata(), self.people, PARAMS, building, seed
        )

    def around(self, category: np.ndarray, spread: float = 0.35) -> np.ndarray:
        noise = self.generator.normal(0, spread, (len(category), DIM))
        return (self.centres[category] + noise).astype(np.float32)

    def strata(self) -> dict[str, Strata]:
        names = tuple(f"c{number:02d}" for number in range(len(self.centres)))
        return {
            "age": Strata(("new", "older"), np.where(self.new, 0, 1)),
            "category": Strata(names, self.category),
        }

    def night(self, strange: bool, n: int = 90) -> Items:
        """``n`` items leave and as many come: of any category, or all of one never seen before that
        lies far from the others and is wide. Returns what was held before."""
        if strange:
            centre = self.generator.normal(size=(1, DIM))
            self.centres = np.vstack([self.centres, 2 * centre / np.linalg.norm(centre)])
            category = np.full(n, len(self.centres) - 1)
        else:
            category = self.generator.integers(0, CROWDS, n)
        vectors = self.around(category, 0.8 if strange else 0.35)
        before = self.now
        stays = np.sort(self.generator.permutation(len(before.positions))[n:])
        positions = before.positions.max() + 1 + np.arange(n)
        self.now = Items(
            np.concatenate([before.positions[stays], positions]),
            np.concatenate([before.vectors[stays], vectors]),
        )
        self.category = np.concatenate([self.category[stays], category])
        self.new = np.concatenate([self.new[stays], np.ones(n, bool)])
        return before

    def refresh(self, before: Items, params: Guard = PARAMS) -> index_refresh.Refreshed:
        found = index_refresh.refresh(
            self.bundle, before, self.now, "v", self.strata(), self.people, params, self.building,
            self.seed,
        )  # fmt: skip
        self.bundle = found.bundle
        return found


def stored(bundle: index.Bundle, positions: np.ndarray) -> np.ndarray:
    """The vectors as FAISS holds them; it refuses a position that it does not hold."""
    searched = faiss.clone_index(bundle.index)
    searched.set_direct_map_type(faiss.DirectMap.Hashtable)
    return searched.reconstruct_batch(positions)[:, : bundle.facts["dim"]]


def with_item(items: Items, position: int, vector: np.ndarray) -> Items:
    """The items with one more, or with this vector for one of them."""
    others = items.positions != position
    return Items(
        np.append(items.positions[others], position),
        np.concatenate([items.vectors[others], vector[None]]),
    )


@pytest.fixture(scope="module")
def small() -> Shop:
    return Shop(1, 1500)


def changed(shop: Shop, now: Items, **bundle: object) -> index_refresh.Refreshed:
    """A refresh of the shop's bundle to these items, which are all of one stratum."""
    strata = {"age": Strata(("older",), np.zeros(len(now.positions), int))}
    arguments: dict = {"bundle": shop.bundle, "before": shop.now, "version": "v", **bundle}
    return index_refresh.refresh(
        now=now, strata=strata, people=shop.people, params=PARAMS, building=BUILDING, seed=1,
        **arguments,
    )  # fmt: skip


# --- what the index holds ----------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(1, 299), max_size=60),
            st.sets(st.integers(0, 299), max_size=60),
            st.sampled_from([0.5, 0.9, 1.0, 40.0]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_any_sequence_of_refreshes_leaves_exactly_what_one_build_leaves(nights, cells) -> None:
    generator = np.random.default_rng(2)
    every = generator.normal(size=(300, DIM)).astype(np.float32)
    building = dataclasses.replace(BUILDING, exact_below=0 if cells else 20_000)
    held = {position: every[position] for position in range(0, 200)}
    bundle = index.build(np.arange(200), every[:200], "v", building, 7)
    now = Items(np.arange(200), every[:200])
    for removed, put, scale in nights:
        held = {p: v for p, v in held.items() if p not in removed}
        held |= {p: every[p] * np.float32(scale) for p in put}
        before, order = now, generator.permutation(len(held))
        now = Items(np.array(list(held))[order], np.array(list(held.values()))[order])
        found = index_refresh.refresh(
            bundle, before, now, "v", {"age": Strata(("older",), np.zeros(len(held), int))},
            every[:20], PARAMS, building, 7,
        )  # fmt: skip
        bundle = found.bundle
        assert found.rebuilt == bool(found.reasons)
        moved = sum(
            not np.array_equal(vector, held[position])
            for position, vector in zip(before.positions, before.vectors, strict=True)
            if position in held
        )
        assert (found.added, found.moved, found.removed) == (
            len(set(now.positions) - set(before.positions)), moved,
            len(set(before.positions) - set(now.positions)),
        )  # fmt: skip
    again = index.build(now.positions, now.vectors, "v", building, 7)
    assert bundle.index.ntotal == again.index.ntotal == bundle.facts["count"] == len(held)
    np.testing.assert_array_equal(stored(bundle, now.positions), stored(again, now.positions))
    np.testing.assert_array_equal(stored(bundle, now.positions), now.vectors)


def test_a_delisted_item_is_never_found_again_and_a_moved_one_is_found_where_it_is(small) -> None:
    gone, moved = 17, 40
    left = small.now.positions != gone
    there = -small.now.vectors[moved]
    now = with_item(Items(small.now.positions[left], small.now.vectors[left]), moved, there)
    found = changed(small, now)
    assert (found.rebuilt, found.added, found.moved, found.removed) == (False, 0, 1, 1)
    everything = dataclasses.replace(found.bundle, facts={**found.bundle.facts, "nprobe": 10_000})
    positions, _ = bundles.search(everything, small.now.vectors[[gone, moved]], "v", 1500)
    assert gone not in positions
    assert moved in bundles.search(found.bundle, there[None], "v", 10)[0]
    assert moved not in bundles.search(found.bundle, -there[None], "v", 10)[0]


def test_a_vector_that_differs_in_its_last_bit_has_moved() -> None:
    vectors = np.ones((3, DIM), np.float32)
    other = vectors.copy()
    other[1, 3] = np.nextafter(np.float32(1), np.float32(2))
    change = index_refresh.difference(
        Items(np.array([5, 9, 7]), vectors), Items(np.array([7, 9, 11]), other)
    )
    assert change.added.tolist() == [2]
    assert change.moved.tolist() == [1]
    assert change.removed.tolist() == [5]


def test_the_same_items_in_another_order_are_no_change(small) -> None:
    order = np.random.default_rng(3).permutation(1500)
    now = Items(small.now.positions[order], small.now.vectors[order])
    found = changed(small, now)
    assert (found.rebuilt, found.added, found.moved, found.removed) == (False, 0, 0, 0)


# --- refused -----------------------------------------------------------------------------------
def test_vectors_of_another_space_are_refused(small) -> None:
    with pytest.raises(Fault, match="embedding space tonight, the index holds v"):
        changed(small, small.now, version="tonight")


def test_an_index_that_does_not_hold_what_the_table_says_is_refused(small) -> None:
    fewer = Items(small.now.positions[1:], small.now.vectors[1:])
    with pytest.raises(Fault, match="it holds 1,500 items and the table item_vectors has 1,499"):
        changed(small, fewer, before=fewer)
    others = Items(small.now.positions + 1, small.now.vectors)
    with pytest.raises(Fault, match="did not hold what item_vectors says"):
        changed(small, fewer, before=others)


@pytest.mark.parametrize("positions", [[1, 1, 2], [7, 7, 1]])
def test_a_position_that_stands_twice_is_refused(positions) -> None:
    vectors = np.ones((3, DIM), np.float32)
    good, bad = Items(np.arange(3), vectors), Items(np.array(positions), vectors)
    for before, now in ((good, bad), (bad, good)):
        with pytest.raises(Fault, match="1 positions stand twice"):
            index_refresh.difference(before, now)


def test_a_refresh_that_leaves_nothing_is_refused(small) -> None:
    with pytest.raises(Fault, match="nothing is left"):
        changed(small, Items(small.now.positions[:0], small.now.vectors[:0]))


# --- built again -------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "rebuilt"), [(150, False), (151, True)])
def test_items_that_came_and_left_over_a_fifth_of_those_held_ask_for_a_new_build(n, rebuilt):
    shop = Shop(4, 1500)
    found = shop.refresh(shop.night(strange=False, n=n))
    assert found.rebuilt == rebuilt
    assert ("151 items came and 151 left, over 20% of the 1,500 held" in found.reasons) == rebuilt
    assert found.bundle.facts["count"] == 1500


def test_a_vector_beyond_the_bound_is_taken_in_by_a_new_build(small) -> None:
    far = 10 * small.now.vectors[3]
    found = changed(small, with_item(small.now, 2000, far))
    assert found.rebuilt
    assert "does not fit under the bound" in found.reasons[0]
    assert 2000 in bundles.search(found.bundle, far[None], "v", 3)[0]
    assert index.remembered(found.bundle), "later refreshes are held to the new cells"


def uniform_recall(bundle: index.Bundle, shop: Shop) -> float:
    """Recall overall: any item is as likely to ask as any other."""
    rows = np.random.default_rng(0).permutation(len(shop.now.positions))[:400]
    held = recall.queries(shop.people[:0], shop.now.vectors, rows, bundle.facts["bound"])
    return index.judged(bundle, shop.now.positions, shop.now.vectors, held, {})[0].recall


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_strange_categories_trip_the_guard_on_their_first_night_and_not_overall(seed) -> None:
    shop = Shop(seed)
    built = uniform_recall(shop.bundle, shop)
    for _ in range(2):
        assert not shop.refresh(shop.night(strange=False)).rebuilt
    frozen, old = shop.bundle, shop.now
    found = shop.refresh(shop.night(strange=True))
    assert found.rebuilt
    tripped = " ".join(found.reasons)
    assert "recall of age new" in tripped
    assert f"recall of category c{CROWDS:02d}" in tripped
    change = index_refresh.difference(old, shop.now)
    frozen = index_refresh.updated(frozen, shop.now, change)
    assert uniform_recall(frozen, shop) > built - PARAMS.fall, "overall nothing is to be seen"
    rows = {(row["kind"], row["stratum"]): row for row in found.recall.to_pylist()}
    assert rows["category", f"c{CROWDS:02d}"]["recall"] > 0.9, "the new cells fit"


@pytest.mark.parametrize("seed", [21, 22])
def test_a_calm_stream_of_the_same_churn_is_never_built_again(seed) -> None:
    shop = Shop(seed)
    for night in range(20):
        shop.seed = 100 * seed + night
        found = shop.refresh(shop.night(strange=False))
        assert found.reasons == ()
    assert found.recall.schema == recall.rows([]).schema


# --- the guard's judgement ---------------------------------------------------------------------
def judged(share: float, effective: int, queries: int = 40, kind: str = "category") -> Measured:
    return Measured(kind, "one", queries, share, effective)


def verdict(now: Measured, *built: Measured) -> list[str]:
    known = {(each.kind, each.stratum): each for each in built}
    return index_refresh.losses([now], Expected(known, 0.98), PARAMS)


def test_a_stratum_is_lost_where_it_falls_by_more_than_five_points_and_not_by_chance() -> None:
    assert verdict(judged(0.92, 2000), judged(0.98, 2000))
    assert not verdict(judged(0.94, 2000), judged(0.98, 2000)), "four points"
    assert not verdict(judged(0.92, 40), judged(0.98, 40)), "chance does it with so few"
    assert not verdict(judged(0.92, 2000), judged(0.98, 30)), "then it was never known to be higher"
    assert verdict(judged(0.60, 40), judged(0.98, 40)), "and nothing does this"
    assert not verdict(judged(0.60, 40, queries=19), judged(0.98, 40)), "too few to be judged"


def test_a_stratum_is_held_to_what_it_was_and_an_unknown_one_to_the_target() -> None:
    assert not verdict(judged(0.92, 2000), judged(0.93, 2000)), "it never was found better"
    assert verdict(judged(0.92, 2000))
    assert not verdict(judged(0.94, 2000))
    assert index_refresh.losses([judged(0.92, 2000)], Expected({}, target=0.99), PARAMS), (
        "the target is a parameter"
    )


def test_what_fell_under_the_limits_of_the_gate_is_built_again() -> None:
    old = judged(0.93, 2000, kind="age")
    assert not verdict(judged(0.91, 2000, kind="age"), old)
    assert verdict(judged(0.89, 2000, kind="age"), old)
    assert verdict(judged(0.94, 2000, kind="overall"), judged(0.97, 2000, kind="overall"))
    assert not verdict(judged(0.96, 2000, kind="overall"), judged(0.99, 2000, kind="overall"))
    assert not verdict(judged(0.94, 2000, kind="overall"), judged(0.945, 2000, kind="overall"))


def test_a_base_that_remembers_too_few_queries_expects_the_target(small) -> None:
    few = judged(0.5, 10, queries=19)
    assert Expected.of(index.remembering(small.bundle, [few]), 0.98).recall(few) == 0.98
    enough = judged(0.5, 10, queries=20)
    assert Expected.of(index.remembering(small.bundle, [enough]), 0.98).recall(few) == 0.5


def test_a_stratum_in_doubt_is_looked_at_again(small) -> None:
    def people_asked(expected: float) -> int:
        """Of a bundle that finds nine in ten, where so much was expected."""
        few = dataclasses.replace(small.bundle, facts={**small.bundle.facts, "nprobe": 30})
        measured = index_refresh.guard(
            few, small.now, small.strata(), small.people, Expected({}, expected),
            dataclasses.replace(PARAMS, person_queries=100, chance=1e-9), 1,
        )  # fmt: skip
        return next(each.queries for each in measured if each.stratum == "person")

    calm, doubtful, lost = (people_asked(share) for share in (0.5, 0.915, 1.0))
    assert calm == lost == 100 < doubtful


# --- strata ------------------------------------------------------------------------------------
def test_new_is_what_was_added_in_the_last_days_or_was_not_held() -> None:
    items = catalogue(
        list("abcde"),
        created_time=[AS_OF - timedelta(days=6), AS_OF - timedelta(days=8), None, None, None],
        first_seen=[None, AS_OF - timedelta(days=1), AS_OF - timedelta(days=1), None, None],
    )
    found = index_refresh.strata_of(items, np.arange(4), AS_OF, PARAMS)["age"]
    assert [found.names[of] for of in found.of] == ["new", "older", "new", "older", "new"]


def test_a_category_is_a_stratum_where_it_is_large_among_all_items_or_the_new_ones() -> None:
    category = ["X > 1"] * 2000 + ["Y"] * 30 + ["Z"] * 30 + ["X > 2"] * 100
    items = catalogue([f"i{n:04d}" for n in range(2160)], category=category)
    found = index_refresh.strata_of(items, np.arange(2030), AS_OF, PARAMS)["category"]
    assert found.names == ("(other)", "X", "Z")
    assert np.bincount(found.of).tolist() == [30, 2100, 30]


def test_parameters_that_make_no_sense_are_refused() -> None:
    for wrong in ({"item_queries": 19}, {"looks": 0}, {"large": 0.0}, {"chance": 1.0}):
        with pytest.raises(ValueError, match="must be"):
            dataclasses.replace(PARAMS, **wrong)


def test_the_guards_limits_are_parameters_of_the_step_index() -> None:
    built = params.build(index.Params, {"guard": {"churn": 0.5, "looks": 2}})
    assert index.guard_of(built) == Guard(churn=0.5, looks=2)
    for wrong, words in (
        ({"churn": -1.0}, "churn must not be negative"), ({"looks": 1.5}, "must be whole"),
        ({"fall": "much"}, "must be a number"), ({"fell": 0.1}, "expected"),
    ):  # fmt: skip
        (fault,) = params.faults("index", index.Params, {"guard": wrong})
        assert words in fault


def test_cells_are_tuned_until_people_and_items_are_each_found_well_enough() -> None:
    shop = Shop(5)
    vectors, positions, target = shop.now.vectors, shop.now.positions, 0.98
    bundle = index.build(positions, vectors, "v", BUILDING, seed=1)
    bound = bundle.facts["bound"]
    # Whoever asks from between the items is found less than an item beside its like.
    people = shop.generator.normal(size=(20, DIM)).astype(np.float32)
    few = recall.queries(people, vectors, np.arange(400), bound)
    tuned = index.tuned(bundle, positions, vectors, few, target)
    points = index.on_sphere(vectors, bound)
    truth = recall.exact(points, few)
    hits = index.hits_of(tuned, positions, points, few, truth)
    for asked in (few.own < 0, few.own >= 0):
        assert hits[asked].sum() >= target * (truth[asked] >= 0).sum()
    alone = [
        index.tuned(bundle, positions, vectors, each, target).facts["nprobe"]
        for each in (recall.queries(people, vectors, np.zeros(0, int), bound),
                     recall.queries(people[:0], vectors, np.arange(400), bound))
    ]  # fmt: skip
    assert tuned.facts["nprobe"] == max(alone) > min(alone)
