"""Vectors of people and items from who chose what, comparable from night to night.

Reads ``interactions`` (a row per person and item), ``items`` and ``persons`` (how many there are),
and the factors and interactions of the newest earlier night. Writes ``person_factors`` and
``item_factors`` (a row per person or item with interactions), ``embedding_report`` (a row per
measure) and the file ``embedding.json`` (version, dim, predecessor, config digest).

A cold fit lands in a space turned at random, where every vector "moved". So a night goes on from
the factors of the night before: everybody is solved again, and the items of which somebody's choice
is another now; all others stand. A changed configuration is fitted cold, and turned onto the night
before by the orthogonal rotation that brings shared items closest, which keeps every inner product,
where the number of dimensions is equal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobs import io
from jobs.errors import NightNeeded
from jobs.io import Published
from jobs.night import Night
from jobs.params import check
from jobs.refresh import changes
from jobs.retrieval import als, matrix
from jobs.retrieval.als import Factors
from jobs.retrieval.content_embeddings import ToCollaborative

FILE = "embedding.json"
OF_INTERACTIONS = ["person_id", "item_id", "weight", "last_time"]
# Of a vector's own norm: what counts as moved in the report.
MOVED_TOLERANCE = 0.2


@dataclass(frozen=True)
class Params:
    """The factorisation. Chosen on Complete Journey, cut 2017-10-06, by recall@100 of the 28 days
    after: of everything bought, and of what was new to the person."""

    # Dimensions of the space. 128 found 12 % more of what was bought again but 3 % less of what
    # was new to the person, which is what this source is for, at 2.5 times the cost.
    factors: int = 64
    # Rounds of a cold fit: 4 found 2 % less than 8, and 15 found 1 % more.
    iterations: int = 8
    # Shrinks the vectors of people and items with few interactions; 1 to 30 measured alike.
    regularization: float = 5.0
    # Steps of conjugate gradients from zero to a vector. At four cuts of Complete Journey from
    # 2017-09-12 on, 3 found 14 % more NDCG@10, and of what was new to the person 2.8 % more among
    # 20, than 3 from the round before did; 2 lose 8 % of recall@100, and 5 find as much as before.
    steps: int = 3
    # Confidence of a pair of average weight against 1 for a pair never seen. Relative to the mean,
    # so that the unit of the weights does not matter. 3 to 6 measured alike; 13 found 2 % less of
    # what was new to the person.
    confidence: float = 4.0

    def __post_init__(self) -> None:
        check(1 <= self.factors <= 1024, "factors must be in 1..1024")
        check(self.iterations >= 1, "iterations must be at least 1")
        check(1 <= self.steps <= 100, "steps must be in 1..100")
        check(self.regularization > 0, "regularization must be positive")
        check(self.confidence > 0, "confidence must be positive")

    @property
    def solver(self) -> als.Solver:
        """How vectors are found."""
        return als.Solver(self.steps, self.regularization, self.confidence)


@dataclass(frozen=True)
class Predecessor:
    """An earlier night's space, ids and all; ``weighed``: the digest of how its interactions were
    weighed, None where it is not told."""

    version: str
    config_digest: str
    weighed: str | None
    person_ids: pa.StringArray
    item_ids: pa.StringArray
    factors: Factors


def run(night: Night, params: Params) -> None:
    """Stage the factors, their report and ``embedding.json``."""
    rows = night.arrow("interactions", OF_INTERACTIONS)
    interactions = matrix.build(rows)
    earlier = night.previous_night("embeddings")
    predecessor = load(earlier) if earlier else None
    digest = config_digest(params, night.seed)
    weighed = digest_of(dataclasses.asdict(night.params_of("interactions")))
    same = predecessor and (predecessor.config_digest, predecessor.weighed) == (digest, weighed)
    before = fitted_to(night, earlier) if earlier and same else None
    changed = changed_items(interactions, before) if before else None
    factors, warm = refit(interactions, params, night.seed, predecessor, changed)
    space = version(interactions, factors)
    measures = report(interactions, factors, predecessor, warm) | {
        "share_of_catalogue": len(interactions.item_ids)
        / night.arrow("items", ["item_id"]).num_rows,
        "share_of_persons": len(interactions.person_ids)
        / night.arrow("persons", ["person_id"]).num_rows,
    }
    night.write("item_factors", factor_rows("item_id", interactions.item_ids, factors.items))
    night.write("person_factors", factor_rows("person_id", interactions.person_ids, factors.people))
    night.write(
        "embedding_report",
        pa.table({"measure": list(measures), "value": [float(v) for v in measures.values()]}),
    )
    facts = {
        "version": space,
        "dim": params.factors,
        "predecessor": predecessor.version if predecessor else None,
        "warm": warm,
        "config_digest": digest,
        "weighed": weighed,
        "mean_weight": als.mean_weight(interactions.matrix),
        "guessed_items": [],
    }
    io.write_json(night.staged / FILE, facts)
    night.notes["embedding"] = facts


def refresh(night: Night, params: Params) -> None:
    """Stage the base's space with the vectors of touched people made anew from all they did.

    Items stand as the night fitted them. One that was first chosen since has the vector that its
    content says, and is named in ``guessed_items``; where that content is another now, who chose it
    has a new vector too. Raises ``NightNeeded``
    where the space is another one than the parameters ask for: that takes a night.
    """
    base = night.base("embeddings")
    before = load(base)
    digest = config_digest(params, night.seed)
    if before.config_digest != digest:
        raise NightNeeded(
            "embeddings: the space that serves was fitted with other parameters; run a night, "
            "then refresh"
        )
    facts = io.read_json(base.table(FILE))
    rows = night.arrow("interactions", OF_INTERACTIONS)
    interactions = matrix.build(rows)
    items, guessed = _items_now(night, interactions)
    held = matrix.positions(interactions.person_ids, before.person_ids)
    touched = matrix.positions(interactions.person_ids, changes.people(night)) >= 0
    moved = _moved(interactions.item_ids, items, before)
    chose_moved = interactions.matrix[:, moved].getnnz(axis=1) > 0
    anew = np.flatnonzero(touched | (held < 0) | chose_moved)
    people = before.factors.people[held]
    people[anew] = params.solver.fold_in(interactions.matrix[anew], items, facts["mean_weight"])
    factors = Factors(people, items)
    measures = report(interactions, factors, before, warm=True)
    night.write("item_factors", factor_rows("item_id", interactions.item_ids, items))
    night.write("person_factors", factor_rows("person_id", interactions.person_ids, people))
    night.write(
        "embedding_report",
        pa.table({"measure": list(measures), "value": [float(v) for v in measures.values()]}),
    )
    io.write_json(night.staged / FILE, {**facts, "guessed_items": guessed})
    night.notes["embedding"] = {**facts, "guessed_items": len(guessed), "folded_in": len(anew)}


def _items_now(night: Night, interactions: matrix.Interactions) -> tuple[np.ndarray, list[str]]:
    """(n_items, dim) vectors of the items of the interactions, and the ids of those guessed."""
    fitted = of_night(night)
    learnt, vectors = fitted["item_id"].combine_chunks(), matrix.vectors_of(fitted)
    place = matrix.positions(interactions.item_ids, learnt)
    items, unknown = vectors[place], place < 0
    if unknown.any():
        content, how = night.arrow("content_vectors"), night.params_of("index")
        guess = to_collaborative(night, how.map_strength, how.cold_norm_quantile)
        mapped = guess.of(matrix.vectors_of(content))
        new = interactions.item_ids.filter(pa.array(unknown))
        items[unknown] = mapped[matrix.known(new, content["item_id"], "item of interactions")]
    return items, interactions.item_ids.filter(pa.array(unknown)).to_pylist()


def _moved(item_ids: pa.StringArray, items: np.ndarray, before: Predecessor) -> np.ndarray:
    """(n,) places of the items whose vector is another than it was before."""
    place = matrix.positions(item_ids, before.item_ids)
    other = (items != before.factors.items[place]).any(axis=1)
    return np.flatnonzero((place >= 0) & other)


def of_night(night: Night) -> pa.Table:
    """The table ``item_factors`` as it was fitted: in a refresh that of the night it goes back
    to."""
    return _of_night(night, "embeddings", "item_factors")


def to_collaborative(night: Night, strength: float, norm_quantile: float) -> ToCollaborative:
    """What guesses the vectors of items that nobody chose: learnt on the factors as they were
    fitted and on what was then said of the items, so that no hour moves the guesses of another."""
    fitted, content = of_night(night), _of_night(night, "content_embeddings", "content_vectors")
    rows = matrix.known(fitted["item_id"], content["item_id"], "item of item_factors")
    return ToCollaborative.learn(
        matrix.vectors_of(content)[rows], matrix.vectors_of(fitted), strength, norm_quantile
    )


def _of_night(night: Night, step: str, table: str) -> pa.Table:
    if night.refresh is None:
        return night.arrow(table)
    return io.read_arrow(night.earlier(step, night.refresh.night).table(table))


def fit(weights: sp.csr_matrix, params: Params, seed: int) -> Factors:
    """Factorise (n_people, n_items) weights; see :class:`jobs.retrieval.als.Solver`."""
    start = als.random_start(weights.shape[1], params.factors, seed)
    return params.solver.fit(weights, start, params.iterations)


def refit(
    interactions: matrix.Interactions,
    params: Params,
    seed: int,
    predecessor: Predecessor | None,
    changed: np.ndarray | None,
) -> tuple[Factors, bool]:
    """Factors in the predecessor's orientation, and whether they go on from its vectors.

    ``changed``: (n_items,) bool, as of :func:`changed_items`; None where the predecessor was fitted
    in another way, and nothing can go on from it.
    """
    weights = interactions.matrix
    if predecessor is None:
        return fit(weights, params, seed), False
    before = predecessor.factors
    items = matrix.positions(interactions.item_ids, predecessor.item_ids)
    shared = items >= 0
    if changed is not None and shared.any():
        known = als.random_start(len(items), params.factors, seed)
        known[shared] = before.items[items[shared]]
        return params.solver.onward(weights, known, changed, ~shared), True
    fitted = fit(weights, params, seed)
    if before.items.shape[1] != params.factors or not shared.any():
        return fitted, False
    turn = als.rotation(fitted.items[shared], before.items[items[shared]])
    return als.rotate(fitted, turn), False


def fitted_to(night: Night, earlier: Published) -> matrix.Interactions | None:
    """What an earlier night's vectors were fitted to; None where that night was begun again and
    these interactions are others."""
    found = night.earlier("interactions", earlier.as_of)
    read = earlier.manifest["inputs"].get(f"interactions@{earlier.as_of}", {})
    if read.get("attempt") != found.attempt:
        return None
    return matrix.build(io.read_arrow(found.table("interactions"), OF_INTERACTIONS))


def changed_items(now: matrix.Interactions, before: matrix.Interactions) -> np.ndarray:
    """(n_items,) bool: whether other people chose the item than before, or one of them again.

    By the pairs themselves and not by a mark of time, so that a choice that comes late counts, and
    one that is taken back, or whose person refuses personalisation from now on.
    """
    n_items = len(now.item_ids)
    row, column = pairs_of(now)
    row_before, column_before = pairs_of(before)
    person = matrix.positions(before.person_ids, now.person_ids)[row_before]
    item = matrix.positions(before.item_ids, now.item_ids)[column_before]
    # Ids are sorted at both, so both ascend.
    key = row * n_items + column
    known = (person >= 0) & (item >= 0)
    wanted = person[known] * n_items + item[known]
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    same = (key[place] == wanted) & (now.last_times[place] == before.last_times[known])
    stood = np.zeros(len(key), bool)
    stood[place[same]] = True
    changed = np.zeros(n_items, bool)
    changed[column[~stood]] = True
    kept = np.zeros(len(item), bool)
    kept[np.flatnonzero(known)[same]] = True
    changed[item[~kept & (item >= 0)]] = True
    return changed


def pairs_of(interactions: matrix.Interactions) -> tuple[np.ndarray, np.ndarray]:
    """(nnz,) int64 row and column of each stored pair."""
    found = interactions.matrix
    rows = np.repeat(np.arange(found.shape[0], dtype=np.int64), np.diff(found.indptr))
    return rows, found.indices.astype(np.int64)


def load(published: Published) -> Predecessor:
    """The space that an earlier night published."""
    facts = io.read_json(published.table(FILE))
    people = io.read_arrow(published.table("person_factors"))
    items = io.read_arrow(published.table("item_factors"))
    return Predecessor(
        version=facts["version"],
        config_digest=facts["config_digest"],
        weighed=facts.get("weighed"),
        person_ids=people["person_id"].combine_chunks(),
        item_ids=items["item_id"].combine_chunks(),
        factors=Factors(matrix.vectors_of(people), matrix.vectors_of(items)),
    )


def config_digest(params: Params, seed: int) -> str:
    """What makes two spaces of one kind."""
    return digest_of(dataclasses.asdict(params) | {"seed": seed})


def digest_of(values: Mapping[str, Any]) -> str:
    """A short name of these values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def version(interactions: matrix.Interactions, factors: Factors) -> str:
    """A space's name: a digest of which ids lie where, so equal spaces have equal names."""
    digest = hashlib.sha256()
    for ids, vectors in (
        (interactions.item_ids, factors.items),
        (interactions.person_ids, factors.people),
    ):
        digest.update("\n".join(ids.to_pylist()).encode())
        digest.update(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
    return digest.hexdigest()[:16]


def report(
    interactions: matrix.Interactions,
    factors: Factors,
    predecessor: Predecessor | None,
    warm: bool,
) -> dict[str, float]:
    """Measures of a fit; ``moved_share`` only where there is a predecessor of equal dimension."""
    item_norms = np.linalg.norm(factors.items, axis=1)
    person_norms = np.linalg.norm(factors.people, axis=1)
    measures = {
        "items": float(len(item_norms)),
        "persons": float(len(person_norms)),
        # Of those with interactions: a vector of zeros or of no numbers recommends nothing.
        "coverage_items": float((np.isfinite(item_norms) & (item_norms > 0)).mean()),
        "coverage_persons": float((np.isfinite(person_norms) & (person_norms > 0)).mean()),
        "norm_p50_items": float(np.median(item_norms)),
        "norm_max_items": float(item_norms.max()),
        "norm_p50_persons": float(np.median(person_norms)),
        "nonfinite": float(
            (~np.isfinite(factors.items)).sum() + (~np.isfinite(factors.people)).sum()
        ),
        "warm": float(warm),
    }
    if predecessor is None or predecessor.factors.items.shape[1] != factors.items.shape[1]:
        return measures
    items = matrix.positions(interactions.item_ids, predecessor.item_ids)
    shared = items >= 0
    if not shared.any():
        return measures
    old = predecessor.factors.items[items[shared]]
    moved = als.moved(factors.items[shared], old, MOVED_TOLERANCE)
    # By interactions as well: a thousand items of one sale may jump without anybody noticing.
    chosen = np.bincount(interactions.matrix.indices, minlength=len(items))[shared]
    return measures | {
        "shared_items": float(shared.sum()),
        "moved_share": float(moved.mean()),
        "moved_share_weighted": float(np.average(moved, weights=chosen)),
    }


def factor_rows(name: str, ids: pa.StringArray, vectors: np.ndarray) -> pa.Table:
    """Ids and vectors as a table."""
    return pa.table({name: ids, "vector": matrix.vector_column(vectors)})
