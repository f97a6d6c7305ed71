"""The two towers: what they see, what they learn, and that they say the same every time."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import neural
from jobs.errors import Fault
from jobs.retrieval import matrix, towers
from jobs.retrieval.sources import two_tower
from jobs.retrieval.towers import Ground
from jobs.tables import SOURCES, TABLES, TIME
from tests.retrieval.conftest import AS_OF_US, DAY

CROWDS, PEOPLE, ITEMS = 4, 80, 48
SMALL = two_tower.Params(
    dim=8, hidden=16, history=16, horizon_days=14, step_days=7, instants=8, people=32, drawn=4,
    others=32, batches=150, rate=0.01,
)  # fmt: skip


def kind(name: str) -> int:
    """The crowd of a person or an item."""
    return int(name[-3:]) % CROWDS


def ground(until: int = AS_OF_US, seed: int = 1, delay: int = 0) -> Ground:
    """People buy the items of their crowd, each of them again and again over 120 days. Nobody buys
    the last twelve items. Content says an item's crowd, blurred. The shop has up to ``delay``
    microseconds later what happened."""
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), 30)
    item = (generator.integers(0, ITEMS // CROWDS - 3, len(person))) * CROWDS + person % CROWDS
    time = AS_OF_US - generator.integers(1, 120 * DAY, len(person))
    received = time + generator.integers(0, delay + 1, len(person))
    kept = np.maximum(time, received) < until
    ids = [f"i{i:03d}" for i in range(ITEMS)]
    blur = generator.normal(size=(ITEMS, CROWDS)) * 0.1
    content = np.eye(CROWDS)[np.arange(ITEMS) % CROWDS] + blur
    events = pa.table(
        {
            "person_id": [f"account:{p:03d}" for p in person[kept]],
            "item_id": [ids[i] for i in item[kept]],
            "event_type": ["purchase"] * int(kept.sum()),
            "event_time": pa.array(time[kept]).cast(TIME),
            "received_time": pa.array(received[kept]).cast(TIME),
            "quantity": [1.0] * int(kept.sum()),
            "value": 1.0 + item[kept] % 5,
        }
    )
    people = [f"account:{p:03d}" for p in range(PEOPLE)]
    return Ground.of(
        events,
        pa.array(people),
        pa.table({"item_id": ids, "category": [f"A > {kind(one)}" for one in ids]}),
        pa.table({"item_id": ids, "vector": matrix.vector_column(content)}),
        pa.table(
            {
                "person_id": people[::-1],
                "region": pa.array([None] * PEOPLE, pa.string()),
                "segment": [f"s{p % 3}" for p in range(PEOPLE)],
            }
        ),
        until,
    )


@pytest.fixture(scope="module")
def trained() -> two_tower.Towers:
    found = two_tower.train(ground(), SMALL, seed=7)
    assert found is not None
    return found


def test_the_source_bears_a_declared_name() -> None:
    assert two_tower.NAME in SOURCES


def test_people_are_named_what_their_crowd_buys(trained: two_tower.Towers) -> None:
    rows = two_tower.candidates(trained, trained.person_ids, 9)
    assert rows.schema.equals(TABLES["candidates"].schema)
    assert rows.num_rows == PEOPLE * 9
    own = [
        kind(person) == kind(item)
        for person, item in zip(
            rows["person_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True
        )
    ]
    assert np.mean(own) > 0.95


def test_an_item_that_nobody_chose_lies_where_its_content_says(trained: two_tower.Towers) -> None:
    cold = np.arange(ITEMS - 12, ITEMS)
    assert not np.isin(cold, ground().item).any()
    scores = trained.people @ trained.items[cold].T
    own = np.arange(PEOPLE)[:, None] % CROWDS == cold[None, :] % CROWDS
    ahead = [(scores[p][own[p]][:, None] > scores[p][~own[p]]).mean() for p in range(PEOPLE)]
    assert np.mean(ahead) > 0.9


def test_one_seed_gives_the_same_bits_and_another_one_others(trained: two_tower.Towers) -> None:
    again = two_tower.train(ground(), SMALL, seed=7)
    other = two_tower.train(ground(), SMALL, seed=8)
    assert again is not None
    assert other is not None
    assert two_tower.version(again) == two_tower.version(trained) != two_tower.version(other)


@pytest.mark.parametrize("delay", [0, 20 * DAY])
def test_an_earlier_instant_sees_what_a_night_then_would_have_seen(delay: int) -> None:
    days = 30
    then, now = ground(AS_OF_US - days * DAY, delay=delay), ground(delay=delay).before(days)
    everybody = np.arange(PEOPLE)
    rows = then.bought_by(5)
    for night, back in zip(
        (towers.of_items(then.with_rows(rows)), towers.of_people(then, everybody, 16, 45.0)),
        (towers.of_items(now.with_rows(rows)), towers.of_people(now, everybody, 16, 45.0)),
        strict=True,
    ):
        for name, column in night.items():
            np.testing.assert_allclose(back[name], column, rtol=1e-5, err_msg=name)


def test_what_was_bought_in_the_horizon_is_a_label_however_late_it_came() -> None:
    whole = ground(delay=20 * DAY)
    lesson = two_tower.lesson_at(whole, 0, SMALL, seed=7)
    assert lesson is not None
    then = whole.before(SMALL.horizon_days)
    late = (whole.age > SMALL.horizon_days) & (whole.received <= SMALL.horizon_days)
    assert late.any()
    assert len(then.age) == (whole.age > SMALL.horizon_days).sum() - late.sum()
    after = whole.bought & (whole.age <= SMALL.horizon_days)
    pairs = np.unique(whole.person[after] * ITEMS + whole.item[after])
    pairs = pairs[np.isin(pairs // ITEMS, then.person)]
    np.testing.assert_array_equal(lesson.item, pairs % ITEMS)


def test_an_item_that_was_not_sold_by_then_has_nothing_of_what_came_later() -> None:
    whole = ground()
    first = whole.age == whole.age.max()
    assert first.sum() == 1
    seen = towers.of_items(whole.with_rows(whole.bought_by(1)).before(whole.age.max()))
    assert not seen["sold"].any()
    assert not seen["band"].any()
    assert not seen["row"].any()


def test_the_inputs_of_a_person_are_the_strongest_items_and_their_mean() -> None:
    seen = towers.of_people(replace(ground(), row=np.arange(ITEMS)), np.array([5]), 4, 45.0)
    whole = ground()
    mine = whole.person == 5
    weight = np.bincount(whole.item[mine], np.exp2(-whole.age[mine] / 45.0), ITEMS)
    best = np.lexsort((np.arange(ITEMS), -weight))[:4]
    share = weight[best] / weight[best].sum()
    np.testing.assert_array_equal(seen["heard"][0], best)
    np.testing.assert_allclose(seen["loud"][0], share, rtol=1e-5)
    np.testing.assert_allclose(seen["content"][0], share @ whole.content[best], rtol=1e-5)
    assert seen["pace"][0, 0] == pytest.approx(np.log1p(30) / 5)


def test_the_loss_is_the_corrected_share_of_the_softmax() -> None:
    """Two people with a purchase each and one more item; the second person's purchase is the first
    one's as well, so it is no negative of the first."""
    weights = two_tower.start(ground(), SMALL, np.random.default_rng(0))
    instant = ground().before(14)
    people = towers.taken(towers.of_people(instant, np.arange(PEOPLE), 16, 45.0), np.array([0, 1]))
    chosen = np.array([4, 4, 9])
    items = towers.taken(towers.of_items(instant), chosen)
    often = np.log(np.array([2.0, 2.0, 0.5], np.float32))
    found = two_tower.loss(
        weights,
        {"people": people, "items": items, "mine": np.array([[0], [1]]), "often": often,
         "own": np.array([[True, True, False], [True, True, False]])},
    )  # fmt: skip
    scores = towers.person_vectors(weights, people, np) @ towers.item_vectors(weights, items, np).T
    scores = np.exp(scores - often)
    expected = [-np.log(s[row] / (s[row] + s[2])) for row, s in enumerate(scores)]
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


def test_nothing_that_a_person_bought_in_the_horizon_is_a_negative() -> None:
    """Also what was not drawn of the person's purchases, where another one's draw or the items of
    the whole catalogue bring it."""
    lesson = two_tower.lesson_at(ground(), 0, SMALL, seed=7)
    assert lesson is not None
    after = ground().age <= SMALL.horizon_days
    bought = set(zip(ground().person[after], ground().item[after], strict=True))
    taught = np.unique(ground().person[after])
    chosen = np.random.default_rng(0).integers(ITEMS, size=100)
    expected = [[(person, item) in bought for item in chosen] for person in taught]
    found = two_tower.all_bought(lesson, np.arange(len(taught)), chosen)
    np.testing.assert_array_equal(found, expected)
    (batch,) = two_tower.batches(
        [lesson], replace(SMALL, drawn=1, others=500, batches=1), np.random.default_rng(7)
    )
    assert np.take_along_axis(batch["own"], batch["mine"], axis=1).all()
    assert batch["own"].mean() > 2 / ITEMS, "one is drawn; people bought three of the items"


def test_stored_towers_give_the_vectors_that_were_stored(trained: two_tower.Towers) -> None:
    weights, people, items = two_tower.rows_of(trained)
    for rows, name in zip((weights, people, items), ("weights", "persons", "items"), strict=True):
        assert rows.schema.names == TABLES[f"two_tower_{name}"].schema.names
    _, words, _ = two_tower.read(weights)
    assert words == trained.words
    nothing = (weights, people.slice(0, 0), items.slice(0, 0))
    again = two_tower.onward(ground(), nothing, trained.person_ids[:0], SMALL)
    np.testing.assert_array_equal(again.people, matrix.vectors_of(people))
    np.testing.assert_array_equal(again.items, matrix.vectors_of(items))


def test_a_refresh_moves_the_touched_and_the_new_and_nobody_else(trained: two_tower.Towers) -> None:
    weights, people, items = two_tower.rows_of(trained)
    touched = trained.person_ids[3:5]
    later = two_tower.onward(
        ground(seed=2), (weights, people, items.slice(0, 0)), trained.person_ids, SMALL
    )
    new, came = trained.item_ids[0].as_py(), trained.person_ids[9].as_py()
    known = people.filter(pc.not_equal(people["person_id"], came))
    kept = items.filter(pc.not_equal(items["item_id"], new))
    found = two_tower.onward(ground(seed=2), (weights, known, kept), touched, SMALL)
    moved = np.isin(np.arange(PEOPLE), [3, 4, 9])
    assert (later.people != trained.people).any(axis=1).all()
    np.testing.assert_array_equal(found.people[moved], later.people[moved])
    np.testing.assert_array_equal(found.people[~moved], trained.people[~moved])
    np.testing.assert_array_equal(found.items[0], later.items[0])
    np.testing.assert_array_equal(found.items[1:], trained.items[1:])


def test_towers_that_are_off_leave_tables_without_a_row() -> None:
    assert [rows.num_rows for rows in two_tower.rows_of(None)] == [0, 0, 0]


def test_a_history_shorter_than_the_horizon_trains_nothing() -> None:
    young = ground()
    young = replace(young, age=young.age / 10)
    assert two_tower.train(young, SMALL, seed=7) is None


def test_without_the_package_the_error_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Fault, match=r"candidates\.two_tower is on .* jax .* `make neural`"):
        two_tower.train(ground(), SMALL, seed=7)


def test_a_stored_model_comes_back_to_the_bit_and_another_kind_is_refused() -> None:
    weights = {"a": np.array([[1.5, -0.25]], np.float32), "b": np.zeros(0, np.float32)}
    text = neural.to_json("test", {"edges": [1.0]}, weights)
    facts, found = neural.from_json(text, "test")
    assert facts["edges"] == [1.0]
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].shape == value.shape
    with pytest.raises(Fault, match="of kind 'test'"):
        neural.from_json(text, "other")
