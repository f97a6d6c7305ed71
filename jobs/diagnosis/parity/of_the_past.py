"""Whether what a ranker learned from is what was known when it would have had to decide.

A probe that shines tells that a leak is strong. Here the rows are made again from what had been
received before their cut, feature by feature: one that has another value knew something else,
however little that tells of the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import symptoms
from jobs.diagnosis.replay import comparing, rebuilding
from jobs.diagnosis.replay.rebuilding import Made
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.scoring import features
from jobs.signals import sessions
from jobs.tables import FEATURES

FEW_PEOPLE = 3  # whose rows are otherwise; one or two may be known otherwise by now
# Of the people drawn, whose rows must have been held against what was learned from.
HELD = 0.5


@dataclass(frozen=True)
class Traced:
    """``share``: by feature, of ``rows`` of training those that are made otherwise of the past, of
    how many ``people`` they are, and what one of them is, in words. ``drawn``: people looked at,
    ``held``: of them, those who could be. ``unjudged``: why nothing was looked at, else None;
    ``doubts``: what else than a leak may be why a row is otherwise, in words, else None."""

    rows: int = 0
    drawn: int = 0
    held: int = 0
    share: dict[str, float] = field(default_factory=dict)
    people: dict[str, int] = field(default_factory=dict)
    instance: dict[str, str] = field(default_factory=dict)
    unjudged: str | None = None
    doubts: str | None = None

    def leaks(self, feature: str, limit: float) -> bool:
        """Whether the feature is made otherwise in more than this share, of several people."""
        return self.share[feature] > limit and self.people[feature] >= FEW_PEOPLE


def trace(night: Night, label: str | None, count: int) -> Traced:
    """Make the rows of ``count`` people of the newest cut again that the examples of ``label``
    have; None where no examples are there."""
    if not count:
        return Traced(unjudged="leakage.rebuilt_people is 0")
    if label is None:
        return Traced(unjudged="the examples of no night that served are here")
    refresh = night.earlier("examples", label).manifest.get("refresh")
    label = refresh["night"] if refresh else label
    gone = rebuilding.missing_for_examples(night, label)
    if gone:
        return Traced(unjudged=f"of the night {label} these are gone: {', '.join(gone)}")
    other = _other_rules(night, label)
    if other:
        return Traced(unjudged=f"the night {label} was made by {other}")
    folder = night.earlier("examples", label).table("examples")
    people = io.read_arrow(folder, ["person_id", "as_of"])
    if not people.num_rows:
        return Traced(unjudged=f"the night {label} learned from no examples")
    cut = pc.max(people["as_of"])
    everybody = pc.unique(people.filter(pc.equal(people["as_of"], cut))["person_id"]).sort()
    chosen = np.random.default_rng(night.seed).permutation(len(everybody))[:count]
    mine = everybody.take(pa.array(np.sort(chosen)))
    rows = io.read_arrow(
        folder, ["person_id", "item_id", *FEATURES],
        (ds.field("as_of") == cut) & ds.field("person_id").isin(mine),
    )  # fmt: skip
    found = compared(rows, rebuilding.examples_again(night, label, cut.as_py(), rows))
    return replace(found, doubts=_doubts(night, label))


def _doubts(night: Night, label: str) -> str | None:
    """The source keeps people as they are: one consent that was taken back since, or segments that
    were drawn anew, change what is known of everybody's items and pools."""
    people = [
        {row["table"]: row["digest"] for row in rows.to_pylist()}.get("people")
        for rows in (
            io.read_arrow(night.earlier("source", label).table("source_tables")),
            night.arrow("source_tables"),
        )
    ]
    return None if people[0] == people[1] else "the source's people are others than that night read"


def _other_rules(night: Night, label: str) -> str | None:
    """By what a night was made that is not as today, in words."""
    code, now = (
        found.manifest.get("code_version")
        for found in (night.earlier("examples", label), night.published("served"))
    )
    if code != now:
        return f"the code {code}, where this is {now}"
    folder = night.earlier("recommendations", label).table("features")
    made = pc.unique(io.read_arrow(folder, ["feature_version"])["feature_version"]).to_pylist()
    others = sorted({*made} - {features.VERSION})
    if others:
        return f"features of {', '.join(others)}, where these are of {features.VERSION}"
    notes = night.earlier("sessions", label).manifest.get("notes", {})
    rules = notes.get(sessions.NOTE, {}).get("rules")
    if rules != sessions.RULES:
        return f"rules {rules} of whose an event is, where these are {sessions.RULES}"
    return None


def compared(rows: pa.Table, made: Made) -> Traced:
    """Each feature of ``rows`` of training on its own, beside what was made again of them."""
    held = rows.filter(pa.array(made.known))
    learned, again = features.read(held), made.values[made.known]
    other = ~comparing.same(learned, again)
    _, person = np.unique(held["person_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    share, people, instance = {}, {}, {}
    for number, name in enumerate(FEATURES):
        if name in made.unmade or not held.num_rows:
            continue
        at = np.flatnonzero(other[:, number])
        share[name], people[name] = len(at) / held.num_rows, len(np.unique(person[at]))
        if len(at):
            instance[name] = (
                f"{_said(learned[at[0], number])} where that gives {_said(again[at[0], number])}, "
                f"of item {held['item_id'][int(at[0])].as_py()}"
            )
    return Traced(
        held.num_rows, pc.count_distinct(rows["person_id"]).as_py(), len(np.unique(person)),
        share, people, instance,
    )  # fmt: skip


def _said(value: float) -> str:
    return "nothing" if np.isnan(value) else f"{value:g}"


def unproved(traced: Traced) -> Iterator[Symptom]:
    """A warning where features of training are not proved to be of the past."""
    least = int(np.ceil(HELD * traced.drawn))
    if traced.unjudged:
        why = f"{traced.unjudged}."
    elif traced.held < least:
        why = (
            f"of {traced.drawn:,} people drawn only {traced.held:,} are known at the cut as they "
            "were then."
        )
    else:
        return
    yield symptoms.unjudged(
        "leakage_unjudged", "training", traced.held, max(least, 1),
        f"That features of training are of the past is not proved: {why}",
    )  # fmt: skip
