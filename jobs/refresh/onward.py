"""Tables that go on from the base: the rows of those who changed are replaced, the rest shared.

A file in which nobody changed is the base's own file under another name, which costs nothing; so
tables of persons lie in files of few people each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io
from jobs.night import Night
from jobs.release import releases

# People of a file: fewer would make more files than a folder is comfortable with (a hundred a table
# and source at 50,000 people), and for one person who changed a file is written again.
PEOPLE = 500


class Writer:
    """Stages tables of persons in files of few people."""

    def __init__(self, night: Night, first: Mapping[str, int] | None = None):
        """``first``: by table the number of its first part, 0 where it is not named."""
        self._night, self._next = night, Counter(first or {})

    def add(self, name: str, rows: pa.Table) -> None:
        """Stage these rows, those of a person together, behind what was added before."""
        for part in parts(rows):
            self._night.add(name, self._next[name], part)
            self._next[name] += 1


def parts(rows: pa.Table, people: int = PEOPLE) -> Iterator[pa.Table]:
    """The rows, of which those of a person stand together, in tables of so many people each."""
    ids = pa.concat_arrays(rows["person_id"].cast(pa.string()).chunks) if rows.num_rows else []
    if len(ids) < 2:
        yield rows
        return
    begins = np.flatnonzero(pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)) + 1
    edges = [0, *begins[people - 1 :: people].tolist(), rows.num_rows]
    for first, last in pairwise(edges):
        yield rows.slice(first, last - first)


def without(base: Path, staged: Path, people: pa.StringArray) -> int:
    """Stage a table of the base without the rows of these people, whose ids are sorted, by its
    column ``person_id``.

    Files without any of them are shared. Returns the number of the next part: what is added begins
    there, behind the base's own files.
    """
    staged.mkdir(parents=True, exist_ok=True)
    number = 0
    for path in io.parquet_files(base):
        place = re.match(r"part-(\d+)", path.name)
        number = max(number, int(place[1]) + 1 if place else 0)
        target = staged / path.relative_to(base)
        if io.people_in(path, people, ["person_id"]).num_rows == 0:
            releases.link(path, target)
            continue
        rows = pq.read_table(path)
        kept = rows.filter(pc.invert(pc.is_in(rows["person_id"], value_set=people)))
        if kept.num_rows:
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                kept, target, compression=io.COMPRESSION, row_group_size=io.ROWS_PER_GROUP
            )
    return number


def both(*ids: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """The sorted ids that are in any of these."""
    chunks = [
        chunk.cast(pa.string())
        for one in ids
        for chunk in (one.chunks if isinstance(one, pa.ChunkedArray) else [one])
    ]
    found = pc.unique(pa.chunked_array(chunks, pa.string()))
    return found.take(pc.sort_indices(found))
