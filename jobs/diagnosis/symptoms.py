"""What a step of the diagnosis found wrong, in one form, so that the verdict can order it all.

Each step writes a table ``<step>_symptoms`` of these; none where nothing is wrong. A symptom has a
kind, whose gate, remedy and next action are the same wherever it is found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from jobs.tables import SYMPTOM

# The five gates of the verdict, in the order in which the first that fails says what to mend.
MEASUREMENT, REPLAY, PARITY, DECISIONING, ADOPTION = GATES = (
    "measurement", "replay", "parity", "decisioning", "adoption",
)  # fmt: skip
DATA, MODEL, SYSTEM = REMEDIES = ("data", "model", "system")


@dataclass(frozen=True)
class Kind:
    """What a kind of symptom is: the gate that it fails, what to mend, its name, what to do."""

    gate: str
    remedy: str
    title: str
    action: str


KINDS: dict[str, Kind] = {
    # --- measurement: can the numbers be believed at all? ------------------------------------
    "incomplete_log": Kind(
        MEASUREMENT, SYSTEM, "the log is incomplete",
        "Have serving write every answer whole: request, person's key, place, release, features.",
    ),
    "late_feed": Kind(
        MEASUREMENT, DATA, "a feed arrives late",
        "Find what delays the feed, or move the night behind it; lists rank older signals.",
    ),
    "label_delay": Kind(
        MEASUREMENT, DATA, "outcomes arrive later than before, or than agreed",
        "Wait for the new maturity date before judging or training; find what delays outcomes.",
    ),
    "return_policy": Kind(
        MEASUREMENT, DATA, "purchases come back at another rate",
        "Agree on what a purchase is worth under the new returns, and set the label's maturity.",
    ),
    "inconsistent_labels": Kind(
        MEASUREMENT, DATA, "labels do not mean the same everywhere",
        "Define the outcome once, for all segments and channels, and record it that way.",
    ),
    "split_persons": Kind(
        MEASUREMENT, DATA, "known people come as strangers",
        "Look for the identity feed that stopped or the key that changed; link the new keys.",
    ),
    "broken_assignment": Kind(
        MEASUREMENT, SYSTEM, "the experiment's assignment is broken",
        "Stop reading the experiment; assign by the salted hash, one arm a person, and start anew.",
    ),
    "sudden_drop": Kind(
        MEASUREMENT, SYSTEM, "volume fell suddenly",
        "Look first at whether requests, answers or events are lost before anything is tuned.",
    ),
    "kpi_unmeasured": Kind(
        MEASUREMENT, DATA, "the agreed KPI cannot be measured",
        "Record what each purchase cost (the value of an event), or agree on another KPI.",
    ),
    "kpis_unjudged": Kind(
        MEASUREMENT, SYSTEM, "too little to say whether the business moved",
        "Look again when the log reaches over both periods and more is asked and bought.",
    ),
    "empty_segment": Kind(
        MEASUREMENT, DATA, "an agreed segment has no values",
        "Fill the column in the source, or take the segment out of the metrics file.",
    ),
    "labels_unjudged": Kind(
        MEASUREMENT, SYSTEM, "labels are not judged",
        "Look again when the log reaches over both periods; until then believe no comparison.",
    ),
    # --- replay: was what the log says served what was computed? ------------------------------
    "unknown_release": Kind(
        REPLAY, SYSTEM, "answers name releases that nobody knows",
        "Find which release serving has open; publish through the pipeline alone.",
    ),
    "not_replayed": Kind(
        REPLAY, SYSTEM, "what was served cannot be replayed",
        "Log the features and their hash with every scored place, under keys that releases know.",
    ),
    "unlike_release": Kind(
        REPLAY, SYSTEM, "what was served is not what was published",
        "Compare serving's features and scoring with the release's; serve its rows as they are.",
    ),
    "unit_change": Kind(
        REPLAY, SYSTEM, "a feature is served in another unit",
        "Make both sides read one definition of the unit; convert at one place.",
    ),
    "default_on_timeout": Kind(
        REPLAY, SYSTEM, "a default value stands in for a feature",
        "Raise the timeout or cache the lookup; serve nothing rather than a default.",
    ),
    "lost_join": Kind(
        REPLAY, SYSTEM, "a feature is missing where it was known",
        "Look at the join of the lookup: its key, its type, and who fell out of it.",
    ),
    "replay_unjudged": Kind(
        REPLAY, SYSTEM, "what was published is not made again",
        "Keep the tables of nights while they serve, and look at replay.rebuilt_people.",
    ),
    # --- parity: does the model see what it learned from? -------------------------------------
    "not_compared": Kind(
        PARITY, SYSTEM, "too little to compare",
        "Log features with every scored place; look again when both periods are filled.",
    ),
    "leaked_feature": Kind(
        PARITY, MODEL, "a feature knew the outcome in training",
        "Take the feature out or rebuild it as of the moment of decision, then train again.",
    ),
    "leakage_unjudged": Kind(
        PARITY, SYSTEM, "features of training are not proved to be of the past",
        "Keep the tables of nights while they serve, and the source that they read; look again at "
        "the next run.",
    ),
    "renamed_category": Kind(
        PARITY, DATA, "a category vanished and another came",
        "Map the old name to the new one in the source, and rebuild what counts by category.",
    ),
    "vanished_category": Kind(
        PARITY, DATA, "a category is gone",
        "Ask whether its goods left the shop; if not, look for the feed or the filter that lost "
        "them.",
    ),
    "new_category": Kind(
        PARITY, MODEL, "a category is new",
        "Look at its lists and its candidates; the next nights learn from what is bought of it.",
    ),
    "covariate_drift": Kind(
        PARITY, MODEL, "who asks, or what for, has changed",
        "Train on newer data; look whether the change is meant (a campaign, a new market).",
    ),
    "label_drift": Kind(
        PARITY, MODEL, "people buy at another rate, whatever is shown",
        "Recalibrate on matured outcomes; the order of the lists still holds.",
    ),
    "concept_drift": Kind(
        PARITY, MODEL, "the same inputs mean something else now",
        "Train again on newer outcomes, and shorten the windows of what drifted.",
    ),
    # --- decisioning: are the scores used well? -----------------------------------------------
    "threshold": Kind(
        DECISIONING, SYSTEM, "the threshold is not where the costs put it",
        "Move the threshold to where the costs are least.",
    ),
    "miscalibrated": Kind(
        DECISIONING, MODEL, "probabilities are not what comes true",
        "Calibrate on matured outcomes of the same surface.",
    ),
    "losing_slice": Kind(
        DECISIONING, MODEL, "a slice loses what the whole does not show",
        "Look at the slice's cases, its candidates and its features.",
    ),
    "below_promise": Kind(
        DECISIONING, MODEL, "lists order worse than their nights promised",
        "Look at what has drifted since the newest cut, and whether the cut is like what serves.",
    ),
    "promise_unjudged": Kind(
        DECISIONING, SYSTEM, "what nights promised is not judged",
        "Agree on a metric of as many places as lists have; look again when the horizon of a "
        "release is over.",
    ),
    "below_baseline": Kind(
        DECISIONING, MODEL, "what the model replaced brings more",
        "Settle it by an experiment against the baseline, and look at the slices that lose most.",
    ),
    "guardrail_broken": Kind(
        DECISIONING, SYSTEM, "an arm of an experiment breaks a guardrail",
        "Stop showing the arm and take the experiment out of the metrics file; mend what it makes "
        "worse, or agree on a wider margin before the next one.",
    ),
    "losing_arm": Kind(
        DECISIONING, MODEL, "an arm of an experiment brings less than its control",
        "Stop showing the arm, unless what it was tried for is worth that much.",
    ),
    "suspicious_driver": Kind(
        DECISIONING, MODEL, "a feature drives scores and should not",
        "Look where the feature comes from; mend its source, or take it out and train again.",
    ),
    "regressed_cases": Kind(
        DECISIONING, MODEL, "a release is wrong again where the one before was right",
        "Compare both releases at these cases; go back to the one before where they matter.",
    ),
    "decisions_unjudged": Kind(
        DECISIONING, SYSTEM, "scores and slices are not judged",
        "Serve calibrated scores and log them; look again when enough places are mature.",
    ),
    # --- adoption: did people see it? ---------------------------------------------------------
    "not_told": Kind(
        ADOPTION, SYSTEM, "nobody knows whether lists were seen",
        "Have the page report what it showed at which place, and log it as shown_position.",
    ),
    "adoption_unjudged": Kind(
        ADOPTION, SYSTEM, "too few answers to say what a page does",
        "Look again when more answers are logged, or over more days.",
    ),
    "bypassed": Kind(
        ADOPTION, SYSTEM, "the page does not show the list as it was given",
        "Find what reorders or hides places between the answer and the page.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Symptom:
    """One thing that is wrong.

    ``subject``: the feature, slice, feed or arm. ``effect`` and ``limit`` are in one unit, the
    effect beyond the limit; ``severity`` orders symptoms of a gate: 1 at the limit, more beyond
    it, at most 1000. ``rows``: what it rests on. ``sentence``: in words a person can act on, with
    the numbers. ``warning``: told, but fails no gate.
    """

    kind: str
    subject: str
    effect: float
    limit: float
    severity: float
    rows: int
    sentence: str
    p_value: float | None = None
    warning: bool = False

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        assert math.isfinite(self.severity), self
        assert self.sentence.endswith("."), self.sentence

    @property
    def gate(self) -> str:
        return KINDS[self.kind].gate


def unjudged(kind: str, subject: str, count: int, least: int, sentence: str) -> Symptom:
    """The warning that something was not judged, of ``count`` rows where ``least`` are needed: not
    the same as nothing wrong."""
    return Symptom(kind, subject, float(count), float(least), 1.0, count, sentence, warning=True)


def table(found: Iterable[Symptom]) -> pa.Table:
    """The rows of a table ``<step>_symptoms``, the gravest first."""
    rows = [
        asdict(one)
        | {"gate": one.gate, "remedy": KINDS[one.kind].remedy, "action": KINDS[one.kind].action}
        | {"severity": min(one.severity, 1000.0)}
        for one in sorted(found, key=lambda s: (-s.severity, s.kind, s.subject))
    ]
    return pa.Table.from_pylist(rows, SYMPTOM)


def read(rows: pa.Table) -> list[Symptom]:
    """The other way round."""
    columns = [name for name in rows.column_names if name not in ("gate", "remedy", "action")]
    return [Symptom(**row) for row in rows.select(columns).to_pylist()]
