import numpy as np
import pyarrow as pa

from jobs import io
from jobs.retrieval import content_embeddings as content
from jobs.retrieval import matrix
from tests.retrieval.conftest import catalogue

PARAMS = content.Params(dim=8)
KINDS = ["DAIRY > MILK", "DAIRY > CHEESE", "WINE > RED", "WINE > WHITE"]


def shop(n_items: int = 40) -> pa.Table:
    return catalogue(
        [f"i{i:03d}" for i in range(n_items)],
        category=[KINDS[i % 4] for i in range(n_items)],
        title=[f"{KINDS[i % 4].split(' > ')[1].title()} no {i}" for i in range(n_items)],
        brand=["Own" if i % 3 else "Other" for i in range(n_items)],
        price=[1.0 + i % 4 for i in range(n_items)],
        flags=[["alcohol"] if i % 4 >= 2 else [] for i in range(n_items)],
    ).select(content.COLUMNS)


def embedded(items: pa.Table) -> np.ndarray:
    return content.embed(content.token_counts(items, PARAMS), PARAMS, 7)[0]


def test_items_of_one_kind_are_nearer_than_items_of_another() -> None:
    vectors = embedded(shop())
    cosines = vectors @ vectors.T
    kind = np.arange(40) % 4
    same = kind[:, None] == kind[None, :]
    same_top = (kind // 2)[:, None] == (kind // 2)[None, :]
    assert cosines[same].mean() > cosines[same_top & ~same].mean() > cosines[~same_top].mean()


def test_a_new_item_lies_among_its_kind() -> None:
    new = catalogue(["new"], category=["WINE > RED"], title=["Red, new"]).select(content.COLUMNS)
    vectors = embedded(pa.concat_tables([shop(), new]))
    nearest = np.argsort(-(vectors[:-1] @ vectors[-1]))[:5]
    assert set(nearest % 4) == {2}


def test_every_item_has_a_vector_of_length_one_even_without_content() -> None:
    bare = catalogue(["nothing", "odd"], title=[None, "unheard-of"]).select(content.COLUMNS)
    bags = content.token_counts(pa.concat_tables([shop(), bare]), PARAMS)
    vectors, described = content.embed(bags, PARAMS, 7)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert described.tolist() == [True] * 40 + [False, False]
    np.testing.assert_array_equal(vectors[40], vectors[41])


def test_equal_catalogues_make_equal_bits() -> None:
    np.testing.assert_array_equal(embedded(shop()), embedded(shop()))


def test_a_catalogue_of_nothing_but_ids_still_has_vectors() -> None:
    items = catalogue(["a", "b", "c"]).select(content.COLUMNS)
    vectors, described = content.embed(content.token_counts(items, PARAMS), PARAMS, 7)
    assert vectors.shape == (3, 1)
    assert not described.any()


def test_hostile_titles_are_words_like_others() -> None:
    words = set(content.tokens("'; DROP\nTABLE <b>Über</b> ../x", "", None, None, -1.0, [], []))
    assert words == {f"title:{w}" for w in ("drop", "table", "b", "über", "x")}


def test_a_field_of_weight_zero_says_nothing() -> None:
    params = content.Params(dim=8, field_weights={"category": 1.0})
    bags = content.token_counts(shop(), params)
    assert int((bags.sum(axis=0) > 0).sum()) == 6


def test_the_map_to_the_collaborative_space_finds_a_linear_truth() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(300, 6)).astype(np.float32)
    truth = (vectors @ generator.normal(size=(6, 4))).astype(np.float32)
    known = np.arange(0, 300, 2)
    mapped = content.ToCollaborative.learn(vectors[known], truth[known], 1e-6, 1.0).of(vectors)
    short = np.linalg.norm(truth, axis=1) < np.linalg.norm(truth[known], axis=1).max()
    np.testing.assert_allclose(mapped[short], truth[short], atol=1e-3)


def test_a_guessed_vector_is_not_longer_than_the_quantile_of_learnt_ones() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(100, 6)).astype(np.float32)
    factors = generator.normal(size=(50, 4)).astype(np.float32)
    mapped = content.ToCollaborative.learn(vectors[:50], factors, 1.0, 0.1).of(vectors)
    limit = np.quantile(np.linalg.norm(factors, axis=1), 0.1)
    assert np.linalg.norm(mapped, axis=1).max() <= limit * (1 + 1e-5)


def test_the_step_writes_a_row_per_item(publish) -> None:
    items = catalogue([f"i{i}" for i in range(20)], category=[KINDS[i % 4] for i in range(20)])
    publish("catalogue", items=items)
    night = publish("content_embeddings")
    content.run(night, PARAMS)
    rows = io.read_arrow(night.staged / "content_vectors")
    assert sorted(rows["item_id"].to_pylist()) == sorted(items["item_id"].to_pylist())
    assert np.isfinite(matrix.vectors_of(rows)).all()
