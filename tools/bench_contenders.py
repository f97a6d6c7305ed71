"""A child of the benchmark: one contender trains and makes lists from one matrix.

``python -m tools.bench_contenders NAME FOLDER`` with NAME one of

- ``pipeline``: the pipeline's own functions, ``embeddings.fit`` and ``exact.best``;
- ``script``: what a straight script does, implicit's ALS and a flat FAISS index;
- ``mllib``: Spark MLlib's ALS and ``recommendForAllUsers``.

FOLDER holds ``weights.npz`` (n_people, n_items) and ``pairs.parquet`` (the same for Spark: person,
item, weight as integers and a double), and ``bought.npz`` (n_people, n_items), what each person
bought in the days after. Prints one JSON object: seconds of training and of lists, processor
seconds of both, and recall. Imports, engine start and reading are not in the seconds.

All take the same factors and iterations, and weights of the same mean confidence. Regularisation
is ``implicit``'s for the first two; MLlib multiplies its own by a row's number of ratings, so its
value is the one whose recall came closest.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import scipy.sparse as sp

DEPTH = 100
SEED = 20171201
# Recall on Complete Journey was 0.206, 0.208 and 0.211 at 0.01, 0.03 and 0.1; the others' is 0.210.
MLLIB_REGULARIZATION = 0.1

# What a contender hands back: (n_rows,) person and item positions of its lists, in any order.
Lists = tuple[np.ndarray, np.ndarray]


def main() -> int:
    name, folder = sys.argv[1], Path(sys.argv[2])
    found = CONTENDERS[name](folder)
    people, items = found.pop("lists")
    bought = sp.load_npz(folder / "bought.npz").tocsr()
    print(json.dumps({"name": name, **found, "recall": recall(people, items, bought)}))
    return 0


def pipeline(folder: Path) -> dict:
    """The night's own functions on arrays, ids left out as for the others."""
    import implicit.als  # noqa: F401 what the fit imports is not in its seconds

    from jobs.filtering.allowed import Allowed
    from jobs.retrieval import embeddings, exact

    weights = sp.load_npz(folder / "weights.npz").tocsr()
    watch = Watch()
    factors = watch("train", lambda: embeddings.fit(weights, embeddings.Params(), SEED))
    allowed = Allowed.for_all(weights.shape[0], np.ones(weights.shape[1], dtype=bool))
    best = watch("lists", lambda: exact.best(factors.people, factors.items, allowed, DEPTH))
    return {**watch.spent, "lists": (best.person, best.item)}


def script(folder: Path) -> dict:
    """Twenty lines that anybody would write; implicit asks for one BLAS thread while it trains."""
    import faiss
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    from jobs.retrieval.embeddings import Params

    chosen = Params()
    weights = sp.load_npz(folder / "weights.npz").tocsr()
    watch = Watch()

    def train() -> AlternatingLeastSquares:
        scaled = weights.astype(np.float32)
        scaled.data *= np.float32(chosen.confidence / weights.data.mean())
        model = AlternatingLeastSquares(
            factors=chosen.factors, regularization=chosen.regularization,
            iterations=chosen.iterations, random_state=SEED,
        )  # fmt: skip
        with threadpool_limits(limits=1, user_api="blas"):
            model.fit(scaled, show_progress=False)
        return model

    def search() -> np.ndarray:
        index = faiss.IndexFlatIP(chosen.factors)
        index.add(model.item_factors)
        return index.search(model.user_factors, DEPTH)[1]

    model = watch("train", train)
    found = watch("lists", search)
    return {**watch.spent, "lists": (np.repeat(np.arange(len(found)), DEPTH), found.ravel())}


def mllib(folder: Path) -> dict:
    """Spark on all local cores with the night's engine settings, in a classic session."""
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    from jobs.retrieval.embeddings import Params
    from jobs.spark import LOCAL_CONF

    chosen = Params()
    builder = SparkSession.builder.master("local[*]")
    for name in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
        builder = builder.config(name, "false")
    for name, value in LOCAL_CONF.items():
        builder = builder.config(name, value)
    spark = builder.config("spark.local.dir", str(folder / "spark")).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    pairs = spark.read.parquet(str(folder / "pairs.parquet")).cache()
    mean = pairs.agg(F.avg("weight").alias("mean")).toPandas()["mean"][0]
    watch = Watch()

    def train() -> object:
        als = ALS(
            rank=chosen.factors, maxIter=chosen.iterations, regParam=MLLIB_REGULARIZATION,
            implicitPrefs=True, alpha=chosen.confidence / mean, userCol="person",
            itemCol="item", ratingCol="weight", seed=SEED, intermediateStorageLevel="MEMORY_ONLY",
        )  # fmt: skip
        model = als.fit(pairs)
        # Training is lazy: only reading the factors finishes it.
        model.userFactors.count()
        model.itemFactors.count()
        return model

    out = folder / "mllib-lists"
    model = watch("train", train)
    watch(
        "lists",
        lambda: (
            model.recommendForAllUsers(DEPTH)  # type: ignore[attr-defined]
            .select("person", F.explode("recommendations.item").alias("item"))
            .write.mode("overwrite")
            .parquet(str(out))
        ),
    )
    listed = spark.read.parquet(str(out)).toPandas()
    spark.stop()
    return {**watch.spent, "lists": (listed["person"].to_numpy(), listed["item"].to_numpy())}


class Watch:
    """Seconds by the wall and by the processors, this process and its children."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, name: str, work: Callable):  # type: ignore[no-untyped-def]
        wall, busy = time.monotonic(), processor_seconds()
        result = work()
        self.spent[f"{name}_seconds"] = round(time.monotonic() - wall, 3)
        self.spent[f"{name}_processor"] = round(processor_seconds() - busy, 3)
        return result


def processor_seconds() -> float:
    """What this process and its living children, the engine among them, took of the processors."""
    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def recall(people: np.ndarray, items: np.ndarray, bought: sp.csr_matrix) -> float:
    """Mean over the people who bought anything of the share of it that their list held."""
    known = items >= 0
    ones = np.ones(int(known.sum()), dtype=np.int8)
    listed = sp.csr_matrix((ones, (people[known], items[known])), shape=bought.shape)
    counts = np.diff(bought.indptr)
    hits = np.asarray(listed.multiply(bought > 0).sum(axis=1)).ravel()
    return float((hits[counts > 0] / counts[counts > 0]).mean())


CONTENDERS = {"pipeline": pipeline, "script": script, "mllib": mllib}

if __name__ == "__main__":
    sys.exit(main())
