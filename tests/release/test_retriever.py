"""Online retrieval finds the nearest of what a person may get, by the rules of the lists."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from jobs import io
from jobs.errors import Fault
from jobs.filtering import filters
from jobs.release import checks, release, releases
from jobs.release.reader import Reader
from jobs.release.retriever import Retriever
from jobs.retrieval import matrix
from tests.release import nights
from tests.release.nights import HOSTILE

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = [
    "account:p0",
    "account:p2",
    "account:p3",
    "account:p4",
    *(f"account:{t}" for t in HOSTILE),
]


def fresh():
    """A moment at which the first night's release is a few hours old."""
    return nights.AS_OF + timedelta(hours=7)


@pytest.fixture
def retriever(lake) -> Retriever:
    nights.whole(lake)
    return Retriever.open(lake.root, now=fresh)


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


def exact(query: np.ndarray, person_id: str | None, without=()) -> list[str]:
    """By the tables, with nothing of the retriever: every item that may be shown, best first."""
    frames = nights.tables_of_night()
    facts = {row["person_id"]: row for row in frames["persons"].to_pylist()}.get(person_id, {})
    mask = filters.allowed_mask(
        frames["eligibility"], facts.get("region"), facts.get("restrictions") or ()
    )
    blocked = {
        row["item_id"]
        for row in frames["blocked_pairs"].to_pylist()
        if row["person_id"] == person_id
    }
    items = frames["item_vectors"]
    score = matrix.vectors_of(items) @ query
    rows = [
        (-float(score[place]), position, item)
        for place, (position, item) in enumerate(
            zip(items["position"].to_pylist(), items["item_id"].to_pylist(), strict=True)
        )
        if mask[position] and item not in blocked and item not in without
    ]
    return [item for _, _, item in sorted(rows)]


def vector_of_person(person_id: str) -> np.ndarray:
    factors = nights.tables_of_night()["person_factors"]
    return matrix.vectors_of(factors)[factors["person_id"].to_pylist().index(person_id)]


@pytest.mark.parametrize("person_id", PEOPLE, ids=lambda one: one[:12])
def test_a_person_gets_the_best_of_what_the_rules_allow(retriever, person_id):
    wanted = exact(vector_of_person(person_id), person_id)
    answer = retriever.for_person(person_id, length=10)
    assert (answer.kind, answer.reason) == ("retrieved", "nearest to the person's vector")
    assert (answer.release_id, answer.person_id) == (retriever.release_id, person_id)
    assert ids(answer) == wanted[:10]
    everything = retriever.for_person(person_id, length=1_000)
    assert set(ids(everything)) == set(wanted)
    scores = [item.score for item in everything.items]
    assert scores == sorted(scores, reverse=True)


def test_rules_keep_out_what_lists_keep_out(retriever):
    def found(person_id: str) -> set[str]:
        return set(ids(retriever.for_person(person_id, length=1_000)))

    assert "i29" not in found("account:p3")  # unavailable
    assert "i28" in found("account:p3")  # sold in the north, where p3 lives
    assert "i28" not in found("account:p4")
    assert "i27" in found("account:p3")
    assert "i27" not in found("account:p2")  # alcohol
    assert "i0" not in found("account:p0")  # sent back


# What the business takes out: everywhere, on a surface, in a region, on a surface in a region.
REMOVALS = (
    {"rule_id": "a", "scope": "item:i10"},
    {"rule_id": "b", "scope": "item:i11", "surface": "feed"},
    {"rule_id": "c", "scope": "item:i12", "region": "so/uth"},
    {"rule_id": "d", "scope": "item:i13", "surface": "feed", "region": "so/uth"},
    {"rule_id": "e", "scope": "item:i14", "surface": "homepage"},
    {"rule_id": "f", "kind": "margin_floor", "scope": "*", "strength": 0.2, "surface": "feed"},
    {"rule_id": "g", "scope": "item:i16", "outcome": "expired"},
)
# Of p3's region, north; of p4's, so/uth; of nobody's.
REMOVED = [
    ("account:p3", "feed", {"i10", "i11", "i15"}),
    ("account:p3", "discover", {"i10"}),
    ("account:p4", "feed", {"i10", "i11", "i12", "i13", "i15"}),
    ("account:p4", "homepage", {"i10", "i12", "i14"}),
    (None, "feed", {"i10", "i11", "i15"}),
]


@pytest.mark.parametrize(("person_id", "surface", "gone"), REMOVED)
def test_what_the_business_took_out_is_not_found_where_it_holds(lake, person_id, surface, gone):
    nights.publish(
        lake, items=nights.with_margins(i15=0.1, i16=0.2), rules_in_force=nights.in_force(*REMOVALS)
    )
    release.publish(nights.stage(lake))
    retriever = Retriever.open(lake.root, now=fresh)
    query = retriever.vector_of(["i3"])
    answer = retriever.for_vector(
        query, surface, 1_000, version=retriever.version, person_id=person_id
    )
    everything = set(exact(query, person_id))
    assert gone < everything
    assert set(ids(answer)) == everything - gone
    # Another surface's requests are not touched by what this one left out.
    bits = np.unpackbits(retriever.allowed(person_id, surface="digest"), bitorder="little")
    assert bits[[11, 13, 14, 15]].all()


def test_a_release_from_before_removals_were_in_it_is_searched_all_the_same(lake):
    folder = releases.root(lake) / nights.whole(lake)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["tables"][releases.REMOVED]
    manifest["files"] = {
        name: facts for name, facts in manifest["files"].items() if releases.REMOVED not in name
    }
    shutil.rmtree(folder / releases.REMOVED)
    io.write_json(folder / "manifest.json", manifest)
    assert checks.faults(releases.opened(folder)) == []
    retriever = Retriever.open(lake.root, now=fresh)
    wanted = exact(vector_of_person("account:p0"), "account:p0")
    assert ids(retriever.for_person("account:p0", length=5)) == wanted[:5]


def test_what_sold_out_and_what_was_bought_since_is_left_out(retriever):
    before = ids(retriever.for_person("account:p3", length=10))
    without = frozenset({*before[:3], "no such item"})
    after = ids(retriever.for_person("account:p3", length=7, without=without))
    assert after == before[3:]
    # The next request is not touched by what this one left out.
    assert ids(retriever.for_person("account:p3", length=10)) == before


def test_a_vector_of_the_session_finds_what_is_near_it(retriever):
    query = retriever.vector_of(["i3", "i5", "no such item"])
    items = nights.tables_of_night()["item_vectors"]
    np.testing.assert_allclose(query, matrix.vectors_of(items)[[3, 5]].mean(axis=0), rtol=1e-6)
    for person_id in (None, "account:p0", "account:p2", "nobody"):
        answer = retriever.for_vector(
            query, length=8, version="space-1", person_id=person_id, without=["i3", "i5"]
        )
        assert ids(answer) == exact(query, person_id, ["i3", "i5"])[:8]
    assert retriever.vector_of(["no such item"]) is None


def test_who_has_no_vector_gets_nothing_and_the_reason(retriever):
    for person_id in ("account:p1", "nobody", "", "zzz"):  # p1 does not consent
        answer = retriever.for_person(person_id)
        assert (answer.items, answer.reason) == ((), "the person has no vector")


def test_a_release_without_any_persons_vector_still_searches_by_vectors(lake):
    none = nights.tables_of_night()["person_factors"].slice(0, 0)
    nights.publish(lake, person_factors=none)
    release.publish(nights.stage(lake))
    retriever = Retriever.open(lake.root, now=fresh)
    assert retriever.for_person("account:p0").reason == "the person has no vector"
    assert retriever.for_vector(retriever.vector_of(["i3"]), version=retriever.version).items


def test_what_stands_in_no_index_has_no_vector_and_is_not_found(lake):
    """As a night leaves out what is not available."""
    vectors = nights.tables_of_night()["item_vectors"]
    nights.publish(lake, item_vectors=vectors.filter(pc.not_equal(vectors["item_id"], "i5")))
    release.publish(nights.stage(lake))
    retriever = Retriever.open(lake.root, now=fresh)
    assert retriever.vector_of(["i5"]) is None
    np.testing.assert_array_equal(retriever.vector_of(["i3", "i5"]), retriever.vector_of(["i3"]))
    found = ids(retriever.for_person("account:p0", length=1_000))
    assert set(found) == set(exact(vector_of_person("account:p0"), "account:p0", ["i5"]))


def test_past_the_age_ceiling_a_persons_vector_is_not_used(lake):
    nights.whole(lake)
    late = Retriever.open(lake.root, now=lambda: nights.AS_OF + timedelta(hours=97))
    answer = late.for_person("account:p0")
    assert (answer.items, answer.reason) == ((), "the release is past its age ceiling")
    assert late.for_vector(late.vector_of(["i3"]), version=late.version).items


def test_a_list_of_no_length_is_empty(retriever):
    assert retriever.for_person("account:p0", length=0).items == ()


def test_a_vector_of_another_space_is_refused(retriever):
    query = retriever.vector_of(["i3"])
    with pytest.raises(Fault, match=r"space yesterday, the index of .* holds space-1"):
        retriever.for_vector(query, version="yesterday")
    with pytest.raises(Fault, match="a query is 4 finite numbers"):
        retriever.for_vector(np.ones(5), version="space-1")
    with pytest.raises(Fault, match="a query is 4 finite numbers"):
        retriever.for_vector(query * np.nan, version="space-1")


def test_an_index_of_another_space_than_the_persons_vectors_is_refused(lake):
    nights.publish(lake)
    path = lake.published("index", nights.AS_OF).table("index_bundle") / "index.json"
    facts = json.loads(path.read_text())
    io.write_json(path, facts | {"embedding_version": "space-0"})
    made = nights.stage(lake)
    assert release.verify(made)  # the gate is red; somebody publishes all the same
    release.publish(made)
    with pytest.raises(Fault, match="space space-1, the index holds space-0"):
        Retriever.open(lake.root)


def test_it_opens_the_release_that_a_reader_answers_from(lake):
    first = nights.whole(lake)
    reader = Reader.open(lake.root, now=fresh)
    second = nights.whole(lake, nights.day(1), "run-2")
    assert Retriever.open(lake.root, reader.release_id).release_id == first
    assert Retriever.open(lake.root).release_id == second
    (releases.root(lake) / first / "index/items.faiss").unlink()
    with pytest.raises(Fault, match="index/items"):
        Retriever.open(lake.root, first)


def test_the_reading_side_starts_no_engine_and_loads_none(lake):
    nights.whole(lake)
    program = (
        "import sys; from jobs.release import reader, recorder, retriever, serving\n"
        f"serving.Serving.open({str(lake.root)!r}).reader()\n"
        f"retriever.Retriever.open({str(lake.root)!r}).for_person('account:p0')\n"
        "loaded = {'pyspark', 'great_expectations', 'airflow'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
