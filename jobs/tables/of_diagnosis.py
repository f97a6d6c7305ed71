"""What the daily diagnosis finds."""

from __future__ import annotations

import pyarrow as pa

from jobs.tables.form import BOOL, DATE, F32, F64, FEATURES, I32, I64, TIME, S, Table, Tables, maybe

TABLES = Tables()
table = TABLES.declare

# --- diagnosis -------------------------------------------------------------------------------
SYMPTOM = pa.schema([
    pa.field("kind", S, nullable=False), pa.field("subject", S, nullable=False),
    pa.field("gate", S, nullable=False), pa.field("remedy", S, nullable=False),
    pa.field("effect", F64, nullable=False), pa.field("limit", F64, nullable=False),
    pa.field("severity", F64, nullable=False), pa.field("p_value", F64),
    pa.field("rows", I64, nullable=False), pa.field("warning", BOOL, nullable=False),
    pa.field("sentence", S, nullable=False), pa.field("action", S, nullable=False),
])  # fmt: skip


def _symptoms(step: str) -> None:
    """The table of what this step of the diagnosis found wrong."""
    name = f"{step}_symptoms"
    TABLES[name] = Table(
        name, step, "one row per symptom; none where nothing is wrong", ("kind", "subject"), SYMPTOM
    )


table(
    "definitions", "definitions",
    "one row per definition of the metrics file, and per fault of it", "name",
    name=S, value=S, fault=maybe(S),
)  # fmt: skip
table(
    "log_counts", "served",
    "one row per period and outcome of a row of the log, of an answer to it, or of who asked; the "
    "share is of rows of its kind in the period",
    "period outcome", period=S, outcome=S, rows=I64, share=F64,
)  # fmt: skip
table(
    "served", "served",
    "one row per place of a logged answer; period: current, reference or last_year; mature: its "
    "outcomes have had their time; value: money of what was bought, less what came back; "
    "published: the lake published this release, whether it still has it; night: the run date "
    "under which its very tables lie",
    "request_id position",
    request_id=S, request_time=TIME, day=DATE, period=S, mature=BOOL, surface=S,
    visitor=S, person_id=maybe(S), key_type=S, key=S, region=S, segment=S, tenure=S,
    position=I32, item_id=S, category=S, release_id=S, published=BOOL, night=maybe(S),
    propensity=maybe(F64), score=maybe(F64), shown_position=maybe(I32),
    override_reason=maybe(S), fallback=maybe(S),
    experiment=maybe(S), arm=maybe(S), latency_ms=maybe(F64), feature_version=maybe(S),
    feature_hash=maybe(S), clicked=BOOL, bought=BOOL, value=F64, returned=BOOL,
    bought_time=maybe(TIME), bought_received=maybe(TIME), channel=S,
)  # fmt: skip
table(
    "visits", "served",
    "one row per visitor, day and experiment ('' for none): all requests of a day and what was "
    "bought on it, whether from a list or not; before_value: money spent in the days before the "
    "experiment began, without one before the reference; returning: had bought before this day; "
    "arm: '' without an experiment, 'several' where the log has more than one since the "
    "experiment began (of days before it, before; of last year, then)",
    "visitor day experiment",
    visitor=S, day=DATE, period=S, experiment=S, arm=S, key_type=S, region=S, segment=S, tenure=S,
    requests=I64, clicks=I64, orders=I64, revenue=F64, attributed=F64, before_value=F64,
    returning=BOOL,
)  # fmt: skip
table(
    "served_features", "served",
    "one row per place of a sample of requests whose features were logged, as they were served; "
    "revenue: the money that `served` calls value; weight: how many places one stands for",
    "request_id position",
    request_id=S, position=I32, day=DATE, period=S, mature=BOOL, surface=S, region=S, segment=S,
    tenure=S, key_type=S, category=S, person_id=maybe(S), item_id=S, release_id=S,
    night=maybe(S), score=maybe(F64), latency_ms=maybe(F64), feature_version=maybe(S),
    feature_hash=maybe(S), clicked=BOOL, bought=BOOL, revenue=F64, weight=F64,
    **{name: maybe(F32) for name in FEATURES},
)  # fmt: skip
_symptoms("served")
table(
    "replayed", "replay",
    "one row per night, or refresh, that served in the current period, or in the reference where "
    "its promise is due: what was served beside what was published, and beside what is made again "
    "of it; promised: by the agreed metric, null where a night promises nothing by it; realised: "
    "by the same, of visitors who bought in the promised horizon after their list",
    "night",
    night=S, requests=I64, places=I64, compared=I64, unpublished=I64, features_same=maybe(F64),
    hash_same=maybe(F64), version_same=maybe(F64), score_same=maybe(F64), order_same=maybe(F64),
    rebuilt_people=I64, rebuilt_features_same=maybe(F64), rebuilt_lists_same=maybe(F64),
    promised=maybe(F64),
    realised=maybe(F64), realised_low=maybe(F64), realised_high=maybe(F64),
)  # fmt: skip
table(
    "replay_features", "replay",
    "one row per feature, served beside published; shares are of the places where it was either",
    "feature", feature=S, known=I64, differs=F64, missing=F64, constant=maybe(F64),
    constant_share=F64, ratio=maybe(F64), ratio_share=F64, way=maybe(S),
)  # fmt: skip
table(
    "rebuilt_features", "replay",
    "one row per feature: the share of the rows that a night published for some people which its "
    "own tables give again; of what people did they hold only what was received before the "
    "night, so that equal is known by then",
    "feature", feature=S, night=S, rows=I64, same=F64,
)  # fmt: skip
_symptoms("replay")
table(
    "adoption", "adoption",
    "one row per surface, period and measure of what the page made of the answers, and per reason "
    "that it gave", "surface period measure",
    surface=S, period=S, measure=S, requests=I64, share=F64, low=F64, high=F64,
)  # fmt: skip
_symptoms("adoption")
table(
    "shadow_candidates", "shadow",
    "one row per candidate that was held beside what served in the last weeks; bought_until: the "
    "night that says what was bought since, build: seconds of steps and gates, warned: the steps "
    "whose gate warned, loses: surfaces on which everybody's lists lose by it; "
    "decision: promote, reject or open, and unreadable of a file that is no comparison",
    "candidate",
    candidate=S, live=S, compared_at=TIME, parameters=S, build_live=maybe(F64),
    build_candidate=maybe(F64), warned_live=maybe(S), warned_candidate=maybe(S),
    bought_until=maybe(TIME), loses=I64, serves=BOOL, decision=S, reason=maybe(S),
    decided_by=maybe(S),
)  # fmt: skip
table(
    "shadow_lists", "shadow",
    "one row per candidate, surface and group of people: how alike its lists are to those that "
    "served, of everybody alone, and the NDCG gained by what was bought since",
    "candidate surface group_kind group",
    candidate=S, surface=S, group_kind=S, group=S, people=I64, overlap=maybe(F64),
    rank_biased_overlap=maybe(F64), rank_correlation=maybe(F64), buyers=I64, gain=maybe(F64),
    low=maybe(F64), high=maybe(F64), verdict=S,
)  # fmt: skip
table(
    "shadow_sources", "shadow",
    "one row per candidate, surface and source: the share of the first places that it named",
    "candidate surface source", candidate=S, surface=S, source=S, share_live=F64,
    share_candidate=F64,
)  # fmt: skip
table(
    "verdict_symptoms", "verdict",
    "one row per symptom of any step, in the order of the gates and then of severity; place 1 is "
    "what to look at first",
    "place", place=I64, step=S, **{f.name: (f.type,) if f.nullable else f.type for f in SYMPTOM},
)  # fmt: skip
table(
    "verdict_gates", "verdict",
    "one row per gate of the verdict, in their order; go: nothing of it is wrong; classified: what "
    "to mend, on the first gate that is not go", "gate",
    gate=S, place=I32, go=BOOL, symptoms=I64, warnings=I64, evidence=S, classified=maybe(S),
    action=maybe(S),
)  # fmt: skip
table(
    "evaluation_ledger", "verdict",
    "one row per release that served, as of the diagnosis that saw most of it: what was promised, "
    "measured and came of it; symptoms: by gate, warnings left out; drift, calibration_error, "
    "baseline, off_policy and experiments: what that diagnosis found, shadow: what became of the "
    "release as a candidate, which of one that serves nobody is all there is, of 0 requests; null "
    "in rows that were written before a column was", "release_id",
    release_id=S, night=maybe(S), judged_at=TIME, requests=I64, promised=maybe(F64),
    realised=maybe(F64), realised_low=maybe(F64), realised_high=maybe(F64),
    conversion=maybe(F64), value_per_request=maybe(F64), features_same=maybe(F64),
    hash_same=maybe(F64), score_same=maybe(F64), order_same=maybe(F64),
    rebuilt_features_same=maybe(F64), symptoms=maybe(S), drift=maybe(S),
    calibration_error=maybe(F64), baseline=maybe(S),
    off_policy=maybe(S), experiments=maybe(S), shadow=maybe(S), verdict=S, first=maybe(S),
)  # fmt: skip
table(
    "feature_parity", "parity",
    "one row per feature and pair of the sides training, backtest (the newest cut, at which lists "
    "were judged), night and served, the first named left; psi and ks tell how the sides differ, "
    "which selection alone makes them; finding: what selection does not do",
    "feature pair",
    feature=S, pair=S, rows_left=I64, rows_right=I64, missing_left=F64, missing_right=F64,
    constant_left=maybe(F64), constant_share_left=F64, constant_right=maybe(F64),
    constant_share_right=F64, psi=maybe(F64), ks=maybe(F64), scale_ratio=maybe(F64),
    auc_left=maybe(F64), auc_right=maybe(F64), finding=maybe(S),
)  # fmt: skip
table(
    "category_parity", "parity",
    "one row per category by its broadest step, and per path that was renamed; shares: of rows "
    "served; then: in the catalogue of the newest night that served", "level category",
    level=S, category=S, share_reference=maybe(F64), share_current=maybe(F64),
    catalogue_then=maybe(BOOL), catalogue_now=BOOL, renamed_to=maybe(S), items_moved=I64,
    finding=maybe(S),
)  # fmt: skip
_symptoms("parity")
table(
    "feature_drift", "drift",
    "one row per input, current against reference; shift: of means, in pooled standard deviations, "
    "null for a category; seasonal: moved, but to where it was a year ago", "feature",
    feature=S, rows_before=I64, rows_after=I64, missing_before=F64, missing_after=F64,
    psi=maybe(F64), ks=maybe(F64), p_value=F64, q_value=F64, shift=maybe(F64),
    psi_last_year=maybe(F64), auc_before=maybe(F64), auc_after=maybe(F64), drifted=BOOL,
    seasonal=BOOL, typed=maybe(S),
)  # fmt: skip
table(
    "outcome_drift", "drift",
    "one row per measure of outcomes and slice, current against reference; low, high: of change",
    "measure slice_kind slice",
    measure=S, slice_kind=S, slice=S, before=maybe(F64), after=maybe(F64), change=maybe(F64),
    low=maybe(F64), high=maybe(F64), p_value=maybe(F64), limit=maybe(F64), rows_before=I64,
    rows_after=I64, moved=BOOL,
)  # fmt: skip
_symptoms("drift")
table(
    "leakage_probes", "leakage",
    "one row per probe and feature, or night; shines: beyond the limit, and clearly so",
    "probe feature",
    probe=S, feature=S, value=F64, low=maybe(F64), high=maybe(F64), limit=F64, rows=I64,
    shines=BOOL,
)  # fmt: skip
table(
    "exposure_bias", "leakage",
    "one row per measure of what the log could see, and place of the list; place 0: all",
    "measure place",
    measure=S, place=I32, rows=I64, value=F64, low=maybe(F64), high=maybe(F64),
)  # fmt: skip
_symptoms("leakage")
table(
    "kpis", "kpis",
    "one row per measure of a group (the whole, a surface, an arm, personal or fallback answers), "
    "segment and period; visits: what it rests on",
    "group_kind group segment_kind segment period measure",
    group_kind=S, group=S, segment_kind=S, segment=S, period=S, measure=S, value=F64,
    low=maybe(F64), high=maybe(F64), visits=I64,
)  # fmt: skip
table(
    "baseline_verdicts", "kpis",
    "one row for the whole and per segment: the agreed KPI of visits with the model's answers "
    "alone, and with the baseline's alone, in the current period; low, high: of gain, 95 %",
    "segment_kind segment",
    segment_kind=S, segment=S, measure=S, model=maybe(F64), baseline=maybe(F64), gain=maybe(F64),
    low=maybe(F64), high=maybe(F64), visits_model=I64, visits_baseline=I64, verdict=S, sentence=S,
)  # fmt: skip
_symptoms("kpis")
table(
    "experiment_checks", "experiments",
    "one row per check of an experiment: value beside its limit, and what it means",
    "experiment check",
    experiment=S, check=S, value=F64, limit=F64, passed=BOOL, sentence=S,
)  # fmt: skip
table(
    "experiment_results", "experiments",
    "one row per arm, measure and segment of an experiment, against its control; low and high: "
    "95 %, valid on the planned day alone; always_low and always_high: valid on every day; of "
    "everybody's money where there are several arms both hold over the arms together "
    "(Bonferroni); p_value: of whichever is valid today; q_value: of it among all of its kind: "
    "over arms (Holm), by segment and secondary (Benjamini-Hochberg)",
    "experiment arm measure segment_kind segment",
    experiment=S, arm=S, measure=S, segment_kind=S, segment=S, visits=I64, visitors=I64,
    mean_control=F64, mean_arm=F64, difference=F64, low=maybe(F64), high=maybe(F64),
    always_low=maybe(F64), always_high=maybe(F64), p_value=maybe(F64), q_value=maybe(F64),
    method=S, verdict=S,
)  # fmt: skip
_symptoms("experiments")
table(
    "policy_values", "off_policy",
    "one row per surface, policy and estimator: what the policy would bring a request, and how "
    "much the log says of it; logged_value: what was shown on the same rows brought; reason: why "
    "the evidence is insufficient",
    "surface policy estimator",
    surface=S, policy=S, estimator=S, reward=S, value=maybe(F64), low=maybe(F64),
    high=maybe(F64), logged_value=maybe(F64), requests=I64, rows=I64, effective_sample_size=F64,
    effective_rewards=F64, largest_weight=F64, weight_tail=F64, overlap=F64, mean_weight=F64,
    verdict=S, reason=maybe(S),
)  # fmt: skip
table(
    "model_gains", "off_policy",
    "one row per surface: what a request would bring in the model's order and in that by "
    "popularity, of the same candidates; low, high: of gain, 95 %",
    "surface",
    surface=S, reward=S, model=maybe(F64), popularity=maybe(F64), gain=maybe(F64), low=maybe(F64),
    high=maybe(F64), verdict=S, sentence=S,
)  # fmt: skip
table(
    "policy_rows", "off_policy",
    "one row per surface and outcome of a mature row of the current period: whether other policies "
    "can be judged by it", "surface outcome", surface=S, outcome=S, rows=I64, share=F64,
)  # fmt: skip
_symptoms("off_policy")
table(
    "label_delays", "labels",
    "one row per population, part of it and period: hours until arrival, from events that have not "
    "yet arrived too; feed: events that answer no request, outcome: purchases that do; "
    "maturity_days: until 99 % have arrived, of outcomes counted from the request",
    "population segment_kind segment period",
    population=S, segment_kind=S, segment=S, period=S, rows=I64, median_hours=F64, p90=F64,
    p95=F64, p99=F64, maturity_days=F64,
)  # fmt: skip
table(
    "label_checks", "labels", "one row per check of what labels mean in a part of the shop",
    "check subject",
    check=S, subject=S, before=maybe(F64), after=maybe(F64), low=maybe(F64), high=maybe(F64),
    passed=BOOL, sentence=S,
)  # fmt: skip
_symptoms("labels")
table(
    "calibration_slices", "decisioning",
    "one row per slice and bin of the score, -1 for all: the mean score and the share of outcomes "
    "of mature places that were shown; before: that of the reference; error: their distance, in "
    "the row of all bins its mean (expected calibration error)",
    "slice_kind slice bin",
    slice_kind=S, slice=S, bin=I32, rows=I64, predicted=F64, observed=F64, low=F64, high=F64,
    before=maybe(F64), error=F64,
)  # fmt: skip
table(
    "threshold_costs", "decisioning",
    "one row per threshold: what showing all from it on brings and costs; is_used: the least score "
    "that the log shows; extrapolated: below it, by the probability and not by outcomes",
    "threshold",
    threshold=F64, shown=I64, hits=F64, value=F64, cost=F64, net=F64, low=F64, high=F64,
    is_set=BOOL, is_used=BOOL, is_best=BOOL, extrapolated=BOOL,
)  # fmt: skip
_symptoms("decisioning")
table(
    "slice_losses", "slices",
    "one row per slice by one or two columns: measure per visit or place before and after, its "
    "contribution to the change of the whole (mix and rate), the change of its outcomes over the "
    "rest's; rank: from 1 of the five that lose most, else 0",
    "kinds slice",
    kinds=S, slice=S, measure=S, rows=I64, before=F64, after=F64, mix=F64, rate=F64,
    contribution=F64, share=F64, ratio=maybe(F64), p_value=maybe(F64), q_value=maybe(F64),
    rank=I32,
)  # fmt: skip
table(
    "counterexamples", "slices",
    "one row per place where the release was most wrong, with its features as served; case: "
    "request and place; observed: 1 for an outcome, else 0; top_features: the three that add most "
    "to the score, or take most, by the model that gave it, in log odds, or in the blend's own "
    "unit; null where that model is gone",
    "release_id case",
    release_id=S, case=S, surface=S, position=I32, item_id=S, category=S, predicted=F64,
    observed=I32, why=S, top_features=maybe(S), **{name: maybe(F32) for name in FEATURES},
)  # fmt: skip
table(
    "counterexample_checks", "slices",
    "one row per earlier counterexample, scored again by the newest release; place: the share of "
    "recent places that it scores lower; wrong_before: by the release that was asked before it, "
    "null where that was not asked; regressed: right by that one, and wrong now",
    "release_id case",
    release_id=S, case=S, found=TIME, checked_release=S, predicted=F64, observed=I32,
    new_score=F64, place=F64, still_wrong=BOOL, wrong_before=maybe(BOOL), regressed=BOOL,
)  # fmt: skip
table(
    "default_drivers", "slices",
    "one row per feature: its most frequent value as served, and how far the score hangs on it",
    "feature",
    feature=S, value=F64, rows=I64, share=F64, share_before=maybe(F64), correlation=F64,
    correlation_before=maybe(F64), suspicious=BOOL, sentence=S,
)  # fmt: skip
_symptoms("slices")
