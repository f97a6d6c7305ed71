"""Tables that go on from the base: the rows of those who changed are replaced, the rest shared.

A file in which nobody changed is the base's own file under another name, which costs nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io
from jobs.release import releases


def without(base: Path, staged: Path, people: pa.StringArray) -> int:
    """Stage a table of the base without the rows of these people, by its column ``person_id``.

    Files without any of them are shared. Returns the number of the next part: what is added begins
    there, behind the base's own files.
    """
    staged.mkdir(parents=True, exist_ok=True)
    number = 0
    for path in io.parquet_files(base):
        place = re.match(r"part-(\d+)", path.name)
        number = max(number, int(place[1]) + 1 if place else 0)
        target = staged / path.relative_to(base)
        # Of all columns the ids alone are a tenth.
        mine = pc.is_in(pq.read_table(path, columns=["person_id"])["person_id"], value_set=people)
        if not pc.any(mine, min_count=0).as_py():
            releases.link(path, target)
            continue
        kept = pq.read_table(path).filter(pc.invert(mine))
        if kept.num_rows:
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                kept, target, compression=io.COMPRESSION, row_group_size=io.ROWS_PER_GROUP
            )
    return number
