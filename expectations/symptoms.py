"""What holds of every table ``<step>_symptoms``; a module per table says which step's it is."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.diagnosis.symptoms import GATES, KINDS, REMEDIES


def suite(as_of: datetime) -> list[Expectation]:
    return of("kind", "subject")


def of(*key: str) -> list[Expectation]:
    """The suite of a table of symptoms that these columns name."""
    return [
        rows("A table that cannot be read says nothing, not that all is well.", 0),
        *filled("A symptom is what, where and of which gate.", "kind", "subject", "gate", "remedy"),
        *filled("Symptoms are ordered by how far they are beyond their limit.",
                "effect", "limit", "severity"),
        *filled("What a symptom rests on, and whether it fails a gate.", "rows", "warning"),
        *filled("A person has to act on it.", "sentence", "action"),
        unique("A symptom counted twice.", *key),
        among("A symptom that no gate knows.", "kind", tuple(KINDS)),
        among("A gate that the verdict does not have.", "gate", GATES),
        among("A remedy that nobody has.", "remedy", REMEDIES),
        between("A severity that orders nothing.", "severity", 0, 1_000),
        between("A negative count is a broken count.", "rows", 0),
        between("An effect that is not a number.", "effect", -1e300, 1e300),
        between("A limit that is not a number.", "limit", -1e300, 1e300),
    ]  # fmt: skip
