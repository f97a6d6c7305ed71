"""The file of planted faults: a YAML list, a case each, that says what is planted, when and where.

    - {name: late web, kind: late_feed, start: 2024-02-16, severity: 0.5, scope: {channel: web}}
    - {name: two at once, kinds: [unit_change, label_delay], start: 2024-02-16, severity: 0.5}

``severity`` runs from 0, without, to 1; what it means is in ``tools/planting/`` at the kind.
``scope`` may limit the requests by region, segment, channel and key_type, and choose what
``OPTIONS`` lists for the kind. The kind ``clean`` plants nothing and draws the answers anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from jobs.errors import Fault
from jobs.tables import FEATURES
from tools.planting import KINDS, WHERE, Planted

FIELDS = ("name", "kind", "kinds", "start", "severity", "scope")
# What a kind can be told beside where it is planted.
OPTIONS: dict[str, tuple[str, ...]] = {
    "unit_change": ("feature", "factor"),
    "default_on_timeout": ("feature", "value"),
    "lost_join": ("feature",),
    "leaked_feature": ("feature",),
    "renamed_category": ("department",),
    "covariate_drift": ("to",),
    "broken_assignment": ("how",),
    "bypassed": ("how",),
    "clean": ("seed",),
}
CHOICES = {
    "broken_assignment": ("ratio", "both", "heavy"),
    "bypassed": ("hidden", "reordered", "both", "cut", "pushed"),
}  # fmt: skip
NUMBERS = ("factor", "value", "seed")


@dataclass(frozen=True)
class Case:
    """What is planted together; nothing that a diagnosis should name where all are ``clean``."""

    name: str
    faults: tuple[Planted, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(one.kind for one in self.faults if one.kind != "clean")

    @property
    def severity(self) -> float:
        return max(one.severity for one in self.faults)

    @property
    def start(self) -> date:
        return min(one.start for one in self.faults)


def read(path: Path, first: date, end: date) -> list[Case]:
    """The cases of a file; faults begin on a day from ``first`` on and before ``end``.

    Raises one ``Fault`` that names everything that is wrong with the file.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Fault(
            f"faults: {path} cannot be read ({error.strerror}); give another FILE"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise Fault(f"faults: {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, list) or not given:
        raise Fault(f"faults: {path} is no list of cases (- {{name: …, kind: …, start: …, …}})")
    wrong = [
        f"case {number}{_named(one)} {sentence}"
        for number, one in enumerate(given, start=1)
        for sentence in _faults_of(one, first, end)
    ]
    names = [one.get("name") for one in given if isinstance(one, dict)]
    wrong += [
        f"the name {name!r} is given to several cases"
        for name in dict.fromkeys(name for name in names if name and names.count(name) > 1)
    ]
    if wrong:
        raise Fault(f"faults: {path}: {'; '.join(wrong)}. Correct these and run again")
    return [_case(one) for one in given]


def _case(given: Mapping[str, Any]) -> Case:
    kinds = given.get("kinds") or [given["kind"]]
    scope = given.get("scope") or {}
    faults = tuple(
        Planted(
            kind, given["start"], float(given["severity"]),
            {name: value for name, value in scope.items() if name in _allowed(kind)},
        )
        for kind in kinds
    )  # fmt: skip
    return Case(given["name"], faults)


def _named(given: Any) -> str:
    name = given.get("name") if isinstance(given, dict) else None
    return f" ({name})" if name else ""


def _allowed(kind: str) -> tuple[str, ...]:
    return (*WHERE, *OPTIONS.get(kind, ()))


def _faults_of(given: Any, first: date, end: date) -> Iterator[str]:
    """What is wrong with one case, a sentence each."""
    if not isinstance(given, dict):
        yield f"is {given!r}; it holds {', '.join(FIELDS)}"
        return
    strange = [str(name) for name in given if name not in FIELDS]
    if strange:
        yield f"has no {', '.join(strange)}; there are {', '.join(FIELDS)}"
    if not isinstance(given.get("name"), str) or not given["name"]:
        yield "has no name"
    kinds = given.get("kinds", [given["kind"]] if "kind" in given else None)
    if ("kind" in given) == ("kinds" in given) or not isinstance(kinds, list) or not kinds:
        yield "needs a kind, or a list of kinds"
        kinds = []
    for kind in kinds:
        if kind not in KINDS:
            yield f"has the kind {kind!r}; there are {', '.join(KINDS)}"
    start = given.get("start")
    if type(start) is not date:
        yield f"starts on {start!r}, which is no date like 2024-02-16"
    elif not first <= start < end:
        yield f"starts on {start}; lists are served from {first} on and before {end}"
    severity = given.get("severity")
    if not _is_number(severity) or not 0 < severity <= 1:
        yield f"has the severity {severity!r}, which is not above 0 and at most 1"
    yield from _scope_faults([kind for kind in kinds if kind in KINDS], given.get("scope") or {})


def _scope_faults(kinds: list[str], scope: Any) -> Iterator[str]:
    if not isinstance(scope, dict):
        yield f"has the scope {scope!r}; it holds names and values"
        return
    allowed = {name for kind in kinds for name in _allowed(kind)} or set(WHERE)
    for name, value in scope.items():
        if name not in allowed:
            yield f"has {name!r} in its scope; there are {', '.join(sorted(allowed))}"
        elif name == "feature":
            each = value if isinstance(value, list) else [value]
            unknown = [str(one) for one in each if one not in FEATURES]
            if unknown:
                yield f"names the unknown features {', '.join(unknown)}"
        elif name in NUMBERS and not _is_number(value):
            yield f"has the {name} {value!r}, which is no number"
        elif name == "how":
            known = [one for kind in kinds for one in CHOICES.get(kind, ())]
            if value not in known:
                yield f"has the how {value!r}; there are {', '.join(known)}"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
