"""What must hold of every table before it is published: a module per table, named as the table.

A module has ``suite(as_of)``, a list of Great Expectations' expectations. Each is critical (a
failure stops the night) or a warning (recorded), and its ``notes`` say what breaks downstream.
``COLUMNS``, where a module has it, derives columns that the expectations look at, for what a
column alone can't say (``expectations.columns``).

A view is a suite over a table that another step (or an earlier night) published: it says what the
gated step owes to each of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """A table of another step, judged by a step's gate.

    ``where`` names a boolean column that must be true for a row to count. With ``previous`` it is
    the table of the newest earlier night, and no view where there is none.
    """

    step: str
    base: str
    where: str | None = None
    previous: bool = False


VIEWS: dict[str, View] = {
    "items_held": View("catalogue", "items", previous=True),
    "persons_kept": View("identities", "persons", previous=True),
    "events_identified": View("identities", "events"),
    "history_placed": View("interactions", "history"),
    "items_described": View("content_embeddings", "items"),
    "items_indexed": View("index", "items", where="available"),
    "persons_served": View("recommendations", "persons", where="personalised"),
}
