"""The library of counterexamples: places where a release was most wrong, and whether a later one
still is.

A case is kept with its features as served, so that any later scorer can be asked what it makes of
the same situation. It is still wrong where it would place an item that nobody bought among the
first again, or one that was bought among the last. A release that is wrong where the one before it
was right has lost something.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest

from jobs.diagnosis.symptoms import Symptom
from jobs.scoring import features
from jobs.tables import FEATURES, TABLES

PROMISED = 60  # cases that scored high and came to nothing
MISSED = 40  # cases that were bought from a low place
CELLS = 5  # surfaces and categories, of those that promised most beyond what came, to take them of
HIGH = 0.90  # of recent places score lower: the item stands among the first
LOW = 0.50  # of recent places score lower: the item stands in the lower half
REGRESSED = 0.1  # of the cases that two releases were asked about: wrong by the later one alone
CLEAR = 0.01  # chance that as many more cases turn wrong than right where releases are alike
STRONGEST = 3  # features of a case that are told: those that add most to its score, or take most


class Scores(Protocol):
    """What can score features; ``jobs.scoring.scorer.Scorer`` can."""

    def of_features(self, rows: np.ndarray) -> np.ndarray: ...


def choose(
    score: np.ndarray, hit: np.ndarray, position: np.ndarray, cell: np.ndarray, name: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the worst misses, promised and missed ones.

    ``cell``: (n,) codes of surface and category; ``name``: (n,) texts that break ties, unique.
    """
    beyond = np.bincount(cell, score - hit) if len(cell) else np.zeros(0)
    worst = np.argsort(-beyond, kind="stable")[:CELLS]
    promised = [
        of[np.lexsort((name[of], -score[of]))][: PROMISED // CELLS]
        for of in (np.flatnonzero((cell == one) & ~hit) for one in worst if beyond[one] > 0)
    ]
    low = np.flatnonzero(hit & (position > np.median(position))) if len(hit) else np.zeros(0, int)
    missed = low[np.lexsort((name[low], score[low], -position[low]))][:MISSED]
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *promised]), missed


def strongest(contributions: np.ndarray) -> np.ndarray:
    """(n, STRONGEST) the features that add most to each row's score, or take most from it.

    ``contributions``: (n, n_features), a row of NaN where the model is not known; the places of
    features that add nothing, or of which nothing is known, are -1.
    """
    size = np.nan_to_num(np.abs(contributions))
    top = np.argsort(-size, axis=1, kind="stable")[:, :STRONGEST]
    return np.where(np.take_along_axis(size, top, axis=1) > 0, top, -1)


def told(
    values: np.ndarray, contributions: np.ndarray, doubts: Mapping[str, str]
) -> list[str | None]:
    """Of each row its strongest features as text, with value and contribution; None of a row whose
    model is not known.

    ``values``: (n, n_features) float32, NaN where nothing is known; ``doubts``: by feature, why it
    should not drive a score.
    """
    known = np.isfinite(contributions).all(axis=1)
    return [
        "; ".join(
            _told(FEATURES[n], values[row, n], contributions[row, n], doubts)
            for n in top if n >= 0
        ) or "no feature adds to it"
        if known[row] else None
        for row, top in enumerate(strongest(contributions))
    ]  # fmt: skip


def _told(name: str, value: float, contribution: float, doubts: Mapping[str, str]) -> str:
    said = f"{value:.4g}" if np.isfinite(value) else "unknown"
    doubt = f", {doubts[name]}" if name in doubts else ""
    return f"{name} = {said} ({contribution:+.2f}{doubt})"


def check(cases: pa.Table, scorer: Scores, background: np.ndarray) -> pa.Table:
    """Each case scored again: ``new_score``, ``place`` (the share of ``background`` that scores
    lower) and ``still_wrong``, beside release_id, case, predicted and observed.

    ``cases``: rows of ``counterexamples``; ``background``: (n,) what the same scorer gives recent
    places; without any, a case is still wrong where its score did not move to the right side.
    """
    score = scorer.of_features(features.read(cases)) if cases.num_rows else np.zeros(0)
    bought = cases["observed"].to_numpy() == 1
    if len(background):
        place = np.searchsorted(np.sort(background), score) / len(background)
        wrong = np.where(bought, place <= LOW, place >= HIGH)
    else:
        place = np.full(len(score), 0.5)
        predicted = cases["predicted"].to_numpy()
        wrong = np.where(bought, score <= predicted, score >= predicted)
    kept = cases.select(["release_id", "case", "predicted", "observed"])
    for name, values in (("new_score", score), ("place", place), ("still_wrong", wrong)):
        kept = kept.append_column(name, pa.array(values))
    return kept


def beside(checked: pa.Table, before: pa.Table) -> pa.Table:
    """Checked cases with ``wrong_before``: still wrong by the release that was asked before, null
    of a case that it was not asked about; and ``regressed``: by the newest one alone.

    ``checked``, ``before``: rows with release_id, case and still_wrong.
    """
    keys = (before[name].to_pylist() for name in ("release_id", "case", "still_wrong"))
    known = {(release, case): wrong for release, case, wrong in zip(*keys, strict=True)}
    pairs = zip(checked["release_id"].to_pylist(), checked["case"].to_pylist(), strict=True)
    was = [known.get(pair) for pair in pairs]
    now = checked["still_wrong"].to_pylist()
    again = [wrong and then is False for wrong, then in zip(now, was, strict=True)]
    checked = checked.append_column("wrong_before", pa.array(was, pa.bool_()))
    return checked.append_column("regressed", pa.array(again, pa.bool_()))


def regression(checked: pa.Table) -> Symptom | None:
    """A warning where clearly more cases turned wrong than right from one release to the next.

    That a case is still wrong is no fault by itself: what was likely and did not come is as likely
    again. Cases that turn are counted against each other by the sign test (McNemar, 1947).
    """
    rows = checked.filter(pc.is_valid(checked["wrong_before"])).to_pylist()
    worse = sum(row["regressed"] for row in rows)
    better = sum(row["wrong_before"] and not row["still_wrong"] for row in rows)
    share = worse / max(len(rows), 1)
    if share < REGRESSED:
        return None
    chance = float(binomtest(worse, worse + better, 0.5, "greater").pvalue)
    if chance >= CLEAR:
        return None
    return Symptom(
        "regressed_cases", "library", share, REGRESSED, share / REGRESSED, len(rows),
        f"Of {len(rows):,} counterexamples the newest release is wrong again on {worse:,} that the "
        f"one before had right, and right on {better:,} that it had wrong.",
        p_value=chance, warning=True,
    )  # fmt: skip


def once(tables: list[tuple[pa.Table, datetime]]) -> pa.Table:
    """The cases of several runs, newest first, each once, with ``found``: its run date."""
    schema = TABLES["counterexamples"].schema
    empty = schema.empty_table().append_column("found", pa.array([], pa.timestamp("us", tz="UTC")))
    parts = [
        rows.cast(schema).append_column("found", pa.array([when] * rows.num_rows,
                                                          pa.timestamp("us", tz="UTC")))
        for rows, when in tables
    ]  # fmt: skip
    whole = pa.concat_tables([empty, *parts]).combine_chunks()
    pairs = zip(whole["release_id"].to_pylist(), whole["case"].to_pylist(), strict=True)
    seen: dict[tuple[str, str], int] = {}
    for place, pair in enumerate(pairs):
        seen.setdefault(pair, place)
    return whole.take(pa.array(sorted(seen.values()), pa.int64()))
