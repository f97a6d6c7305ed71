"""A vector for every item of the catalogue from what it is, so that a new item has one too.

Reads ``items`` (a row per item). Writes ``content_vectors`` (a row per item, length 1).

An item is a bag of named tokens: every level of its category path, brand, seller, words of its
title, price band, flags and attributes. TF-IDF weights them, and a truncated singular value
decomposition (latent semantic analysis, Deerwester et al., 1990) makes them short dense vectors.
No model is downloaded, and equal catalogues make equal vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from jobs import io
from jobs.night import Night
from jobs.params import check
from jobs.refresh.changes import SHOWN
from jobs.release import releases
from jobs.retrieval import matrix
from jobs.tables import BELOW

FIELDS = ("category", "brand", "seller", "title", "price", "flag", "attribute")
COLUMNS = ["item_id", "title", "category", "brand", "seller", "price", "flags", "attributes"]
WORD = re.compile(r"[^\W_]+", re.UNICODE)
# An attribute longer than this is prose or an address, never equal for two items.
LONGEST_ATTRIBUTE = 64


@dataclass(frozen=True)
class Params:
    """How an item's content becomes a vector."""

    # Dimensions, fewer where the catalogue has fewer distinct tokens; 64 keep a query in one cache
    # line times four and separate a grocer's 2,400 product types.
    dim: int = 64
    # A token of a single item says nothing of others, and most tokens of a title are such.
    min_items: int = 2
    # Most frequent tokens kept; beyond them only memory grows.
    max_tokens: int = 50_000
    # What each field weighs against the others: what an item is (category, title) comes before who
    # makes it and what it costs.
    field_weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "category": 1.0, "title": 0.7, "brand": 0.5, "seller": 0.3, "price": 0.3,
            "flag": 0.3, "attribute": 0.3,
        }
    )  # fmt: skip
    # Prices are cut into bands of this ratio: 1.5 makes 5 and 7 neighbours, 5 and 50 strangers.
    price_ratio: float = 1.5

    def __post_init__(self) -> None:
        check(1 <= self.dim <= 1024, "dim must be in 1..1024")
        check(self.min_items >= 1, "min_items must be at least 1")
        check(self.max_tokens >= 2, "max_tokens must be at least 2")
        check(self.price_ratio > 1, "price_ratio must be above 1")
        unknown = set(self.field_weights) - set(FIELDS)
        check(not unknown, f"field_weights names unknown fields: {sorted(unknown)}")
        check(
            all(weight >= 0 for weight in self.field_weights.values()),
            "field_weights must not be negative",
        )


def run(night: Night, params: Params) -> None:
    """Stage ``content_vectors``."""
    items = night.arrow("items", COLUMNS).sort_by("item_id")
    bags = token_counts(items, params)
    vectors, described = embed(bags, params, night.seed)
    night.write(
        "content_vectors",
        pa.table({"item_id": items["item_id"], "vector": matrix.vector_column(vectors)}),
    )
    night.notes["content"] = {
        "dim": vectors.shape[1],
        "tokens": bags.shape[1],
        "items": len(vectors),
        "without_content": int((~described).sum()),
    }


def refresh(night: Night, params: Params) -> None:
    """Stage the base's vectors, with those of new and newly described items in the axes of the
    night, so that no other item moves."""
    base = night.base("content_embeddings")
    assert night.refresh is not None
    before = io.read_arrow(base.table("content_vectors"))
    touched = night.arrow("touched_items")
    moved = touched.filter(pc.not_equal(touched["reason"], SHOWN))["item_id"]
    if len(moved) == 0:
        releases.link_tree(base.table("content_vectors"), night.staged / "content_vectors")
        return
    fitted = io.read_arrow(
        night.earlier("catalogue", night.refresh.night).table("items"), COLUMNS
    ).sort_by("item_id")
    now = night.arrow("items", COLUMNS).sort_by("item_id")
    now = now.filter(pc.is_in(now["item_id"], value_set=moved))
    bags = token_counts(
        pa.concat_tables([fitted, now], promote_options="default"), params, fitted.num_rows
    )
    vectors = embed(bags, params, night.seed, fitted.num_rows)[0][fitted.num_rows :]
    kept = before.filter(pc.invert(pc.is_in(before["item_id"], value_set=now["item_id"])))
    made = pa.table({"item_id": now["item_id"], "vector": matrix.vector_column(vectors)})
    rows = pa.concat_tables([kept, made.cast(kept.schema)]).sort_by("item_id")
    night.write("content_vectors", rows)
    night.notes["content"] = {"made": len(vectors), "items": rows.num_rows}


def token_counts(items: pa.Table, params: Params, counted: int | None = None) -> sp.csr_matrix:
    """(n_items, n_tokens) float32 CSR: which tokens each row of ``items`` has, by field weight.

    Columns are the tokens of at least ``min_items`` items, the ``max_tokens`` most frequent,
    sorted by name. ``counted``: how many rows, from the first, decide which; None is all.
    """
    columns = [items[name].to_pylist() for name in COLUMNS[1:]]
    vocabulary: dict[str, int] = {}
    codes: list[int] = []
    ends: list[int] = [0]
    for title, category, brand, seller, price, flags, attributes in zip(*columns, strict=True):
        named = tokens(title, category, brand, seller, price, flags, attributes, params.price_ratio)
        for token in sorted(set(named)):
            codes.append(vocabulary.setdefault(token, len(vocabulary)))
        ends.append(len(codes))
    names = np.array(list(vocabulary), dtype=object)
    first = codes[: ends[len(items) if counted is None else counted]]
    item_counts = np.bincount(first, minlength=len(names)) if first else np.zeros(len(names), int)
    by_name = np.argsort(names) if len(names) else np.zeros(0, np.int64)
    # Stable, so that among equally frequent tokens the first by name are kept.
    frequent = by_name[np.argsort(-item_counts[by_name], kind="stable")][: params.max_tokens]
    kept = frequent[item_counts[frequent] >= params.min_items]
    kept = kept[np.argsort(names[kept])] if len(kept) else kept
    weights = np.array([params.field_weights.get(n.partition(":")[0], 0.0) for n in names])
    place = np.full(len(names), -1)
    place[kept] = np.arange(len(kept))
    all_codes = np.array(codes, dtype=np.int64)
    rows = np.repeat(np.arange(len(items)), np.diff(ends))
    chosen = place[all_codes] >= 0 if len(all_codes) else np.zeros(0, bool)
    return sp.csr_matrix(
        (weights[all_codes[chosen]].astype(np.float32), (rows[chosen], place[all_codes[chosen]])),
        shape=(len(items), len(kept)),
    )


def tokens(
    title: str | None,
    category: str | None,
    brand: str | None,
    seller: str | None,
    price: float | None,
    flags: Iterable[str] | None,
    attributes: Iterable[tuple[str, str]] | None,
    price_ratio: float = 1.5,
) -> Iterable[str]:
    """The named tokens of one item.

    >>> sorted(tokens("Skim Milk", "DAIRY > MILK", None, None, 2.0, [], None))
    ['category:DAIRY', 'category:DAIRY > MILK', 'price:2', 'title:milk', 'title:skim']
    """
    levels = [level for level in (category or "").split(BELOW) if level]
    for depth in range(1, len(levels) + 1):
        yield "category:" + BELOW.join(levels[:depth])
    if brand:
        yield f"brand:{brand}"
    if seller:
        yield f"seller:{seller}"
    for word in WORD.findall((title or "").lower()):
        yield f"title:{word}"
    if price is not None and price > 0:
        yield f"price:{round(np.log(price) / np.log(price_ratio))}"
    for flag in flags or ():
        yield f"flag:{flag}"
    for name, value in attributes or ():
        if value and len(value) <= LONGEST_ATTRIBUTE:
            yield f"attribute:{name}={value}"


def embed(
    bags: sp.csr_matrix, params: Params, seed: int, fitted: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(n_items, dim) float32 rows of length 1, and (n_items,) bool: whether the item has content.

    An item without any token that another item shares lies at the catalogue's mean direction: a
    neighbour of everything a little and of nothing much. ``fitted``: how many rows, from the
    first, weigh the tokens and give the axes, onto which the others are laid; None is all.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    n_tokens = bags.shape[1]
    n_items = bags.shape[0] if fitted is None else fitted
    dim = max(1, min(params.dim, n_tokens - 1, n_items - 1))
    described = np.diff(bags.indptr) > 0
    if n_tokens < 2 or n_items < 2 or not described[:n_items].any():
        return np.ones((bags.shape[0], 1), np.float32), described
    tf_idf = TfidfTransformer(sublinear_tf=False).fit(bags[:n_items])
    weighted = tf_idf.transform(bags).astype(np.float32)
    with threadpool_limits(limits=1, user_api="blas"):
        # Flips each axis so that its largest loading is positive: without it the signs are free.
        decomposition = TruncatedSVD(dim, n_iter=3, random_state=seed)
        vectors = decomposition.fit_transform(weighted[:n_items]).astype(np.float32)
        if n_items < len(described):
            laid = decomposition.transform(weighted[n_items:]).astype(np.float32)
            vectors = np.concatenate([vectors, laid])
    vectors = unit(vectors)
    # A described item of length 0 has only tokens that the kept axes do not see.
    seen = np.linalg.norm(vectors, axis=1) > 0
    mean = unit(vectors[:n_items][seen[:n_items]].mean(axis=0, keepdims=True))[0]
    vectors[~seen] = mean
    return vectors, described


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-9)


@dataclass(frozen=True)
class ToCollaborative:
    """Carries content vectors into the collaborative space, so that a cold item has a place there.

    Ridge regression (with an intercept) from content to factors, learnt where both are known.
    ``coefficients``: (dim + 1, factors); ``longest``: the length of the longest vector returned.
    """

    coefficients: np.ndarray
    longest: float

    @staticmethod
    def learn(
        content: np.ndarray, factors: np.ndarray, strength: float, norm_quantile: float
    ) -> ToCollaborative:
        """``content``: (n, dim) and ``factors``: (n, factors) of the same items.

        A guess must not outrank what people chose: no returned vector is longer than the
        ``norm_quantile`` of the factors. The cap is the only change of a length, so a vague
        description keeps its short vector.
        """
        learnt = _with_intercept(content)
        gram = learnt.T @ learnt
        gram[np.diag_indices_from(gram)] += strength
        longest = np.quantile(np.linalg.norm(factors, axis=1), norm_quantile) if len(factors) else 0
        return ToCollaborative(
            np.linalg.solve(gram, learnt.T @ factors.astype(np.float64)), float(longest)
        )

    def of(self, content: np.ndarray) -> np.ndarray:
        """(n, factors) float32 of (n, dim) content vectors."""
        mapped = _with_intercept(content) @ self.coefficients
        norms = np.linalg.norm(mapped, axis=1, keepdims=True)
        return (mapped * np.minimum(1.0, self.longest / np.maximum(norms, 1e-12))).astype(
            np.float32
        )


def _with_intercept(content: np.ndarray) -> np.ndarray:
    return np.column_stack([content, np.ones(len(content), content.dtype)]).astype(np.float64)
