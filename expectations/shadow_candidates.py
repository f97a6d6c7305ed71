"""shadow_candidates: what became of candidates that were held beside what served."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, column, filled, rows, unique
from jobs.diagnosis.shadow import DECISIONS
from jobs.release import shadow


def suite(as_of: datetime) -> list[Expectation]:
    promoted = column("decision") == shadow.PROMOTE
    return [
        rows("A table that cannot be read says nothing, not that nobody was compared.", 0),
        *filled("A candidate needs a name, and what it was held beside.", "candidate", "live",
                "compared_at", "parameters", "red_gates", "loses", "decision"),
        unique("A candidate told twice.", "candidate"),
        among("A decision that nobody can take.", "decision", DECISIONS),
        *filled("Months later the reason is all that tells why.", "reason", "decided_by",
                when=column("decision").is_in(list(shadow.DECISIONS))),
        between("A candidate whose gate was red must not serve.", "red_gates", 0, 0,
                when=promoted),
        between("A count below nothing.", "loses", 0),
        between("By what was bought since, a candidate that serves is worse than what it replaced: "
                "roll back, or promote another.", "loses", 0, 0, when=promoted, severity=WARNING),
    ]  # fmt: skip
