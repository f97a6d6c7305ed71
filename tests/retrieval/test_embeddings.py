import dataclasses
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import io
from jobs.retrieval import als, embeddings, matrix
from jobs.retrieval.als import Factors
from tests.retrieval.conftest import AS_OF, AS_OF_US, catalogue, crowds

PARAMS = embeddings.Params(factors=8, regularization=0.1)
# Of so many steps as to solve the equations.
SOLVER = als.Solver(steps=32, regularization=1.0, confidence=4.0)
SEED = 7


def persons(rows: pa.Table) -> pa.Table:
    ids = sorted(set(rows["person_id"].to_pylist()))
    return pa.table(
        {
            "person_id": ids,
            "household_id": ids,
            "region": pa.nulls(len(ids), pa.string()),
            "segment": pa.nulls(len(ids), pa.string()),
            "personalised": [True] * len(ids),
            "restrictions": pa.array([[]] * len(ids), pa.list_(pa.string())),
            "keys": pa.array([1] * len(ids), pa.int32()),
            "first_seen": pa.nulls(len(ids), pa.timestamp("us", tz="UTC")),
            "last_seen": pa.nulls(len(ids), pa.timestamp("us", tz="UTC")),
        }
    )


def fit_a_night(publish, rows: pa.Table, as_of=AS_OF, params=PARAMS, overrides=None) -> dict:
    publish("interactions", as_of, interactions=rows)
    publish("catalogue", as_of, items=catalogue(sorted(set(rows["item_id"].to_pylist()))))
    publish("identities", as_of, persons=persons(rows))
    night = dataclasses.replace(publish("embeddings", as_of), overrides=overrides or {})
    embeddings.run(night, params)
    written = {
        "items": io.read_arrow(night.staged / "item_factors"),
        "persons": io.read_arrow(night.staged / "person_factors"),
        "facts": io.read_json(night.staged / embeddings.FILE),
    }
    report = io.read_arrow(night.staged / "embedding_report").to_pydict()
    written["report"] = dict(zip(report["measure"], report["value"], strict=True))
    night.close(params, "test")
    night.lake.publish("embeddings", as_of, "test-run")
    return written


def exact_als(
    weights: np.ndarray, start: np.ndarray, rounds: int, regularization: float
) -> Factors:
    """Hu, Koren and Volinsky's equations, solved row by row without any shortcut."""

    def solve(confidences: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        eye = regularization * np.eye(fixed.shape[1])
        return np.stack(
            [
                np.linalg.solve(
                    fixed.T @ (np.where(row > 0, row, 1)[:, None] * fixed) + eye, fixed.T @ row
                )
                for row in confidences
            ]
        )

    items = start.astype(np.float64)
    for _ in range(rounds):
        people = solve(weights, items)
        items = solve(weights.T, people)
    return Factors(people, items)


def test_the_fit_agrees_with_the_textbook_equations() -> None:
    weights = matrix.build(crowds(40, 24)).matrix
    scaled = weights.toarray().astype(np.float64)
    scaled *= 4.0 / scaled[scaled > 0].mean()
    scaled = np.where(scaled > 0, np.maximum(scaled, 1.0), 0.0)
    start = als.random_start(weights.shape[1], 4, SEED)
    ours = SOLVER.fit(weights, start, 40)
    theirs = exact_als(scaled, start, 40, 1.0)
    np.testing.assert_allclose(
        ours.people @ ours.items.T, theirs.people @ theirs.items.T, atol=0.02
    )


def test_a_row_is_solved_alone_and_fewer_steps_keep_its_vector_short() -> None:
    built = matrix.build(crowds(200, 80))
    weights = als.confidences(built.matrix, 4.0, als.mean_weight(built.matrix))
    items = np.random.default_rng(SEED).normal(size=(80, 8)).astype(np.float32)
    some = np.array([3, 17, 141])
    for steps in (1, 3):
        solver = dataclasses.replace(SOLVER, steps=steps)
        all_of_them = solver.solved(weights, items)
        np.testing.assert_array_equal(solver.solved(weights[some], items), all_of_them[some])
    lengths = [
        np.linalg.norm(dataclasses.replace(SOLVER, steps=steps).solved(weights, items), axis=1)
        for steps in (1, 2, 3, 32)
    ]
    assert (np.diff(lengths, axis=0) > -1e-4).all()
    assert lengths[0].mean() < 0.9 * lengths[-1].mean()


def test_a_pair_that_was_seen_never_counts_less_than_one_that_was_not() -> None:
    weights = matrix.build(crowds(40, 24)).matrix
    start = als.random_start(weights.shape[1], 4, SEED)
    fits = []
    for faint in (0.1, 0.001):  # confidences of 0.4 and 0.004
        views = weights.copy()
        views.data[:] = 1.0
        views.data[::3] = faint
        fits.append(als.Solver(32, 1.0, 4.0 * float(views.data.mean())).fit(views, start, 10))
    np.testing.assert_allclose(fits[0].items, fits[1].items, atol=1e-4)


def test_equal_inputs_give_equal_bits_on_any_number_of_threads() -> None:
    import threadpoolctl

    weights = matrix.build(crowds(200, 80)).matrix
    one = embeddings.fit(weights, PARAMS, SEED)
    with threadpoolctl.threadpool_limits(limits=1):
        two = embeddings.fit(weights, PARAMS, SEED)
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.people, two.people)


def test_the_unit_of_the_weights_does_not_matter() -> None:
    weights = matrix.build(crowds()).matrix
    one, two = (embeddings.fit(w, PARAMS, SEED) for w in (weights, weights * 8))
    np.testing.assert_array_equal(one.items, two.items)


def test_a_person_is_near_the_items_of_their_crowd() -> None:
    built = matrix.build(crowds())
    factors = embeddings.fit(built.matrix, PARAMS, SEED)
    scores = factors.people @ factors.items.T
    own = np.arange(60)[:, None] % 4 == np.arange(40)[None, :] % 4
    assert scores[own].mean() > 5 * abs(scores[~own].mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_alignment_keeps_inner_products_and_undoes_a_rotation(seed: int, dim: int) -> None:
    generator = np.random.default_rng(seed)
    old = Factors(*(generator.normal(size=(n, dim)).astype(np.float32) for n in (9, 30)))
    turn, _ = np.linalg.qr(generator.normal(size=(dim, dim)))
    new = als.rotate(old, turn)
    back = als.rotate(new, als.rotation(new.items, old.items))
    np.testing.assert_allclose(back.people @ back.items.T, new.people @ new.items.T, atol=1e-4)
    np.testing.assert_allclose(back.items, old.items, atol=1e-4)


def again(rows: pa.Table, chosen: pa.Array, hours: int) -> pa.Table:
    """The same with these pairs done once more, so many hours after ``AS_OF``."""
    moment = pa.scalar(AS_OF_US + hours * 3_600_000_000).cast(pa.timestamp("us", tz="UTC"))
    times = pc.if_else(chosen, moment, rows["last_time"])
    return rows.set_column(rows.schema.get_field_index("last_time"), "last_time", times)


def vectors(table: pa.Table) -> dict[str, tuple[float, ...]]:
    ids, rows = table.column(0).to_pylist(), table["vector"].to_pylist()
    return {one: tuple(vector) for one, vector in zip(ids, rows, strict=True)}


def moved(before: dict, after: dict) -> set[str]:
    """The items whose vector is another, or that have one since."""
    old, new = vectors(before["items"]), vectors(after["items"])
    return {item for item in new if old.get(item) != new[item]}


@pytest.mark.parametrize("hours", [1, -20])  # the second came late: of a day that was read before
def test_a_night_solves_everybody_and_what_was_chosen_since_and_nothing_else_moves(
    publish, hours
) -> None:
    rows = crowds(150, 60)
    first = fit_a_night(publish, rows.filter(pc.not_equal(rows["item_id"], "i059")))
    since = pc.is_in(rows["item_id"], value_set=pa.array(["i003", "i007"]))
    second = fit_a_night(publish, again(rows, since, hours), AS_OF + timedelta(days=1))
    assert moved(first, second) == {"i003", "i007", "i059"}
    assert second["report"]["warm"] == 1.0
    assert second["report"]["moved_share"] < 0.05
    people = vectors(first["persons"]), vectors(second["persons"])
    assert all(people[0][person] != people[1][person] for person in people[0])


def test_whoever_is_there_no_more_is_in_no_vector_of_an_item(publish) -> None:
    rows = crowds(150, 60)
    gone = pc.equal(rows["person_id"], "account:002")
    first = fit_a_night(publish, rows)
    second = fit_a_night(publish, rows.filter(pc.invert(gone)), AS_OF + timedelta(days=1))
    assert moved(first, second) == set(rows.filter(gone)["item_id"].to_pylist())


def test_a_choice_that_was_taken_back_is_in_no_vector(publish) -> None:
    rows = crowds(150, 60)
    pair = pc.and_(pc.equal(rows["person_id"], "account:002"), pc.equal(rows["item_id"], "i006"))
    assert pc.any(pair).as_py()
    first = fit_a_night(publish, rows)
    second = fit_a_night(publish, rows.filter(pc.invert(pair)), AS_OF + timedelta(days=1))
    assert moved(first, second) == {"i006"}


def test_who_came_with_nothing_but_new_items_has_a_vector_of_their_own(publish) -> None:
    rows = crowds(150, 60)
    new = pa.table(
        {**{name: rows[name].slice(0, 4) for name in rows.schema.names},
         "person_id": ["account:new", "account:new", "account:other", "account:001"],
         "item_id": ["new1", "new2", "new1", "new2"]}
    )  # fmt: skip
    fit_a_night(publish, rows)
    second = fit_a_night(publish, pa.concat_tables([rows, new]), AS_OF + timedelta(days=1))
    people, items = vectors(second["persons"]), vectors(second["items"])
    assert second["report"]["coverage_persons"] == second["report"]["coverage_items"] == 1.0
    # Who shares a new item with somebody known is near what that one likes.
    liked = [np.dot(people["account:new"], items[f"i{n:03d}"]) for n in range(60)]
    own = [score for n, score in enumerate(liked) if n % 4 == 1]
    assert np.mean(own) > max(0.0, np.mean([s for n, s in enumerate(liked) if n % 4 != 1]))


def test_a_night_that_was_begun_again_is_no_start(publish) -> None:
    rows = crowds(150, 60)
    fit_a_night(publish, rows)
    # Its interactions were made anew, and its vectors were not.
    publish("interactions", AS_OF, interactions=rows.slice(0, rows.num_rows - 50))
    second = fit_a_night(publish, rows, AS_OF + timedelta(days=1))
    assert second["report"]["warm"] == 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_item_changed_where_its_people_or_their_times_are_others(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def drawn() -> tuple[matrix.Interactions, dict[str, set]]:
        chosen = generator.random((6, 5)) < 0.6
        chosen[0, 0] = True
        rows, columns = np.nonzero(chosen)
        times = generator.integers(0, 2, len(rows))
        people = [f"p{n}" for n in rows + generator.integers(0, 2)]
        items = [f"i{n}" for n in columns + generator.integers(0, 2)]
        table = pa.table(
            {"person_id": people, "item_id": items, "weight": np.ones(len(rows)),
             "last_time": pa.array(times).cast(pa.timestamp("us", tz="UTC"))}
        )  # fmt: skip
        of_item: dict[str, set] = {}
        for person, item, time in zip(people, items, times.tolist(), strict=True):
            of_item.setdefault(item, set()).add((person, time))
        return matrix.build(table), of_item

    (before, old), (now, new) = drawn(), drawn()
    changed = embeddings.changed_items(now, before)
    expected = [new[item] != old.get(item) for item in now.item_ids.to_pylist()]
    assert changed.tolist() == expected


def test_the_next_night_solves_the_textbook_equations_once() -> None:
    known = matrix.build(crowds(40, 24))
    start = SOLVER.fit(known.matrix, als.random_start(24, 4, SEED), 3).items
    chosen, new = np.isin(np.arange(24), [2, 5, 11]), np.zeros(24, bool)
    found = SOLVER.onward(known.matrix, start, chosen, new)
    scaled = known.matrix.toarray().astype(np.float64)
    scaled *= 4.0 / scaled[scaled > 0].mean()
    scaled = np.where(scaled > 0, np.maximum(scaled, 1.0), 0.0)
    once = exact_als(scaled, start, 1, 1.0)
    np.testing.assert_allclose(found.people, once.people, atol=0.02)
    np.testing.assert_allclose(found.items[chosen], once.items[chosen], atol=0.02)
    np.testing.assert_array_equal(found.items[~chosen], start[~chosen])


def test_somebody_new_is_near_the_items_of_their_crowd_in_the_space_of_the_night_before(
    publish,
) -> None:
    rows = crowds(150, 60)
    fit_a_night(publish, rows.filter(pc.not_equal(rows["person_id"], "account:002")))
    second = fit_a_night(publish, rows, AS_OF + timedelta(days=1))
    items, people = vectors(second["items"]), vectors(second["persons"])
    scores = {item: np.dot(people["account:002"], vector) for item, vector in items.items()}
    own, others = [], []
    for item, score in scores.items():
        (own if int(item[1:]) % 4 == 2 else others).append(score)
    assert np.mean(own) > 5 * abs(np.mean(others))


def test_other_parameters_of_the_fit_or_of_the_weights_are_a_cold_fit(publish) -> None:
    rows = crowds(150, 60)
    fit_a_night(publish, rows)
    other = dataclasses.replace(PARAMS, regularization=0.2)
    cold = fit_a_night(publish, rows, AS_OF + timedelta(days=1), other)
    weighed = fit_a_night(
        publish, rows, AS_OF + timedelta(days=2), other, {"interactions": {"fresh_days": 3.0}}
    )
    onward = fit_a_night(
        publish, rows, AS_OF + timedelta(days=3), other, {"interactions": {"fresh_days": 3.0}}
    )
    assert [night["report"]["warm"] for night in (cold, weighed, onward)] == [0, 0, 1]
    # The same fit as the one before it, turned onto that: at random everything would have moved.
    assert weighed["report"]["moved_share"] < 0.01


def test_people_and_items_that_come_and_go_keep_the_others_in_place(publish) -> None:
    rows = crowds(150, 60)
    people = rows["person_id"].to_pylist()
    items = rows["item_id"].to_pylist()
    before = rows.filter(pa.array([i != "i059" for i in items]))
    after = rows.filter(pa.array([p != "account:000" for p in people]))
    fit_a_night(publish, before)
    second = fit_a_night(publish, after, AS_OF + timedelta(days=1))
    assert "i059" in second["items"]["item_id"].to_pylist()
    assert "account:000" not in second["persons"]["person_id"].to_pylist()
    assert second["report"]["shared_items"] == 59
    assert second["report"]["moved_share"] < 0.25


def test_a_night_again_gives_the_same_rows_and_version(publish) -> None:
    rows = crowds()
    first = fit_a_night(publish, rows)
    again = fit_a_night(publish, rows)
    assert first["facts"] == again["facts"]
    assert first["items"].equals(again["items"])
    assert first["facts"]["predecessor"] is None
    assert first["report"]["nonfinite"] == 0
    assert first["report"]["coverage_items"] == 1


def test_the_next_night_names_its_predecessor_and_a_new_version(publish) -> None:
    rows = crowds()
    first = fit_a_night(publish, rows)
    second = fit_a_night(publish, rows, AS_OF + timedelta(days=1))
    assert second["facts"]["predecessor"] == first["facts"]["version"]
    assert second["facts"]["version"] != first["facts"]["version"]


def test_another_number_of_dimensions_is_a_cold_fit_without_movement(publish) -> None:
    rows = crowds()
    fit_a_night(publish, rows)
    wider = dataclasses.replace(PARAMS, factors=12)
    second = fit_a_night(publish, rows, AS_OF + timedelta(days=1), wider)
    assert second["facts"]["warm"] is False
    assert "moved_share" not in second["report"]


def test_a_parameter_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="factors must be in"):
        embeddings.Params(factors=0)
