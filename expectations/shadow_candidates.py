"""shadow_candidates: what became of candidates that were held beside what served."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, column, filled, rows, unique
from jobs.diagnosis.shadow import DECISIONS, UNREADABLE
from jobs.release import shadow


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A table that cannot be read says nothing, not that nobody was compared.", 0),
        *filled("A candidate needs a name, and what it was held beside.", "candidate", "live",
                "compared_at", "parameters", "loses", "serves", "decision"),
        unique("A candidate told twice.", "candidate"),
        among("A decision that nobody can take.", "decision", (*DECISIONS, UNREADABLE)),
        among("A comparison is lost: make it again, or remove what is left of it.", "decision",
              DECISIONS, naming=["parameters"], severity=WARNING),
        *filled("Months later the reason is all that tells why.", "reason", "decided_by",
                when=column("decision").is_in(list(shadow.DECISIONS))),
        between("A count below nothing.", "loses", 0),
        between("By what was bought since, a candidate that serves is worse than what it replaced: "
                "roll back, or promote another.", "loses", 0, 0, when=column("serves") == True,  # noqa: E712
                severity=WARNING),
    ]  # fmt: skip
