"""A night and a refresh with the two towers switched on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import spark
from jobs.io import Lake
from jobs.retrieval import matrix
from tests import small_shop
from tests.refresh import conftest
from tests.refresh.conftest import AS_OF, Shop, hour
from tests.refresh.test_refresh import touched


def test_towers_name_in_the_night_and_move_with_the_touched_in_a_refresh(
    engine: spark.Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(conftest.PARAMS, "candidates", {"two_tower": True})
    small_shop.write(tmp_path / "shop", people=160, items=120, days=70)
    shop = Shop(Lake(tmp_path / "lake").open(), tmp_path / "shop", engine)
    shop.night(AS_OF)
    named = shop.table("candidates", AS_OF)
    named = named.filter(pc.equal(named["source"], "two_tower"))
    people = shop.table("two_tower_persons", AS_OF)
    assert set(named["person_id"].to_pylist()) == set(people["person_id"].to_pylist())
    content = shop.table("content_vectors", AS_OF)["item_id"].to_pylist()
    assert shop.table("two_tower_items", AS_OF)["item_id"].to_pylist() == sorted(content)
    signal = shop.table("features", AS_OF)["two_tower_signal"].to_numpy()
    assert (signal > 0).any()

    shop.refresh(hour(6))
    for name in ("two_tower_weights", "two_tower_items"):
        assert shop.table(name, hour(6)).equals(shop.table(name, AS_OF)), name
    now = shop.table("two_tower_persons", hour(6))
    place = matrix.positions(now["person_id"], people["person_id"].combine_chunks())
    assert (place >= 0).all(), "nobody comes to this shop in six hours"
    moved = (matrix.vectors_of(now) != matrix.vectors_of(people)[place]).any(axis=1)
    acted = matrix.positions(now["person_id"], pa.array(sorted(touched(shop, hour(6))))) >= 0
    assert moved.any()
    assert not np.logical_and(moved, ~acted).any()
