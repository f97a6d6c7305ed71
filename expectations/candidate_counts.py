"""candidate_counts: what each source named."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, column, filled, rows, unique
from jobs.tables import SOURCES

# Editorial lists, arrivals, cold items' neighbours, and in a shop that logs purchases alone what
# was considered may rightly be none. The two towers have a row only where they are on.
ALWAYS = tuple(
    source
    for source in SOURCES
    if source not in ("editorial", "new_arrivals", "content_neighbours", "considered")
)


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without counts a silent source goes unseen."),
        *filled("The report shows these.", "source", "persons", "rows", "items"),
        unique("A source counted twice.", "source"),
        among("An unknown source has no weight.", "source", SOURCES),
        between("A negative count is a broken count.", "rows", 0),
        between(
            "A source that names nothing: lists lose what only it brings.",
            "rows",
            1,
            when=column("source").is_in(list(ALWAYS)),
            severity=WARNING,
        ),
    ]
