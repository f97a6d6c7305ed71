"""What ``make faults`` found: a file per case that was diagnosed, and what all say together.

    <root>/results/<world>-<code>/<case>.json   one case of one world, by one state of the code
    <root>/results.json, <root>/report.md       all of the same world and code, whatever file they
                                                were read from

A case that has its file is not diagnosed again; delete the file to have it done anew.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from jobs import io
from jobs.__main__ import code_version
from tools import code_digest
from tools.planted import Case
from tools.planting import Planted

# What a result depends on, beside the world: what plants a case and what diagnoses it.
CODE = (
    "jobs", "expectations", "tools/cases.py", "tools/planted.py", "tools/planting",
    "tools/world_days.py",
)  # fmt: skip
MEDIUM = 0.5  # from this severity on a fault is to be named
NOTHING = "nothing"


@dataclass(frozen=True)
class Diagnosed:
    """A case and what the diagnosis said: its symptoms in the verdict's order, those that are no
    warnings first; ``red``: the step whose gate stopped it; seconds by step, of which ``made`` to
    write the case."""

    case: Case
    found: list[dict[str, Any]]
    red: str | None
    seconds: dict[str, float]
    made: float = 0.0

    @property
    def first(self) -> str:
        """The kind that is named first."""
        if self.red:
            return f"red gate: {self.red}"
        return next((row["kind"] for row in self.found if not row["warning"]), NOTHING)

    @property
    def right(self) -> bool:
        """Whether one of the planted kinds is named first, and nothing where none was planted."""
        return self.first in (self.case.kinds or (NOTHING,))

    def facts(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "name": self.case.name, "kinds": self.case.kinds, "severity": self.case.severity,
            "faults": _settings(self.case), "first": self.first, "right": self.right,
            "red": self.red, "made": self.made, "seconds": self.seconds, "found": self.found,
        }  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """The results of one world and one state of the code, in the folder of ``make faults``."""

    root: Path
    world: str
    code: str = field(default_factory=lambda: code_digest.of(CODE))

    @property
    def folder(self) -> Path:
        return self.root / "results" / f"{self.world}-{self.code}"

    def holds(self, case: Case) -> bool:
        """Whether this very case, by name and settings, was diagnosed."""
        return self._file(case).is_file()

    def add(self, one: Diagnosed) -> None:
        """Keep a result, and tell anew of all there are."""
        commit = {"world": self.world, "code": self.code, "commit": code_version()}
        io.write_json(self._file(one.case), commit | one.facts())
        found = self.all()
        io.write_json(self.root / "results.json", self._together(found))
        io.write_text(self.root / "report.md", self.text())

    def all(self) -> list[Diagnosed]:
        """Every result, by the names of the cases."""
        found = [_read(io.read_json(path)) for path in self.folder.glob("*.json")]
        return sorted(found, key=lambda one: (one.case.name, one.case.start))

    def text(self) -> str:
        """The report of all of them."""
        return "\n".join(report(self.all(), f"World {self.world}, code {self.code}."))

    def _together(self, found: Sequence[Diagnosed]) -> dict[str, Any]:
        cases = [one.facts() for one in found]
        return {"world": self.world, "code": self.code, **shares(found), "cases": cases}

    def _file(self, case: Case) -> Path:
        return self.folder / f"{digest(case)}.json"


def digest(case: Case) -> str:
    """Names a case: what it is called and what is planted in it."""
    text = json.dumps([case.name, _settings(case)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _settings(case: Case) -> list[dict[str, Any]]:
    return [
        {"kind": one.kind, "start": one.start.isoformat(), "severity": one.severity,
         "scope": dict(one.scope)}
        for one in case.faults
    ]  # fmt: skip


def _read(facts: dict[str, Any]) -> Diagnosed:
    faults = tuple(
        Planted(one["kind"], date.fromisoformat(one["start"]), one["severity"], one["scope"])
        for one in facts["faults"]
    )
    return Diagnosed(
        Case(facts["name"], faults), facts["found"], facts["red"], facts["seconds"], facts["made"]
    )


# --- telling -----------------------------------------------------------------------------------
def shares(found: Sequence[Diagnosed]) -> dict[str, Any]:
    """How many were named rightly at medium severity and above, and alarms on clean worlds."""
    grave = [one for one in found if one.case.kinds and one.case.severity >= MEDIUM]
    faint = [one for one in found if one.case.kinds and one.case.severity < MEDIUM]
    unfaulted = [one for one in found if not one.case.kinds]
    return {
        "medium and above": {"cases": len(grave), "right": sum(one.right for one in grave)},
        "faint": {"cases": len(faint), "right": sum(one.right for one in faint)},
        "clean": {"cases": len(unfaulted), "alarms": sum(not one.right for one in unfaulted)},
    }


def report(found: Sequence[Diagnosed], of: str) -> Iterator[str]:
    """Markdown: the shares, planted against named, and each miss with what was found instead;
    ``of``: a sentence that says of which world and code."""
    share = shares(found)
    grave, unfaulted = share["medium and above"], share["clean"]
    yield from ("# Planted faults and what was named first", "", of, "")
    if grave["cases"]:
        yield (
            f"{grave['right']} of {grave['cases']} faults of medium severity and above were named "
            f"rightly first ({grave['right'] / grave['cases']:.0%}), and {share['faint']['right']} "
            f"of {share['faint']['cases']} faint ones."
        )
    yield f"{unfaulted['alarms']} of {unfaulted['cases']} worlds without a fault raised an alarm."
    yield from (
        "",
        "| planted | severity | cases | right | named first |",
        "| --- | --: | --: | --: | --- |",
    )
    for (planted_kinds, severity), some in _grouped(found).items():
        named = Counter(one.first for one in some)
        told = ", ".join(f"{kind} {count}" if count > 1 else kind for kind, count in named.items())
        right = sum(one.right for one in some)
        yield f"| {planted_kinds} | {severity:g} | {len(some)} | {right} | {told} |"
    missed = [one for one in found if not one.right]
    if missed:
        yield from ("", "## Missed", "")
    for one in missed:
        yield (
            f"- **{one.case.name}** ({' + '.join(one.case.kinds) or 'clean'}, "
            f"{one.case.severity:g}): {one.first}."
        )
        for row in one.found[:4]:
            mark = "warning: " if row["warning"] else ""
            where = f"{mark}{row['kind']} of {row['subject']} ({row['step']})"
            yield f"    - {where}: {row['sentence']}"


def _grouped(found: Sequence[Diagnosed]) -> dict[tuple[str, float], list[Diagnosed]]:
    grouped: dict[tuple[str, float], list[Diagnosed]] = {}
    for one in found:
        key = (" + ".join(one.case.kinds) or "clean", one.case.severity)
        grouped.setdefault(key, []).append(one)
    return dict(sorted(grouped.items()))
