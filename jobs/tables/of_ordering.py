"""What scores and orders, and what is published."""

from __future__ import annotations

import pyarrow as pa

from jobs.tables.form import BOOL, F32, F64, FEATURES, I32, I64, STRINGS, TIME, S, Tables, maybe

TABLES = Tables()
table = TABLES.declare

# --- scoring and ordering --------------------------------------------------------------------
table(
    "examples", "examples",
    "one row per candidate of a person at an earlier cut, its features as of the cut; trained: "
    "bought, or of the share of the rest that is learned from; the newest cut has all others too",
    "person_id item_id as_of",
    person_id=S, item_id=S, as_of=TIME, trained=BOOL, bought=BOOL, label=F64, weight=F64,
    **{name: maybe(F32) for name in FEATURES},
)  # fmt: skip
table(
    "example_people", "examples",
    "one row per person asked at a cut; wanted: items bought after it, wanted_new: the first time; "
    "events: behind the person's interactions at the cut",
    "person_id as_of", person_id=S, as_of=TIME, wanted=I64, wanted_new=I64, region=maybe(S),
    segment=maybe(S), first_seen=maybe(TIME), events=I64,
)  # fmt: skip
table(
    "ranker_models", "ranker",
    "one row per member of the ranker, in XGBoost's JSON, or where a network ranks one in its own, "
    "with trees 1; none where the blend ranks", "member",
    member=I32, trees=I32, model=S,
)  # fmt: skip
table(
    "blend_weights", "ranker", "one row per candidate source", "source",
    source=S, weight=F64,
)  # fmt: skip
table(
    "ranking_evidence", "ranker",
    "one row per ranking, learned before the newest cut and judged on the days after it", "ranking",
    ranking=S, published=BOOL, people=I64, ndcg_at_10=F64, ndcg_low=F64, ndcg_high=F64,
    recall_at_20=F64, new_ndcg_at_10=F64, difference_low=F64,
)  # fmt: skip
table(
    "slice_evidence", "ranker",
    "one row per ranking and kind of people, judged as in ranking_evidence",
    "ranking slice_kind slice", ranking=S, slice_kind=S, slice=S, people=I64, ndcg_at_10=F64,
    ndcg_low=F64, ndcg_high=F64,
)  # fmt: skip
table(
    "calibration", "ranker",
    "one row per knot of the published ranking's score, rising; logit: of the share that bought",
    "score", score=F64, logit=F64, rows=F64,
)  # fmt: skip
table(
    "reliability", "ranker",
    "one row per tenth of the judged candidates by probability; off: bought over predicted, less "
    "1, and 0 where too few purchases were foretold to tell", "bin",
    bin=I32, rows=I64, predicted=F64, bought=F64, bought_low=F64, bought_high=F64, off=F64,
)  # fmt: skip
table(
    "feature_importance", "ranker",
    "one row per feature: its share of the trees' gain, or of what a network's log loss rises by "
    "where the feature's values are dealt anew", "feature",
    feature=S, gain=F64,
)  # fmt: skip
table(
    "recommendations", "recommendations", "one row per place of a person's list",
    "surface person_id rank", surface=S, person_id=S, rank=I32, item_id=S, score=F64,
    propensity=F64, placed_by=S, rule_id=maybe(S), model_rank=maybe(I32), sources=STRINGS,
    provenance=pa.list_(pa.struct([
        ("source", S), ("rank", I32), ("score", F64), ("seed_item", S), ("seed_time", TIME),
    ])),
)  # fmt: skip
table(
    "context_lists", "recommendations",
    "one row per place of a list shared by a context: of a surface made for contexts, and what "
    "stands in on any other where there is no list to give",
    "surface context_kind context rank", surface=S, context_kind=S, context=S, rank=I32, item_id=S,
    score=F64, propensity=F64, placed_by=S, rule_id=maybe(S), model_rank=maybe(I32),
    sources=STRINGS,
)  # fmt: skip
table(
    "model_lists", "recommendations",
    "one row per place of the list that the model alone would have published",
    "surface person_id rank", surface=S, person_id=S, rank=I32, item_id=S, score=F64,
)  # fmt: skip
table(
    "list_work", "recommendations",
    "one row, for persons: of how many every list stands as it was, of how many places were taken "
    "out and filled and no list was made anew, and of how many one was; in a night that is all",
    "", what=S, known=I64, untouched=I64, filled=I64, anew=I64,
)  # fmt: skip
table(
    "overrides", "recommendations",
    "one row per rule in force, ordering stage, and all rules together: the places they changed",
    "surface kind cause", surface=S, kind=S, cause=S, slots=I64, share=F64, value_lost=F64,
    value_share=F64,
)  # fmt: skip
table(
    "explore_shares", "recommendations",
    "one row per source that explore places are drawn from: that the surface takes and that named "
    "something; none where there are none",
    "surface source", surface=S, source=S, impressions=I64, conversions=I64, posterior_mean=F64,
    share=F64,
)  # fmt: skip
table(
    "features", "recommendations",
    "one row per scored (person, item) that was listed, as of the night",
    "person_id item_id", person_id=S, item_id=S, event_timestamp=TIME, feature_version=S,
    feature_hash=S, **{name: maybe(F32) for name in FEATURES},
)  # fmt: skip
table(
    "delivery", "recommendations", "one row per source: the quota meant and the share delivered",
    "surface source", surface=S, source=S, intended=F64, delivered=F64, slots=I64,
)  # fmt: skip
table(
    "shortfalls", "recommendations", "one row per way a list was topped up or stayed short",
    "surface reason", surface=S, reason=S, persons=I64, slots=I64,
)  # fmt: skip
table(
    "item_lists", "item_lists", "one row per place of an item's list", "surface item_id rank",
    surface=S, item_id=S, rank=I32, listed_item_id=S, score=F64,
)  # fmt: skip
