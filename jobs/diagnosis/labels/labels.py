"""The step ``labels``: whether outcomes come when they should, and mean the same everywhere.

Reads ``served``, ``events`` and ``definitions``. Writes ``label_delays`` (a row per population,
part of it and period: how long its events take to arrive), ``label_checks`` (a row per check of a
part: corrections soon and weeks after, returns, values, units, double labels, maturity) and
``labels_symptoms``.

Four things can be wrong, and they are told apart. Where all that a channel or a kind of key sends
is late, the feed is late. Where only what answers requests is, or only the label's own event,
labels are. Where the chance that a purchase of some age comes back has changed, the return policy
has. And where a part of the shop labels otherwise than the rest, labels are inconsistent. Outcomes
that are still to come on the agreed day of maturity are late labels, however they came to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy.stats import binom

from jobs.diagnosis import clusters, definitions, symptoms
from jobs.diagnosis.labels import feeds, label_rules, outcomes, returned
from jobs.diagnosis.labels.feeds import Cube, Late
from jobs.diagnosis.labels.label_rules import Check, Parts
from jobs.diagnosis.labels.outcomes import ALL, OUTCOME, Window
from jobs.diagnosis.labels.returns import HORIZON
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

SERVED = [
    "period", "mature", "request_time", "day", "bought", "bought_time", "bought_received",
    "region", "segment", "channel", "surface", "key_type",
]  # fmt: skip
FEED = "feed"
# Of outcomes that may come after the agreed day: the hundredth that ``maturity_days`` is told by.
UNRIPE = 0.01
MORE = 0.005  # of outcomes, beyond UNRIPE and beyond the weeks before, that change no decision
CORRECTED_DAYS = 7.0  # a correction within a week; both periods have old enough labels for that


@dataclass(frozen=True)
class Params:
    """What is too little to judge by."""

    # Events or outcomes that a population must have in both periods before its delay is judged.
    fewest: int = 200

    def __post_init__(self) -> None:
        check(self.fewest >= 50, "fewest must be at least 50")


def run(night: Night, params: Params) -> None:
    """Stage how long things take, the checks, and what is wrong."""
    agreed = definitions.read(night)
    served = night.arrow("served", SERVED, ds.field("period").isin(["current", "reference"]))
    window = window_of(served, night.as_of)
    rows: list[dict] = []
    checks: list[Check] = []
    found: list[Symptom] = []
    if window is None:
        night.notes["labels"] = "the log lacks the current period or the reference: not compared"
        found = [symptoms.unjudged(
            "labels_unjudged", "periods", served.num_rows, params.fewest,
            "Nothing says whether outcomes come when they should and mean what they did: the log "
            "lacks the current period or the reference.",
        )]  # fmt: skip
    else:
        rows, late, found = _delays(night, served, window, params, agreed.label.event)
        checks, more = _checks(night, served, window, late)
        if agreed.label.event == "purchase":  # what is logged of clicks is not when they arrive
            later = outcomes.later_than(served, window, agreed.label.maturity_days)
            ripe = maturity(rows, later, agreed.label.maturity_days)
            checks.append(ripe)
            found += too_early(ripe, bool(found))
        found += more
    night.write("label_delays", pa.Table.from_pylist(rows, TABLES["label_delays"].schema))
    told = [one.row() for one in checks]
    night.write("label_checks", pa.Table.from_pylist(told, TABLES["label_checks"].schema))
    night.write("labels_symptoms", symptoms.table(found))


def window_of(served: pa.Table, as_of: datetime) -> Window | None:
    """The periods that the log has; None where one of them is missing."""
    first = {}
    for period in ("current", "reference"):
        days = served["day"].filter(pc.equal(served["period"], period))
        if not len(days):
            return None
        first[period] = datetime.combine(pc.min(days).as_py(), time(), UTC)
    return Window(first["reference"], first["current"], as_of)


# --- delays ----------------------------------------------------------------------------------
def _delays(
    night: Night, served: pa.Table, window: Window, params: Params, event: str
) -> tuple[list[dict], list[Late], list[Symptom]]:
    events = _feed_events(night, window)
    known = outcomes.cube(served, window)
    rows = [*feed_rows(events), *outcomes.rows(known, served, window)]
    late = feeds.late_feeds(events, params.fewest)
    slow = outcomes.late(known, late, event, params.fewest)
    if slow:
        late = [one for one in late if not outcomes.only_labels(one, event)]
    return rows, late, [*(late_symptom(one) for one in late), *slow]


def _feed_events(night: Night, window: Window) -> Cube:
    """Events of both periods that answer no request: what the feeds bring whatever is shown."""
    columns = ["event_time", "first_received", "event_type", "channel", "key_type"]
    since = ds.field("event_time") >= pa.scalar(window.before, pa.timestamp("us", tz="UTC"))
    rows = night.arrow("events", columns, since & ds.field("request_id").is_null())
    age = window.hours(rows["event_time"])
    late = age - window.hours(rows["first_received"])
    codes, names = {}, {}
    for kind in ("event_type", "channel", "key_type"):
        codes[kind], names[kind] = clusters.frequent(rows[kind])
    return feeds.cube(age <= window.split, age, late, codes, names)


def feed_rows(events: Cube) -> list[dict]:
    """Rows of ``label_delays`` of every feed."""
    found = []
    for feed, of in events.feeds():
        for period, when in (("current", events.current), ("reference", ~events.current)):
            cells = events.cells.of(of & when)
            if cells.total:
                found.append(outcomes.delay_row(FEED, feed.kind, feed.value, period, cells, cells))
    return found


def late_symptom(one: Late) -> Symptom:
    """A late feed, in words."""
    moved, name = one.shift, one.feed
    if one.silent:
        said = (
            f"Of {name} nothing has come for {one.silent:.0f} hours beyond its longest silence of "
            "the weeks before, while other feeds go on."
        )
    else:
        said = (
            f"Events of {name} arrive {one.hours:.0f} hours later than before, and so they do "
            f"whether they answer a request or not: {moved.above:.0%} take more than "
            f"{moved.mark:.1f} hours, against {moved.before:.0%} in the weeks before."
        )
    return Symptom(
        "late_feed", str(name), one.hours, feeds.LATE_HOURS, one.hours / feeds.LATE_HOURS,
        moved.rows, said, moved.p_value,
    )  # fmt: skip


def maturity(rows: list[dict], later: dict[str, tuple[float, int]], agreed: float) -> Check:
    """Whether 99 % of outcomes are there on the ``agreed`` day, give or take ``MORE``. It was so
    before where more was late, by half of what is too many or all but ``MORE``. ``later``: of
    :func:`outcomes.later_than`."""
    days = {
        row["period"]: float(row["maturity_days"])
        for row in rows
        if row["population"] == OUTCOME and row["segment_kind"] == ALL
    }
    after = days.get("current")
    share, count = later.get("current", (0.0, 0))
    was, _ = later.get("reference", (0.0, 0))
    p = float(binom.sf(round(share * count) - 1, count, UNRIPE)) if count else 1.0
    as_before = min(label_rules.WAS_SO * (share - UNRIPE), share - UNRIPE - MORE)
    return Check(
        "maturity", "outcomes", days.get("reference"), after, None, agreed,
        passed=count < label_rules.FEWEST or share <= UNRIPE + MORE or p > label_rules.SURE,
        sentence=f"99 % of outcomes are there {after or 0:g} days after the request; the metrics "
        f"file waits {agreed:g}, by when {share:.1%} are still to come, against {was:.1%} in the "
        "weeks before.",
        effect=max(after or 0.0, agreed), limit=agreed, rows=count, p_value=p,
        always=was - UNRIPE > 0 and was - UNRIPE >= as_before,
    )  # fmt: skip


def too_early(ripe: Check, explained: bool) -> Iterator[Symptom]:
    """The symptom of labels that are used before they are there; a warning where it was so before,
    and where a delay that is a symptom of its own explains it."""
    if not ripe.passed:
        yield Symptom(
            "label_delay", "maturity", ripe.effect, ripe.limit, ripe.effect / ripe.limit,
            ripe.rows, ripe.sentence, ripe.p_value, ripe.always or explained,
        )  # fmt: skip


# --- checks ----------------------------------------------------------------------------------
LABEL_EVENTS = [
    "event_id", "event_time", "received_time", "first_received", "revision", "event_type",
    "channel", "region", "key_type", "key", "request_id", "item_id", "value", "quantity",
]  # fmt: skip


def _checks(
    night: Night, served: pa.Table, window: Window, late: list[Late]
) -> tuple[list[Check], list[Symptom]]:
    since = pa.scalar(window.before - timedelta(days=HORIZON), pa.timestamp("us", tz="UTC"))
    of_labels = ds.field("event_type").isin(["purchase", "return"])
    rows = night.arrow("events", LABEL_EVENTS, of_labels & (ds.field("event_time") >= since))
    returns, orphans, policy = returned.judge(
        rows, window.hours(rows["event_time"]) / 24, window.hours(rows["first_received"]) / 24,
        window.split / 24, window.whole / 24,
    )  # fmt: skip
    recent = window.hours(rows["event_time"]) <= window.whole
    bought = pc.equal(rows["event_type"], "purchase").to_numpy()
    checks = [*orphans, *_purchases(rows.filter(pa.array(bought & recent)), window)]
    checks.append(_rewritten(rows.filter(pa.array(bought)), window))
    behind = {one.feed.value_of("channel") for one in late}
    checks += [
        one for one in outcome_rates(served) if one.subject.removeprefix("channel ") not in behind
    ]
    return [*returns, *checks], [*policy, *label_rules.symptoms(checks)]


def _purchases(rows: pa.Table, window: Window) -> list[Check]:
    """The checks of what a purchase says."""
    age = window.hours(rows["event_time"])
    current = age <= window.split
    divisions = [
        Parts(kind, *clusters.frequent(rows[kind])) for kind in ("channel", "region", "key_type")
    ]
    group = clusters.groups(rows["key"])
    value = pc.fill_null(rows["value"], 0.0).to_numpy()
    a_unit = value / np.maximum(rows["quantity"].to_numpy(), 1e-9)
    item, _ = clusters.codes(rows["item_id"])
    lag = window.hours(rows["first_received"]) - window.hours(rows["received_time"])
    marks = ((value == 0, "no value", "of the purchases have no value"),
             (value < 0, "negative value", "of the purchases have a negative value"))  # fmt: skip
    found = []
    for marked, name, what in marks:
        found += label_rules.shares(name, what, marked, current, group, divisions)
    found += label_rules.units(a_unit, item, current, divisions)
    found.append(label_rules.corrections(
        rows["revision"].to_numpy(), lag / 24, window.hours(rows["first_received"]) / 24, current,
        group, CORRECTED_DAYS,
    ))  # fmt: skip
    answers = pc.is_valid(rows["request_id"]).to_numpy()
    request, _ = clusters.codes(rows["request_id"].filter(pa.array(answers)))
    pair = request.astype(np.int64) * (int(item.max(initial=0)) + 1) + item[answers]
    return found + label_rules.twice(pair, value[answers], current[answers], group[answers])


def _rewritten(rows: pa.Table, window: Window) -> Check:
    """Whether purchases of earlier weeks were told anew; of those before the reference too, since
    they are what was rewritten in it."""
    return label_rules.rewritten(
        rows["revision"].to_numpy(), window.hours(rows["first_received"]) / 24,
        window.hours(rows["received_time"]) / 24, clusters.groups(rows["key"]),
        window.split / 24, window.whole / 24, CORRECTED_DAYS,
    )  # fmt: skip


def outcome_rates(served: pa.Table) -> list[Check]:
    """Whether a channel has lost its outcomes."""
    rows = served.filter(served["mature"])
    return label_rules.rates(
        rows["bought"].to_numpy(), pc.equal(rows["period"], "current").to_numpy(),
        Parts("channel", *clusters.frequent(rows["channel"])),
    )  # fmt: skip
