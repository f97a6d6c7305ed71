"""Kinds of people that a ranking is judged on apart: by region, segment, activity and tenure.

A promise and its outcome are cut by this one function, so that both speak of the same kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import tables

if TYPE_CHECKING:
    from jobs.signals.audits.audits import Params

ALL = "all"


def of_people(people: pa.Table, at: datetime, params: Params) -> dict[tuple[str, str], np.ndarray]:
    """(kind, value) to (n_people,) bool: everybody, and kinds of people as of an instant.

    ``people``: region, segment, first_seen, and the events behind each person's interactions. A
    slice of too few is chance, and tells of persons.
    """
    size = people.num_rows
    everybody = np.ones(size, bool)
    found = {(ALL, ""): everybody}
    for kind in ("region", "segment"):
        for value, members in largest(people[kind], everybody, params.max_groups):
            found[kind, value] = members
    events = people["events"].to_numpy()
    heavy = events > np.median(events) if size else everybody
    since = pa.scalar(at - timedelta(days=params.new_days), tables.TIME)
    new = pc.fill_null(pc.greater_equal(people["first_seen"], since), False)
    new = new.to_numpy(zero_copy_only=False).astype(bool)
    found |= {
        ("activity", "heavy"): heavy, ("activity", "light"): ~heavy,
        ("tenure", "new"): new, ("tenure", "returning"): ~new,
    }  # fmt: skip
    return {
        name: members
        for name, members in found.items()
        if name[0] == ALL or params.min_slice <= members.sum() < size
    }


def largest(
    values: pa.ChunkedArray, among: np.ndarray, count: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The most frequent values of a column among some rows, and which of these rows have each;
    ties in the order of the values."""
    texts = values.to_numpy(zero_copy_only=False).astype(object)
    found: dict[str, int] = {}
    for text in texts[among]:
        if text is not None:
            found[text] = found.get(text, 0) + 1
    for value, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:count]:
        yield value, among & (texts == value)


def events_of(rows: pa.Table, people: pa.StringArray) -> np.ndarray:
    """(n_people,) int64 events behind each person's rows of ``interactions``."""
    person = pc.index_in(rows["person_id"], value_set=people)
    known = rows["events"].filter(pc.is_valid(person)).to_numpy()
    place = person.drop_null().to_numpy()
    return np.bincount(place, known, minlength=len(people)).astype(np.int64)
