"""Two towers: a network for people and one for items whose vectors agree where somebody will buy.

The person tower reads what a person chose lately, with its content, and the context; the item tower
what an item is, how it sells and, where enough people bought it, a row of its own. They are trained
on purchases of the weeks after earlier instants, each with the negatives of its batch corrected for
popularity (Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
recommendations", RecSys 2019) and with items drawn from the whole catalogue (Yang et al., "Mixed
negative sampling", WWW 2020), without which what never sold is never a negative. Rows are dropped
at random (Volkovs et al., "DropoutNet", NIPS 2017), so that the tower learns to do without them: an
item that nobody chose gets its vector from what it is.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import neural
from jobs.filtering.allowed import Allowed
from jobs.neural import Weights
from jobs.params import check
from jobs.retrieval import exact, matrix, towers
from jobs.retrieval.matrix import candidate_rows
from jobs.retrieval.towers import BANDS, Ground, Inputs, Words
from jobs.tables import TABLES

log = logging.getLogger("nightjar")

NAME = "two_tower"
# People whose inputs are measured at a time.
PEOPLE = 10_000
# The embeddings whose rows are of texts, and the one of items with rows of their own; other layers'
# rows are of nothing that has a name.
OF_WORDS, OF_ITEMS = ("narrow", "broad", "region", "segment"), "row"
SWITCH = "candidates.two_tower"


@dataclass(frozen=True)
class Params:
    """The networks and their training."""

    # Dimensions of the vectors, and units of the hidden layers.
    dim: int = 64
    hidden: int = 128
    # Items that speak for a person, the strongest, each event halved in so many days.
    history: int = 64
    half_life_days: float = 45.0
    # Training looks at instants this far apart, the newest a horizon ago, and at what was bought in
    # the horizon after each.
    horizon_days: float = 28.0
    step_days: float = 14.0
    instants: int = 16
    # People that an instant teaches by: with all of them lessons would grow with the shop.
    taught: int = 20_000
    # An item that fewer people bought has no row of its own.
    min_buyers: int = 5
    # Share of the rows dropped in training.
    dropped: float = 0.3
    # Share of a person's items that training does not hear, drawn anew for each batch: few people
    # choose just the same, and by its rare items a person would be learned by heart.
    unheard: float = 0.3
    # What was bought before counts this share of what is new to the person.
    again: float = 0.3
    # People of a batch, purchases drawn of each, and items of the whole catalogue beside them.
    people: int = 256
    drawn: int = 8
    others: int = 2048
    # Batches of a training, and how far each moves the weights.
    batches: int = 400
    rate: float = 0.004
    decay: float = 0.3

    def __post_init__(self) -> None:
        check(1 <= self.dim <= 1024, "dim must be in 1..1024")
        check(1 <= self.hidden <= 4096, "hidden must be in 1..4096")
        check(self.history >= 1, "history must be at least 1")
        check(self.half_life_days > 0, "half_life_days must be positive")
        check(self.horizon_days > 0, "horizon_days must be positive")
        check(self.step_days > 0, "step_days must be positive")
        check(self.instants >= 1, "instants must be at least 1")
        check(self.taught >= 1, "taught must be at least 1")
        check(self.min_buyers >= 1, "min_buyers must be at least 1")
        check(0 <= self.dropped < 1, "dropped must be in [0, 1)")
        check(0 <= self.unheard < 1, "unheard must be in [0, 1)")
        check(0 < self.again <= 1, "again must be in (0, 1]")
        check(self.people >= 2, "people must be at least 2")
        check(self.drawn >= 1, "drawn must be at least 1")
        check(self.others >= 1, "others must be at least 1")
        check(self.batches >= 1, "batches must be at least 1")
        check(self.rate > 0, "rate must be positive")
        check(self.decay >= 0, "decay must not be negative")


@dataclass(frozen=True)
class Towers:
    """Trained towers with the vectors of an instant.

    ``people``: (n_people, dim + 1), ``items``: (n_items, dim + 1) float32 of the ids ``person_ids``
    and ``item_ids``; ``words`` and ``rows``: what the rows of embeddings are of, as ``Ground`` has
    them.
    """

    weights: Weights
    words: Words
    rows: pa.StringArray
    person_ids: pa.StringArray
    item_ids: pa.StringArray
    people: np.ndarray
    items: np.ndarray


def candidates(found: Towers, person_ids: pa.StringArray, depth: int) -> pa.Table:
    """Each of these people's top ``depth`` items, in the columns of ``candidates``."""
    place = matrix.known(person_ids, found.person_ids, "person of the two towers")
    everything = Allowed.for_all(len(person_ids), np.ones(len(found.item_ids), bool))
    nominated = exact.best(found.people[place], found.items, everything, depth)
    return candidate_rows(NAME, nominated, person_ids, found.item_ids)


# --- training ----------------------------------------------------------------------------------
def train(ground: Ground, params: Params, seed: int) -> Towers | None:
    """Towers for the instant that ``ground`` is of; None where nobody bought anything in a horizon
    after an instant at which something was known. The same
    arguments give the same bits on machines of equally many cores."""
    ground = ground.with_rows(ground.bought_by(params.min_buyers))
    generator = np.random.default_rng(seed)
    past = [
        lesson
        for number in range(params.instants)
        if (lesson := lesson_at(ground, number, params, seed))
    ]
    if not past:
        return None
    weights = start(ground, params, generator)
    begin, step = neural.stepper(loss, SWITCH, params.rate, params.decay, params.batches)
    state, losses = begin(weights), []
    for batch in batches(past, params, generator):
        state, value = step(state, batch)
        losses.append(value)
    ends = [float(np.mean(part)) for part in (losses[:50], losses[-50:])]
    log.info(
        "two_tower instants=%d rows=%d loss_first=%.3f loss_last=%.3f",
        len(past), len(ground.rows), *ends,
    )  # fmt: skip
    weights = neural.fitted(state)
    return Towers(
        weights, ground.words, ground.rows, ground.person_ids, ground.item_ids,
        of_people(weights, ground, np.arange(len(ground.person_ids)), params),
        of_items(weights, ground, np.arange(len(ground.item_ids))),
    )  # fmt: skip


def of_people(weights: Weights, ground: Ground, people: np.ndarray, params: Params) -> np.ndarray:
    """(n, dim + 1): the vectors of these codes of people, ascending."""
    return np.concatenate([
        towers.in_blocks(
            towers.person_vectors, weights,
            towers.of_people(ground, each, params.history, params.half_life_days),
        )
        for each in np.array_split(people, max(1, -(-len(people) // PEOPLE)))
    ])  # fmt: skip


def of_items(weights: Weights, ground: Ground, items: np.ndarray) -> np.ndarray:
    """(n, dim + 1): the vectors of these codes of items."""
    return towers.in_blocks(
        towers.item_vectors, weights, towers.taken(towers.of_items(ground), items)
    )


@dataclass(frozen=True)
class Lesson:
    """An instant that training looks at: the inputs of people who then bought and of all items.

    Purchases of the horizon, a pair once, ascending by person: ``item`` codes and ``chance`` (n,),
    cumulated shares in which a person's are drawn; person p has those from ``starts[p]`` on.
    ``often``: (n_items,) how often an item is expected in a batch.
    """

    people: Inputs
    items: Inputs
    item: np.ndarray
    chance: np.ndarray
    starts: np.ndarray
    often: np.ndarray


def lesson_at(ground: Ground, number: int, params: Params, seed: int) -> Lesson | None:
    """The lesson of the instant of this number, 0 the newest; None where nothing can be learned
    from it."""
    days = params.horizon_days + number * params.step_days
    n_items = len(ground.item_ids)
    then = ground.before(days)
    after = ground.bought & (ground.age <= days) & (ground.age > days - params.horizon_days)
    keys = matrix.distinct(ground.person[after] * n_items + ground.item[after])
    known = matrix.distinct(then.person)
    keys = keys[matrix.among(keys // n_items, known)]
    if len(keys) == 0:
        return None
    people = matrix.distinct(keys // n_items)
    if len(people) > params.taught:
        generator = np.random.default_rng([seed, number])
        people = np.sort(generator.choice(people, params.taught, replace=False))
        keys = keys[matrix.among(keys // n_items, people)]
    before = matrix.distinct(then.person[then.bought] * n_items + then.item[then.bought])
    weight = np.where(matrix.among(keys, before), params.again, 1.0)
    of = np.searchsorted(people, keys // n_items)
    share = weight / np.bincount(of, weight)[of]
    starts = np.searchsorted(of, np.arange(len(people) + 1))
    chance = np.cumsum(share) - of
    drawn = params.people * params.drawn / len(people)
    often = np.bincount(keys % n_items, share, n_items) * drawn + params.others / n_items
    return Lesson(
        towers.of_people(then, people, params.history, params.half_life_days),
        towers.of_items(then), keys % n_items, chance, starts, often,
    )  # fmt: skip


def batches(
    lessons: list[Lesson], params: Params, generator: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Batches, each of one instant: people, then items: ``drawn`` purchases of each person in their
    order, and others of the whole catalogue."""
    for _ in range(params.batches):
        lesson = lessons[generator.integers(len(lessons))]
        n_people = len(lesson.starts) - 1
        people = np.sort(generator.integers(n_people, size=params.people))
        bought = draw(lesson, people, generator.random((params.people, params.drawn)))
        others = generator.integers(len(lesson.often), size=params.others)
        chosen = np.concatenate([bought.ravel(), others])
        items = towers.taken(lesson.items, chosen)
        items["row"] = np.where(
            generator.random(len(chosen)) < params.dropped, 0, items["row"]
        ).astype(np.int32)
        known = towers.taken(lesson.people, people)
        kept = generator.random(known["loud"].shape) >= params.unheard
        known["loud"] = (known["loud"] * kept / (1 - params.unheard)).astype(np.float32)
        yield {
            "people": known,
            "items": items,
            "mine": np.arange(bought.size, dtype=np.int32).reshape(bought.shape),
            "own": all_bought(lesson, people, chosen),
            "often": np.log(lesson.often[chosen]).astype(np.float32),
        }


def draw(lesson: Lesson, people: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(n_people, drawn) items: of each person's purchases those at the chances ``at``."""
    found = np.empty(at.shape, np.int64)
    for row, person in enumerate(people):
        own = slice(lesson.starts[person], lesson.starts[person + 1])
        place = np.searchsorted(lesson.chance[own], at[row], side="right")
        found[row] = lesson.item[own][np.minimum(place, own.stop - own.start - 1)]
    return found


def all_bought(lesson: Lesson, people: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n_people, n_chosen) bool: whether the person bought the item in the horizon at all, by a
    purchase that was drawn or another."""
    found = np.empty((len(people), len(chosen)), bool)
    bought = np.zeros(len(lesson.often), bool)
    for row, person in enumerate(people):
        items = lesson.item[lesson.starts[person] : lesson.starts[person + 1]]
        bought[items] = True
        found[row] = bought[chosen]
        bought[items] = False
    return found


def loss(weights: Any, batch: Any) -> Any:
    """Mean over the drawn purchases of -log of the share that the purchase has of the softmax over
    it and all items of the batch that the person did not buy, each lowered by the log of how often
    it is expected there. ``mine``: (n_people, drawn) a person's purchases among the items; ``own``:
    (n_people, n_items) bool, all that a person bought."""
    xp = neural.jax(SWITCH).numpy
    people = towers.person_vectors(weights, batch["people"], xp)
    items = towers.item_vectors(weights, batch["items"], xp)
    logits = people @ items.T - batch["often"]
    rest = xp.where(batch["own"], -1e9, logits)
    top = rest.max(axis=1, keepdims=True)
    rest = top[:, 0] + xp.log(xp.exp(rest - top).sum(axis=1))
    mine = xp.take_along_axis(logits, batch["mine"], axis=1)
    return (xp.logaddexp(mine, rest[:, None]) - mine).mean()


def start(ground: Ground, params: Params, generator: np.random.Generator) -> Weights:
    """Where training begins."""
    narrow, broad, band, context, pace = 16, 8, 4, 8, 4
    dim, content, words, rows = (
        params.dim, ground.content.shape[1], ground.words, len(ground.rows)
    )  # fmt: skip

    def table(count: int, width: int, scale: float = 0.1) -> np.ndarray:
        return (generator.standard_normal((count, width)) * scale).astype(np.float32)

    # At first an item is wanted as often as it was bought lately.
    sold = np.zeros((3, dim + 1), np.float32)
    sold[0, -1] = np.log1p(len(ground.person_ids))
    described = content + narrow + broad + band + 3
    return {
        "narrow": table(len(words.narrow) + 1, narrow),
        "broad": table(len(words.broad) + 1, broad),
        "band": table(BANDS, band),
        "region": table(len(words.region) + 1, context),
        "segment": table(len(words.segment) + 1, context),
        "row": table(rows + 1, dim + 1, 0.02),
        "sold": sold,
        "content": neural.dense(generator, content, dim),
        "item_hidden": neural.dense(generator, described, params.hidden),
        "item_out": neural.dense(generator, params.hidden, dim + 1, 0.3),
        "person_hidden": neural.dense(generator, dim + 2 * context + pace, params.hidden),
        "person_out": neural.dense(generator, params.hidden, dim, 0.3),
    }


def version(found: Towers) -> str:
    """The name of a space: a digest of which ids lie where."""
    digest = hashlib.sha256()
    for ids, rows in ((found.item_ids, found.items), (found.person_ids, found.people)):
        digest.update("\n".join(ids.to_pylist()).encode())
        digest.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
    return digest.hexdigest()[:16]


# --- stored ------------------------------------------------------------------------------------
def rows_of(found: Towers | None) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The tables ``two_tower_weights``, ``two_tower_persons`` and ``two_tower_items``."""
    if found is None:
        names = ("two_tower_weights", "two_tower_persons", "two_tower_items")
        weights, people, items = (TABLES[name].schema.empty_table() for name in names)
        return weights, people, items
    schema = TABLES["two_tower_weights"].schema
    parts = []
    for layer, values in sorted(found.weights.items()):
        keys = _keys(found, layer)
        named = pa.nulls(len(values), pa.string()) if keys is None else pa.concat_arrays(
            [pa.nulls(1, pa.string()), keys.cast(pa.string())]
        )  # fmt: skip
        columns = [
            pa.repeat(layer, len(values)), pa.array(np.arange(len(values), dtype=np.int32)),
            named, matrix.vector_column(values),
        ]  # fmt: skip
        parts.append(pa.table(columns, schema=schema))
    return (
        pa.concat_tables(parts),
        pa.table({"person_id": found.person_ids, "vector": matrix.vector_column(found.people)}),
        pa.table({"item_id": found.item_ids, "vector": matrix.vector_column(found.items)}),
    )


def _keys(found: Towers, layer: str) -> pa.StringArray | None:
    """What the rows of an embedding are of from the second on, the first being of nothing known."""
    if layer in OF_WORDS:
        return getattr(found.words, layer)
    return found.rows if layer == OF_ITEMS else None


def read(rows: pa.Table) -> tuple[Weights, Words, pa.StringArray]:
    """The weights, and what rows of embeddings are of, from ``two_tower_weights``."""
    weights, keys = {}, {}
    for layer in pc.unique(rows["layer"]).to_pylist():
        mine = rows.filter(pc.equal(rows["layer"], layer)).sort_by("place")
        weights[layer] = matrix.vectors_of(mine)
        keys[layer] = pa.concat_arrays(mine["key"].chunks)[1:]
    return weights, Words(*(keys[name] for name in OF_WORDS)), keys[OF_ITEMS]


def onward(
    ground: Ground, tables: tuple[pa.Table, pa.Table, pa.Table], touched: pa.StringArray,
    params: Params,
) -> Towers:  # fmt: skip
    """What a refresh serves: the vectors of ``tables``, as :func:`rows_of` made them, with those of
    touched people, and of people and items that the tables do not have, measured as of the instant
    of ``ground``, which has the tables' words."""
    rows, people, items = tables
    weights, _, own = read(rows)
    ground = ground.with_rows(own)
    width = weights[OF_ITEMS].shape[1]
    place, kept = _kept(ground.person_ids, people, "person_id", width)
    anew = np.flatnonzero((place < 0) | (matrix.positions(ground.person_ids, touched) >= 0))
    kept[anew] = of_people(weights, ground, anew, params)
    place, kept_items = _kept(ground.item_ids, items, "item_id", width)
    new = np.flatnonzero(place < 0)
    kept_items[new] = of_items(weights, ground, new)
    return Towers(
        weights, ground.words, own, ground.person_ids, ground.item_ids, kept, kept_items
    )  # fmt: skip


def _kept(
    ids: pa.StringArray, before: pa.Table, key: str, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where each id stands in a table, -1 where it does not, and (n, width) its vector there."""
    place = matrix.positions(ids, before[key].combine_chunks())
    vectors = np.zeros((len(ids), width), np.float32)
    known = place >= 0
    if known.any():
        vectors[known] = matrix.vectors_of(before)[place[known]]
    return place, vectors
