"""The step ``index`` of a night and of its refreshes, by their tables, with cells: what the guard
finds is done in the same run, and written down."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import io
from jobs.io import Lake
from jobs.night import Night
from jobs.refresh.route import Refresh
from jobs.retrieval import index, matrix
from jobs.tables import TABLES
from tests.retrieval.conftest import AS_OF, catalogue
from tests.retrieval.test_index_refresh import BUILDING, CROWDS, Shop, stored

HOUR = timedelta(hours=1)
# What nobody chose yet may be as long as the longest that is learnt: shortened, as they are by
# default, new items fit old cells better than these shall.
PARAMS = dataclasses.replace(BUILDING, cold_norm_quantile=1.0)


@dataclasses.dataclass
class Steps:
    """A shop of arrays whose index is made by steps in a lake."""

    lake: Lake
    shop: Shop

    def publish(self, as_of: datetime, refresh: Refresh | None) -> None:
        """What the step reads of those before it."""
        held, long_ago = self.shop.now, AS_OF - timedelta(days=99)
        ever = range(int(held.positions.max()) + 1)
        facts = zip(self.shop.category, self.shop.new, strict=True)
        there = dict(zip(held.positions.tolist(), facts, strict=True))
        items = catalogue(
            [f"i{position:05d}" for position in ever],
            available=[position in there for position in ever],
            category=[f"c{there[at][0]:02d}" if at in there else None for at in ever],
            first_seen=[as_of if at in there and there[at][1] else long_ago for at in ever],
        )
        vectors = np.zeros((len(ever), held.vectors.shape[1]), np.float32)
        vectors[held.positions] = held.vectors
        of_items = pa.table({"item_id": items["item_id"], "vector": matrix.vector_column(vectors)})
        people = pa.table({
            "person_id": [f"p{number}" for number in range(len(self.shop.people))],
            "vector": matrix.vector_column(self.shop.people),
        })  # fmt: skip
        made = {
            "catalogue": {"items": items},
            "content_embeddings": {"content_vectors": of_items},
            "embeddings": {"item_factors": of_items, "person_factors": people},
        }
        for step, tables in made.items():
            night = Night(self.lake, as_of, "run", "test", step)
            night.reset()
            for name, rows in tables.items():
                night.write(name, rows.cast(TABLES[name].schema))
            if step == "embeddings":
                io.write_json(night.staged / "embedding.json", {"version": "space"})
            self._publish(night, refresh)

    def run(self, as_of: datetime, refresh: Refresh | None = None) -> Night:
        """The step itself, published."""
        self.publish(as_of, refresh)
        night = Night(self.lake, as_of, "run", "test", "index", refresh=refresh)
        night.reset()
        (index.refresh if refresh else index.run)(night, PARAMS)
        self._publish(night, refresh)
        return night

    def _publish(self, night: Night, refresh: Refresh | None) -> None:
        facts = {"refresh": dataclasses.asdict(refresh) if refresh else None, "notes": night.notes}
        io.write_json(night.staged / "manifest.json", facts)
        self.lake.publish(night.step, night.as_of, "run")

    def table(self, name: str, as_of: datetime) -> list[dict]:
        return io.read_arrow(self.lake.published("index", as_of).table(name)).to_pylist()

    def bundle(self, as_of: datetime) -> index.Bundle:
        return index.load(self.lake.published("index", as_of).table(index.BUNDLE))


@pytest.mark.parametrize("strange", [False, True], ids=["calm", "strange"])
def test_cells_stand_until_new_items_are_lost_and_are_then_built_in_the_same_run(
    tmp_path: Path, strange: bool
) -> None:
    steps = Steps(Lake(tmp_path / "lake").open(), Shop(11))
    steps.run(AS_OF)
    built = steps.bundle(AS_OF)
    assert built.facts["kind"] == "cells"
    steps.shop.night(strange=False)
    label = io.label(AS_OF)
    first = steps.run(AS_OF + HOUR, Refresh(label, label)).notes["index"]
    assert (first["added"], first["removed"], first["built_again"]) == (90, 90, [])
    steps.shop.night(strange)
    second = steps.run(AS_OF + 2 * HOUR, Refresh(io.label(AS_OF + HOUR), label)).notes["index"]
    assert bool(second["built_again"]) == strange
    found = {
        (row["kind"], row["stratum"]): row for row in steps.table("index_recall", AS_OF + 2 * HOUR)
    }
    if strange:
        tripped = " ".join(second["built_again"])
        assert "recall of age new" in tripped
        assert f"recall of category c{CROWDS:02d}" in tripped
        assert found["category", f"c{CROWDS:02d}"]["recall"] > 0.9, "the new cells fit"
    assert found["age", "new"]["recall"] > 0.9
    # Either way the index holds what the table says, at its vectors.
    rows, bundle = steps.table("item_vectors", AS_OF + 2 * HOUR), steps.bundle(AS_OF + 2 * HOUR)
    positions = np.array([row["position"] for row in rows])
    assert bundle.index.ntotal == len(rows) == 6000
    assert set(positions.tolist()) == set(steps.shop.now.positions.tolist())
    vectors = np.array([row["vector"] for row in rows], np.float32)
    np.testing.assert_array_equal(stored(bundle, positions), vectors)
