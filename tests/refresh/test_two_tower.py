"""A night and a refresh with the two towers switched on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.retrieval import matrix
from tests.refresh import conftest
from tests.refresh.conftest import AS_OF, Shop, hour, moved, touched

# The steps of a night that the switch changes.
SWITCHED = ("candidates", "examples", "ranker", "recommendations", "item_lists", "release")


def test_towers_name_in_the_night_and_move_with_the_touched_in_a_refresh(
    published: Shop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(conftest.PARAMS, "candidates", {"two_tower": True})
    shop = moved(published, tmp_path)
    shop.night(AS_OF, SWITCHED)
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
    other = (matrix.vectors_of(now) != matrix.vectors_of(people)[place]).any(axis=1)
    acted = matrix.positions(now["person_id"], pa.array(sorted(touched(shop, hour(6))))) >= 0
    assert other.any()
    assert not np.logical_and(other, ~acted).any()
