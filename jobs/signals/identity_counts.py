"""What became of every key and link: the table ``identity_counts``, which a gate judges."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from jobs.signals import codes, components, links
from jobs.signals.links import PAIR

if TYPE_CHECKING:
    from jobs.signals.identities import Params


def tally(
    rows: DataFrame | None, cut: datetime, before: datetime | None, params: Params
) -> dict[str, int]:
    """The counts of ``links.tally`` by name; all 0 where the source has no links."""
    if rows is None:
        return dict.fromkeys(links.TALLIED, 0)
    return links.tally(rows, cut, before, params).toArrow().to_pylist()[0]


def of_tables(identities: pa.Table, judged: pa.Table, params: Params) -> dict[str, int]:
    """The counts of the tables: keys, persons, households and components, admitted links that
    close a cycle (harmless: the keys are one person without them), and links by outcome.

    ``over_cap``: persons who hold more keys of a type than one may. ``without_accounts``: admitted
    links where no key at all is of a type that founds persons, so that nothing keeps two apart.
    ``unnamed_types``: persons who hold several keys of a type that no parameter names.

    ``identities``, ``judged``: the tables ``identities`` and ``identity_links``.
    """
    persons, (person,) = codes.of_texts(identities["person_id"])
    types, (key_type,) = codes.of_texts(identities["key_type"])
    names = types.to_pylist()
    founds = np.array([name in params.account_types for name in names], bool)
    unnamed = np.array([name not in params.named_types for name in names], bool)
    most = np.array([params.max_of_type[name] if name in params.account_types else 0
                     for name in names], np.int64)  # fmt: skip
    # A row per person and type: how many keys of the type the person holds.
    group, held = np.unique(person * len(names) + key_type, return_counts=True)
    kind = group % max(len(names), 1)
    admitted = judged.filter(pc.equal(judged["outcome"], components.OUTCOMES[0]))
    pairs = pc.count_distinct(codes.of_rows(PAIR, admitted)[0]).as_py()
    found = {
        "keys": identities.num_rows,
        "persons": len(persons),
        "households": pc.count_distinct(identities["household_id"]).as_py(),
        "components": pc.count_distinct(identities["component"]).as_py(),
        "cycles": pairs - identities.num_rows + len(persons),
        "over_cap": int((founds[kind] & (held > most[kind])).sum()),
        "without_accounts": 0 if founds[kind].any() else pairs,
        "unnamed_types": int((unnamed[kind] & (held > 1)).sum()),
    }
    of_outcome = pc.value_counts(judged["outcome"].cast(pa.string())).to_pylist()
    return found | {f"link: {one['values']}": one["counts"] for one in of_outcome}
