"""Mixes of who asks and what for, by the names that both periods have: a part of ``drift``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis.parity import divergence, samples
from jobs.diagnosis.parity.samples import Sample
from jobs.diagnosis.symptoms import Symptom

MIX = ("surface", "region", "segment", "tenure", "key_type", "category")
# Told, but no fault by itself: a person is long known from the 180th day of the history on, all
# of its first customers together, whatever the shop does.
BY_CALENDAR = "tenure"
FEW_ROWS = 500  # of a period, below which no distribution is compared
# A name that came or went with this share of the rows is told; a hundredth is a trial.
CONSIDERABLE = 0.02


def mix(name: str, before: Sample, after: Sample, year: Sample) -> dict[str, Any]:
    """How the shares of one column's names moved, among the names that both periods have: a new
    name has no reference, and takes its share from all others alike."""
    rows_before, rows_after = len(before), len(after)
    both = pc.unique(after.table[name].filter(_among(after, name, before.table[name])))
    before, after, year = (_having(one, name, both) for one in (before, after, year))
    chunks = [chunk for one in (before, after, year) for chunk in one.table[name].chunks]
    of = samples.codes(pa.chunked_array(chunks, pa.string()))
    counts, start = [], 0
    for one in (before, after, year):
        code, start = of[start : start + len(one)], start + len(one)
        # People and requests alone: a day or an item has its own share of no mix of people.
        counts.append(divergence.category_counts(code, len(both), one.weight, *one.clusters[:2]))
    compared = min(len(before), len(after)) >= FEW_ROWS
    statistic, p_value = divergence.chi_square(*counts[:2]) if compared else (np.nan, 1.0)
    a_year_ago = _index(counts[2], counts[1]) if compared and len(year) >= FEW_ROWS else np.nan
    return {
        "feature": name, "rows_before": rows_before, "rows_after": rows_after,
        "missing_before": 0.0, "missing_after": 0.0, "ks": number(statistic),
        "psi": number(_index(counts[0], counts[1])) if compared else None, "p_value": p_value,
        "shift": None, "psi_last_year": number(a_year_ago), "auc_before": None, "auc_after": None,
    }  # fmt: skip


def _among(one: Sample, name: str, known: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    return pc.is_in(one.table[name], value_set=pc.unique(known))


def _having(one: Sample, name: str, names: pa.Array) -> Sample:
    return one.of(_among(one, name, names).to_numpy())


def _index(left: np.ndarray, right: np.ndarray) -> float:
    """The stability index of rows of effective counts, half a row added to each."""
    seen = left + right > 0
    if not left.any() or not right.any():
        return float("nan")
    shares = [(one[seen] + 0.5) / (one[seen] + 0.5).sum() for one in (left, right)]
    return divergence.index(shares[0], shares[1])


def number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# --- names that came and went ----------------------------------------------------------------
def only(name: str, here: Sample, there: Sample) -> dict[str, float]:
    """The shares of ``here``'s rows by names that ``there`` does not have, the largest first."""
    rows = pa.table({"name": here.table[name], "weight": here.weight})
    known = pc.unique(there.table[name])
    rows = rows.filter(pc.invert(pc.is_in(rows["name"], value_set=known)))
    sums = rows.group_by("name").aggregate([("weight", "sum")]).to_pylist()
    total = float(here.weight.sum())
    shares = {str(row["name"]): row["weight_sum"] / total for row in sums}
    return dict(sorted(shares.items(), key=lambda of: (-of[1], of[0])))


def words(came: dict[str, float], went: dict[str, float]) -> str | None:
    """The names that came and went, in the words of the table; None of none."""
    said = [
        f"{verb}: "
        + ", ".join(f"{one!r} {100 * share:.1f} %" for one, share in list(of.items())[:3])
        for verb, of in (("new", came), ("gone", went))
        if of
    ]
    return "; ".join(said) or None


def warnings(
    name: str, came: dict[str, float], went: dict[str, float], rows: tuple[int, int]
) -> list[Symptom]:
    """That a considerable share is of names that came, or was of names that went; ``rows``: of the
    current period and of the reference. Categories are the table ``category_parity``'s, which knows
    a new name from a new kind of goods."""
    found = []
    for what, names, size, said in (
        ("new", came, rows[0], "of what is served has a {name} that the reference does not have "
         "({named}): nothing says yet what is usual there."),
        ("gone", went, rows[1], "of what was served before had a {name} that nothing served now "
         "has ({named}): nobody is answered there any more, or the log lost it."),
    ):  # fmt: skip
        share = sum(names.values())
        # All of the first customers are long known from one day on.
        by_calendar = what == "gone" and name == BY_CALENDAR
        if name == "category" or by_calendar or share < CONSIDERABLE:
            continue
        named = ", ".join(repr(one) for one in list(names)[:3])
        found.append(Symptom(
            kind="covariate_drift", subject=f"{what} {name}", effect=share, limit=CONSIDERABLE,
            severity=share / CONSIDERABLE, rows=round(share * size), warning=True,
            sentence=f"{100 * share:.1f} % {said.format(name=name, named=named)}",
        ))  # fmt: skip
    return found
