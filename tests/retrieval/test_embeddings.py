import dataclasses
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import io
from jobs.retrieval import als, embeddings, matrix
from jobs.retrieval.als import Factors
from tests.retrieval.conftest import AS_OF, catalogue, crowds

PARAMS = embeddings.Params(factors=8, regularization=0.1)
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


def fit_a_night(publish, rows: pa.Table, as_of=AS_OF, params=PARAMS) -> dict:
    publish("interactions", as_of, interactions=rows)
    publish("catalogue", as_of, items=catalogue(sorted(set(rows["item_id"].to_pylist()))))
    publish("identities", as_of, persons=persons(rows))
    night = publish("embeddings", as_of)
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


def exact_als(weights: np.ndarray, start: Factors, rounds: int, regularization: float) -> Factors:
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

    items = start.items.astype(np.float64)
    for _ in range(rounds):
        people = solve(weights, items)
        items = solve(weights.T, people)
    return Factors(people, items)


def test_the_fit_agrees_with_the_textbook_equations() -> None:
    weights = matrix.build(crowds(40, 24)).matrix
    scaled = weights.toarray().astype(np.float64)
    scaled *= 4.0 / scaled[scaled > 0].mean()
    scaled = np.where(scaled > 0, np.maximum(scaled, 1.0), 0.0)
    start = als.random_start(weights.shape, 4, SEED)
    ours = als.fit(
        weights, factors=4, iterations=40, regularization=1.0, confidence=4.0, start=start
    )
    theirs = exact_als(scaled, start, 40, 1.0)
    np.testing.assert_allclose(
        ours.people @ ours.items.T, theirs.people @ theirs.items.T, atol=0.02
    )


def test_a_pair_that_was_seen_never_counts_less_than_one_that_was_not() -> None:
    weights = matrix.build(crowds(40, 24)).matrix
    start = als.random_start(weights.shape, 4, SEED)
    fits = []
    for faint in (0.1, 0.001):  # confidences of 0.4 and 0.004
        views = weights.copy()
        views.data[:] = 1.0
        views.data[::3] = faint
        fits.append(
            als.fit(
                views, factors=4, iterations=10, regularization=1.0,
                confidence=4.0 * float(views.data.mean()), start=start,
            )
        )  # fmt: skip
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


def test_a_warm_start_moves_less_than_a_cold_refit(publish) -> None:
    rows = crowds(150, 60)
    fit_a_night(publish, rows.slice(0, rows.num_rows - 10))
    warm = fit_a_night(publish, rows, AS_OF + timedelta(days=1))
    cold = fit_a_night(
        publish, rows, AS_OF + timedelta(days=2), dataclasses.replace(PARAMS, regularization=0.2)
    )
    assert warm["report"]["warm"] == 1.0
    assert cold["report"]["warm"] == 0.0
    assert warm["report"]["moved_share"] < 0.2
    assert warm["report"]["moved_share"] < cold["report"]["moved_share"]


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
