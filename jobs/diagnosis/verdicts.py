"""Published verdicts, for whoever acts on one: the DAGs, the alerts, the command line.

Reads ``verdict_gates`` and ``verdict_symptoms`` of a lake. Writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import io
from jobs.diagnosis.symptoms import KINDS, PARITY, REPLAY
from jobs.io import Lake, Published
from jobs.tables import TABLES

GO = "go"
# What a model is trained on must be what is served: these say whether it is.
TRUSTED = (REPLAY, PARITY)
UNSEEN = ("not_compared", "not_replayed")


@dataclass(frozen=True)
class Verdict:
    """A verdict as of the run date ``label``, reached by the run ``run_id``: rows of its gates, in
    their order, and of its symptoms, the first to look at first. ``page``: where its page lies,
    once it is built."""

    label: str
    run_id: str
    gates: list[dict[str, Any]]
    symptoms: list[dict[str, Any]]
    page: Path

    @property
    def failed(self) -> dict[str, Any] | None:
        """The first gate that is not go; it says what to mend."""
        return next((gate for gate in self.gates if not gate["go"]), None)

    @property
    def name(self) -> str:
        """``go``, or the first gate that is not."""
        return self.failed["gate"] if self.failed else GO

    @property
    def first(self) -> dict[str, Any] | None:
        """The first symptom that fails a gate."""
        return next((row for row in self.symptoms if not row["warning"]), None)

    def first_of_gates(self) -> list[dict[str, Any]]:
        """The first symptom of each gate that is not go."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.symptoms:
            if not row["warning"]:
                found.setdefault(row["gate"], row)
        return list(found.values())

    def drops(self) -> list[dict[str, Any]]:
        """What fell suddenly, whether it fails a gate or not."""
        return [row for row in self.symptoms if row["kind"] == "sudden_drop"]

    def why(self) -> str:
        """What is not go and what to do about it, in one sentence after the other."""
        failed = self.failed
        if failed is None:
            return "All five gates are go."
        return (
            f"No-go at the gate {failed['gate']}: {failed['classified']}. {failed['evidence']} "
            f"{failed['action']}"
        )

    def age(self, as_of: datetime) -> timedelta:
        """How long its run date lies before another; negative where it is later."""
        return as_of - io.parse_as_of(self.label)

    def untrusted(self) -> list[str]:
        """Why a model should not be trained on what this verdict saw, a sentence a gate."""
        doubts = [
            f"The gate {gate['gate']} is no-go: {gate['evidence']}"
            for gate in self.gates
            if gate["gate"] in TRUSTED and not gate["go"]
        ]
        # Too little to compare or to replay fails no gate of a young shop, or of one that
        # refreshes hourly, and shows nothing to be right.
        return doubts + [
            f"The gate {row['gate']} saw too little: {row['sentence']}"
            for row in self.symptoms
            if row["kind"] in UNSEEN and row["warning"]
        ]


def of(lake: Lake, label: str) -> Verdict | None:
    """The verdict published for a run date."""
    found = lake.at("verdict", label)
    return _read(lake, found) if found else None


def newest(lake: Lake) -> Verdict | None:
    """The verdict of the latest run date."""
    home = lake.root / "tables" / "verdict"
    labels = sorted((path.name for path in home.iterdir()), reverse=True) if home.is_dir() else []
    return next((found for label in labels if (found := of(lake, label))), None)


def page(lake: Lake, label: str) -> Path:
    """Where the page of a run date's verdict lies."""
    return lake.root / "docs" / f"diagnosis-{label}.html"


def title(symptom: dict[str, Any]) -> str:
    """What a symptom is called."""
    return KINDS[symptom["kind"]].title


def _read(lake: Lake, found: Published) -> Verdict:
    def rows(name: str) -> list[dict[str, Any]]:
        read = io.read_arrow(found.table(name), TABLES[name].schema.names).to_pylist()
        return sorted(read, key=lambda row: row["place"])

    return Verdict(
        label=found.as_of,
        run_id=found.manifest["run_id"],
        gates=rows("verdict_gates"),
        symptoms=rows("verdict_symptoms"),
        page=page(lake, found.as_of),
    )
