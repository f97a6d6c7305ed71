"""What everybody's past says of an item."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from jobs.signals import measures, shop
from jobs.signals.past import BACK, PURCHASE
from jobs.signals.shop import Catalogue
from tests.signals.pasts import equal, past_of

ITEMS = ["bread", "milk", "tea"]
CATALOGUE = Catalogue.of(pa.table({
    "item_id": ["tea", "bread", "milk"],
    "category": [None, "FOOD > BAKERY > LOAF", "FOOD > BAKERY > ROLL"],
}))  # fmt: skip
ROWS = (
    ("p", "milk", "purchase", 40, {"value": 4.0}), ("p", "milk", "purchase", 10, {"value": 2.0}),
    ("q", "milk", "purchase", 35), ("q", "bread", "purchase", 3), ("r", "tea", "view", 28),
)  # fmt: skip


def measured(*pasts) -> dict[str, np.ndarray]:
    return shop.measure(pasts, CATALOGUE)


def test_a_catalogue_stands_by_id_with_its_categories_in_two_widths():
    assert CATALOGUE.ids.to_pylist() == ITEMS
    assert CATALOGUE.narrow.tolist() == [0, 1, -1]
    assert CATALOGUE.broad.tolist() == [0, 0, -1]


def test_the_measures_of_an_item_by_hand():
    found = measured(past_of(*ROWS, items=ITEMS))
    assert set(found) == set(measures.ITEM)
    milk = {name: column[1] for name, column in found.items()}
    assert milk["i_buyers"] == 2
    assert milk["i_repeated"] == pytest.approx((1 + 0.2 * 5) / (2 + 5))
    assert milk["i_gap"] == 30
    # Two bought it 28 days ago or earlier, one of them again since.
    assert milk["i_rebought"] == pytest.approx((1 + 0.1 * 5) / (2 + 5))
    assert (milk["i_new_buyers"], found["i_new_buyers"][0]) == (0, 1)
    assert milk["i_sold_28"] == pytest.approx(2 ** (-40 / 28) + 2 ** (-10 / 28) + 2 ** (-35 / 28))
    assert milk["i_paid"] == pytest.approx(8 / 3)
    assert milk["i_discount"] == pytest.approx(2 / (8 / 3))
    assert milk["i_age"] == 40
    assert found["i_looks"].tolist() == [0, 0, 0.5]


def test_gaps_alone_are_those_among_all_measures():
    went_back = (("q", "bread", "purchase", 30), ("q", "bread", "return", 20))
    whole = past_of(*ROWS, *went_back, items=ITEMS)
    told = whole.of(np.isin(whole.kind, (PURCHASE, *BACK)))
    assert len(told.kind) == len(whole.kind) - 1
    np.testing.assert_array_equal(shop.gaps([told], CATALOGUE), measured(whole)["i_gap"])
    assert shop.gaps([told], CATALOGUE)[1] == 30


def test_what_nobody_bought_is_unknown_and_not_worthless():
    found = measured(past_of(*ROWS, items=ITEMS))
    for name in ("i_gap", "i_paid", "i_discount", "i_age", "i_trend"):
        assert math.isnan(found[name][2]), name
    assert found["i_buyers"][2] == 0
    assert found["i_rebought"][2] == pytest.approx(0.1), "the prior"


def test_an_item_without_a_category_is_its_own():
    found = measured(past_of(*ROWS, items=ITEMS))
    assert found["c_rebought"][2] == found["i_rebought"][2]
    assert found["c_rebought"][1] == found["i_rebought"][1]


def test_blocks_of_people_add_up_to_all_of_them():
    whole = measured(past_of(*ROWS, items=ITEMS))
    parts = [past_of(*[r for r in ROWS if r[0] == who], items=ITEMS) for who in "pqr"]
    found = measured(*parts)
    assert whole.keys() == found.keys()
    for name, column in whole.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-12, err_msg=name)
    equal(found, measured(*parts))
