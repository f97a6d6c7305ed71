"""Every table between the steps: its step, grain, key and columns.

A name here is the name everywhere: folder, task, suite and log. Types are Arrow's, since both
Spark and the numeric core read them; a column is nullable only where it says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from jobs.signals import measures

S = pa.string()
I32 = pa.int32()
I64 = pa.int64()
F32 = pa.float32()
F64 = pa.float64()
BOOL = pa.bool_()
DATE = pa.date32()
TIME = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(S)
VECTOR = pa.list_(pa.float32())
TEXTS = pa.map_(S, S)


# What a person can do with an item; the source contract has no other.
EVENT_TYPES = (
    "view", "click", "add_to_cart", "purchase", "remove_from_cart", "return", "reject",
)  # fmt: skip

# Joins the steps of a category's path, from the broadest.
BELOW = " > "

# Every source of candidates, in the order in which ties between them are broken.
SOURCES = (
    "buy_again", "considered", "collaborative", "item_to_item", "bought_together",
    "content_neighbours", "trending", "popular", "new_arrivals", "editorial", "two_tower",
)  # fmt: skip

# What a (person, item) is scored by, in the order in which its values are hashed.
FEATURES = (*measures.MEASURES, *(f"{source}_signal" for source in SOURCES))


@dataclass(frozen=True)
class Table:
    """One table: what a row is, which columns name it, and its columns in order."""

    name: str
    step: str
    grain: str
    key: tuple[str, ...]
    schema: pa.Schema


TABLES: dict[str, Table] = {}


def _table(name: str, step: str, grain: str, key: str, /, **columns: pa.DataType | tuple) -> None:
    fields = [
        pa.field(column, kind[0], nullable=True)
        if isinstance(kind, tuple)
        else pa.field(column, kind, nullable=False)
        for column, kind in columns.items()
    ]
    TABLES[name] = Table(name, step, grain, tuple(key.split()), pa.schema(fields))


def _maybe(kind: pa.DataType) -> tuple[pa.DataType]:
    """A nullable column of this type."""
    return (kind,)


# --- sources ---------------------------------------------------------------------------------
_table(
    "source_tables", "source", "one row per table of the source contract", "table",
    table=S, present=BOOL, rows=I64, files=I32, bytes=I64, digest=S,
)  # fmt: skip

# --- signals ---------------------------------------------------------------------------------
_table(
    "events", "events", "one row per event received before as_of, its newest revision", "event_id",
    event_id=S, revision=I32, event_time=TIME, received_time=TIME, first_received=TIME,
    key_type=S, key=S, session_id=_maybe(S), event_type=S, item_id=S, quantity=F64,
    value=_maybe(F64), channel=_maybe(S), region=_maybe(S), campaign=_maybe(S),
    request_id=_maybe(S), event_date=DATE,
)  # fmt: skip
_table(
    "events_rejected", "events", "one row per quarantined row of the source, as it was", "",
    event_id=_maybe(S), revision=I32, event_time=_maybe(TIME), received_time=_maybe(TIME),
    key_type=_maybe(S), key=_maybe(S), event_type=_maybe(S), item_id=_maybe(S),
    quantity=_maybe(F64), value=_maybe(F64), reason=S,
)  # fmt: skip
_table(
    "events_counts", "events", "one row per outcome of a source row", "outcome",
    outcome=S, rows=I64, share=F64,
)  # fmt: skip
_table(
    "events_volume", "events", "one row: the newest day against the same weekday before", "",
    day=DATE, weekday=I32, rows=I64, history_days=I32, history_median=F64, ratio=F64,
)  # fmt: skip
_table(
    "items", "catalogue", "one row per item of the catalogue or of any event, as of the night",
    "item_id", item_id=S, position=I64, title=_maybe(S), category=_maybe(S), brand=_maybe(S),
    seller=_maybe(S), price=_maybe(F64), margin=_maybe(F64), created_time=_maybe(TIME),
    first_seen=_maybe(TIME), available=BOOL, regions=_maybe(STRINGS), flags=STRINGS,
    attributes=_maybe(TEXTS),
)  # fmt: skip
_table(
    "editorial", "catalogue", "one row per place of a curated list in force", "list_id position",
    list_id=S, surface=_maybe(S), position=I32, item_id=S,
)  # fmt: skip
_table(
    "rules_in_force", "catalogue",
    "one row per business rule and what became of it; items: how many it is about", "rule_id",
    rule_id=S, kind=S, scope=S, scope_kind=_maybe(S), surface=_maybe(S), region=_maybe(S),
    starts=_maybe(TIME), ends=_maybe(TIME), strength=_maybe(F64), reason=S, outcome=S, items=I64,
    unjudged=I64,
)  # fmt: skip
_table(
    "identities", "identities", "one row per key", "key_type key",
    key_type=S, key=S, person_id=S, household_id=S, component=S, first_seen=_maybe(TIME),
)  # fmt: skip
_table(
    "persons", "identities", "one row per person", "person_id",
    person_id=S, household_id=S, region=_maybe(S), segment=_maybe(S), personalised=BOOL,
    restrictions=STRINGS, keys=I32, first_seen=_maybe(TIME), last_seen=_maybe(TIME),
)  # fmt: skip
_table(
    "identity_links", "identities",
    "one row per unordered pair of keys and link source, its state at as_of",
    "key_type_a key_a key_type_b key_b source",
    key_type_a=S, key_a=S, key_type_b=S, key_b=S, source=S, confidence=_maybe(F64),
    observed_time=_maybe(TIME), known_time=TIME, outcome=S, detail=_maybe(S),
)  # fmt: skip
_table(
    "identity_changes", "identities", "one row per merge or split of persons", "",
    kind=S, from_person=S, to_person=S, changed_at=TIME, key_type_a=_maybe(S), key_a=_maybe(S),
    key_type_b=_maybe(S), key_b=_maybe(S), link_source=_maybe(S), cause=S, as_of=TIME,
)  # fmt: skip
_table(
    "identity_counts", "identities", "one row per kind of link and what became of it", "outcome",
    outcome=S, rows=I64,
)  # fmt: skip
_table(
    "history", "sessions",
    "one row per event of a person; resolved_by: key, or login (an anonymous event that a login in "
    "its session gave to the person)", "event_id",
    event_id=S, person_id=S, item_id=S, event_type=S, event_time=TIME, received_time=TIME,
    session=S, basket=S, quantity=F64, value=_maybe(F64), region=_maybe(S), channel=_maybe(S),
    event_date=DATE, resolved_by=S, key_type=S, key=S,
)  # fmt: skip
_table(
    "sessions", "sessions", "one row per session of a person", "session",
    session=S, person_id=S, started=TIME, ended=TIME, events=I64, items=I64, keys=I64,
    channels=STRINGS, purchases=I64, value=F64, by_login=I64,
)  # fmt: skip
_table(
    "interactions", "interactions", "one row per (person, item) with positive net intent",
    "person_id item_id", person_id=S, item_id=S, weight=F64, purchases=F64, events=I64,
    first_time=TIME, last_time=TIME,
)  # fmt: skip

# --- audits ----------------------------------------------------------------------------------
_table(
    "signal_freshness", "audits",
    "one row per measure of how old signals are, and the drift window", "measure population",
    measure=S, population=S, people=I64, median=F64, p95=F64, limit=_maybe(F64), unit=S,
    gated=BOOL,
)  # fmt: skip
_table(
    "feed_freshness", "audits", "one row per feed; source: the type of its keys",
    "event_type source channel",
    event_type=S, source=S, channel=S, events=I64, recent=I64, newest_event=TIME, age_hours=F64,
    usual_gap_hours=_maybe(F64), lag_median_hours=F64, lag_p95_hours=F64, limit_hours=F64,
    late=BOOL, reason=_maybe(S),
)  # fmt: skip
_table(
    "identity_coverage", "audits",
    "one row per population, stage and reason why keys of one human being are apart",
    "population stage by", population=S, stage=S, total=F64, split=F64, share=F64, by=S,
)  # fmt: skip
_table(
    "promises", "audits", "one row per earlier release, ranking and slice of people",
    "released ranking slice_kind slice",
    released=TIME, ranking=S, slice_kind=S, slice=S, horizon_days=F64, people=I64,
    promised=_maybe(F64), promised_low=_maybe(F64), promised_high=_maybe(F64), realised=F64,
    realised_low=F64, realised_high=F64, gap=_maybe(F64), gap_low=_maybe(F64),
    gap_high=_maybe(F64), final=BOOL, flag=_maybe(S),
)  # fmt: skip
_table(
    "conversion_windows", "audits",
    "one row per category that people bought from after a signal; one of '' where nobody did",
    "category", category=S, conversions=I64, window_median_hours=_maybe(F64),
    window_p25_hours=_maybe(F64), window_p75_hours=_maybe(F64), serving_median_hours=F64,
    decided_before=F64, revenue_share=F64, late=BOOL,
)  # fmt: skip

# --- retrieval -------------------------------------------------------------------------------
_table(
    "item_factors", "embeddings", "one row per item with interactions", "item_id",
    item_id=S, vector=VECTOR,
)  # fmt: skip
_table(
    "person_factors", "embeddings", "one row per person with interactions", "person_id",
    person_id=S, vector=VECTOR,
)  # fmt: skip
_table(
    "embedding_report", "embeddings", "one row per measure of the fit", "measure",
    measure=S, value=F64,
)  # fmt: skip
_table(
    "content_vectors", "content_embeddings", "one row per item of the catalogue", "item_id",
    item_id=S, vector=VECTOR,
)  # fmt: skip
_table(
    "item_vectors", "index", "one row per indexed item; origin: collaborative or content",
    "item_id", item_id=S, position=I64, vector=VECTOR, origin=S,
)  # fmt: skip
_table(
    "index_recall", "index", "one row per stratum of held queries", "kind stratum",
    kind=S, stratum=S, queries=I32, recall=F64,
)  # fmt: skip
_table(
    "candidates", "candidates", "one row per (person, item, source)", "person_id item_id source",
    person_id=S, item_id=S, source=S, rank=I32, score=F64, seed_item=_maybe(S),
    seed_time=_maybe(TIME),
)  # fmt: skip
_table(
    "pools", "candidates",
    "one row per place in a list shared by all (context ''), a region, a segment, or requests that "
    "say a category, a channel or a quarter of the day",
    "source context_kind context rank", source=S, context_kind=S, context=S, rank=I32,
    item_id=S, score=F64,
)  # fmt: skip
_table(
    "candidate_counts", "candidates", "one row per source that is on, whatever it named", "source",
    source=S, persons=I64, rows=I64, items=I64,
)  # fmt: skip
_table(
    "two_tower_items", "candidates",
    "one row per item of the catalogue, chosen or not; none where the two towers are off",
    "item_id", item_id=S, vector=VECTOR,
)  # fmt: skip
_table(
    "two_tower_persons", "candidates",
    "one row per person with interactions; none where the two towers are off", "person_id",
    person_id=S, vector=VECTOR,
)  # fmt: skip
_table(
    "two_tower_weights", "candidates",
    "one row per row of a layer or an embedding of the two towers; key: the text or the item that "
    "an embedding is of", "layer place", layer=S, place=I32, key=_maybe(S), vector=VECTOR,
)  # fmt: skip

# --- filtering -------------------------------------------------------------------------------
_table(
    "eligibility", "filters",
    "one row per rule: a bitmap over index positions, bit i of byte i // 8 (least significant "
    "first) set where the item at position i is allowed",
    "kind value", kind=S, value=S, positions=I64, allowed=I64, bitmap=pa.binary(),
)  # fmt: skip
_table(
    "ineligible_items", "filters", "one row per (item, rule that excludes it)",
    "item_id kind value", item_id=S, kind=S, value=S, reason=S,
)  # fmt: skip
_table(
    "blocked_pairs", "filters", "one row per (person, item, reason)", "person_id item_id reason",
    person_id=S, item_id=S, reason=S, since=TIME, until=_maybe(TIME),
)  # fmt: skip

# --- refreshing ------------------------------------------------------------------------------
_table(
    "intervals", "changes",
    "one row per hour, or part of one, since the night: how many events were received in it; read: "
    "by the refresh of that hour, healed: by a later one; late: those that an earlier refresh of "
    "it had not found", "started",
    started=TIME, ended=TIME, state=S, events=I64, late=I64,
)  # fmt: skip
_table(
    "touched_people", "changes", "one row per person whose lists are made anew, and why",
    "person_id reason", person_id=S, reason=S,
)  # fmt: skip
_table(
    "touched_items", "changes", "one row per item that is not as in the base, and how",
    "item_id reason", item_id=S, reason=S,
)  # fmt: skip
_table(
    "change_counts", "changes",
    "one row for persons and one for items; saved: the share that is not due", "what",
    what=S, known=I64, touched=I64, share=F64, saved=F64,
)  # fmt: skip
_table(
    "ladder", "changes",
    "one row per person and item: its tier by activity, what the refresh does with its lists, and "
    "of when the oldest of these then is", "what id",
    what=S, id=S, tier=S, decision=S, made=TIME,
)  # fmt: skip
_table(
    "ladder_counts", "changes", "one row per tier and decision of persons and of items",
    "what tier decision", what=S, tier=S, decision=S, count=I64,
)  # fmt: skip
_table(
    "surface_digests", "changes",
    "one row per surface: a digest of all that configures its lists, and whether it is the base's",
    "surface", surface=S, grain=S, cadence=S, digest=S, changed=BOOL,
)  # fmt: skip

# --- scoring and ordering --------------------------------------------------------------------
_table(
    "examples", "examples",
    "one row per candidate of a person at an earlier cut, its features as of the cut; trained: "
    "bought, or of the share of the rest that is learned from; the newest cut has all others too",
    "person_id item_id as_of",
    person_id=S, item_id=S, as_of=TIME, trained=BOOL, bought=BOOL, label=F64, weight=F64,
    **{name: _maybe(F32) for name in FEATURES},
)  # fmt: skip
_table(
    "example_people", "examples",
    "one row per person asked at a cut; wanted: items bought after it, wanted_new: the first time",
    "person_id as_of", person_id=S, as_of=TIME, wanted=I64, wanted_new=I64,
)  # fmt: skip
_table(
    "ranker_models", "ranker",
    "one row per member of the ranker, in XGBoost's JSON, or where a network ranks one in its own, "
    "with trees 1; none where the blend ranks", "member",
    member=I32, trees=I32, model=S,
)  # fmt: skip
_table(
    "blend_weights", "ranker", "one row per candidate source", "source",
    source=S, weight=F64,
)  # fmt: skip
_table(
    "ranking_evidence", "ranker",
    "one row per ranking, learned before the newest cut and judged on the days after it", "ranking",
    ranking=S, published=BOOL, people=I64, ndcg_at_10=F64, ndcg_low=F64, ndcg_high=F64,
    recall_at_20=F64, new_ndcg_at_10=F64, difference_low=F64,
)  # fmt: skip
_table(
    "calibration", "ranker",
    "one row per knot of the published ranking's score, rising; logit: of the share that bought",
    "score", score=F64, logit=F64, rows=F64,
)  # fmt: skip
_table(
    "reliability", "ranker",
    "one row per tenth of the judged candidates by probability; off: bought over predicted, less "
    "1, and 0 where too few purchases were foretold to tell", "bin",
    bin=I32, rows=I64, predicted=F64, bought=F64, bought_low=F64, bought_high=F64, off=F64,
)  # fmt: skip
_table(
    "feature_importance", "ranker",
    "one row per feature: its share of the trees' gain, or of what a network's log loss rises by "
    "where the feature's values are dealt anew", "feature",
    feature=S, gain=F64,
)  # fmt: skip
_table(
    "recommendations", "recommendations", "one row per place of a person's list",
    "surface person_id rank", surface=S, person_id=S, rank=I32, item_id=S, score=F64,
    propensity=F64, placed_by=S, rule_id=_maybe(S), model_rank=_maybe(I32), sources=STRINGS,
    provenance=pa.list_(pa.struct([
        ("source", S), ("rank", I32), ("score", F64), ("seed_item", S), ("seed_time", TIME),
    ])),
)  # fmt: skip
_table(
    "context_lists", "recommendations",
    "one row per place of a list shared by a context: of a surface made for contexts, and what "
    "stands in on any other where there is no list to give",
    "surface context_kind context rank", surface=S, context_kind=S, context=S, rank=I32, item_id=S,
    score=F64, propensity=F64, placed_by=S, rule_id=_maybe(S), model_rank=_maybe(I32),
    sources=STRINGS,
)  # fmt: skip
_table(
    "model_lists", "recommendations",
    "one row per place of the list that the model alone would have published",
    "surface person_id rank", surface=S, person_id=S, rank=I32, item_id=S, score=F64,
)  # fmt: skip
_table(
    "overrides", "recommendations",
    "one row per rule in force, ordering stage, and all rules together: the places they changed",
    "surface kind cause", surface=S, kind=S, cause=S, slots=I64, share=F64, value_lost=F64,
    value_share=F64,
)  # fmt: skip
_table(
    "explore_shares", "recommendations",
    "one row per source that explore places are drawn from; none where there are none",
    "surface source", surface=S, source=S, impressions=I64, conversions=I64, posterior_mean=F64,
    share=F64,
)  # fmt: skip
_table(
    "features", "recommendations",
    "one row per scored (person, item) that was listed, as of the night",
    "person_id item_id", person_id=S, item_id=S, event_timestamp=TIME, feature_version=S,
    feature_hash=S, **{name: _maybe(F32) for name in FEATURES},
)  # fmt: skip
_table(
    "delivery", "recommendations", "one row per source: the quota meant and the share delivered",
    "surface source", surface=S, source=S, intended=F64, delivered=F64, slots=I64,
)  # fmt: skip
_table(
    "shortfalls", "recommendations", "one row per way a list was topped up or stayed short",
    "surface reason", surface=S, reason=S, persons=I64, slots=I64,
)  # fmt: skip
_table(
    "item_lists", "item_lists", "one row per place of an item's list", "surface item_id rank",
    surface=S, item_id=S, rank=I32, listed_item_id=S, score=F64,
)  # fmt: skip

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


_table(
    "definitions", "definitions",
    "one row per definition of the metrics file, and per fault of it", "name",
    name=S, value=S, fault=_maybe(S),
)  # fmt: skip
_table(
    "log_counts", "served",
    "one row per period and outcome of a row of the log, of an answer to it, or of who asked; the "
    "share is of rows of its kind in the period",
    "period outcome", period=S, outcome=S, rows=I64, share=F64,
)  # fmt: skip
_table(
    "served", "served",
    "one row per place of a logged answer; period: current, reference or last_year; mature: its "
    "outcomes have had their time; value: money of what was bought, less what came back; "
    "published: the lake published this release, whether it still has it; night: the run date "
    "under which its very tables lie",
    "request_id position",
    request_id=S, request_time=TIME, day=DATE, period=S, mature=BOOL, surface=S,
    visitor=S, person_id=_maybe(S), key_type=S, key=S, region=S, segment=S, tenure=S,
    position=I32, item_id=S, category=S, release_id=S, published=BOOL, night=_maybe(S),
    propensity=_maybe(F64), score=_maybe(F64), shown_position=_maybe(I32),
    override_reason=_maybe(S), fallback=_maybe(S),
    experiment=_maybe(S), arm=_maybe(S), latency_ms=_maybe(F64), feature_version=_maybe(S),
    feature_hash=_maybe(S), clicked=BOOL, bought=BOOL, value=F64, returned=BOOL,
    bought_time=_maybe(TIME), bought_received=_maybe(TIME), channel=S,
)  # fmt: skip
_table(
    "visits", "served",
    "one row per visitor, day and experiment ('' for none): all requests of a day and what was "
    "bought on it, whether from a list or not; before_value: money spent in the days before the "
    "experiment began, without one before the reference; returning: had bought before this day; "
    "arm: '' without an experiment, 'several' where the log has more than one",
    "visitor day experiment",
    visitor=S, day=DATE, period=S, experiment=S, arm=S, key_type=S, region=S, segment=S, tenure=S,
    requests=I64, clicks=I64, orders=I64, revenue=F64, attributed=F64, before_value=F64,
    returning=BOOL,
)  # fmt: skip
_table(
    "served_features", "served",
    "one row per place of a sample of requests whose features were logged, as they were served; "
    "revenue: the money that `served` calls value; weight: how many places one stands for",
    "request_id position",
    request_id=S, position=I32, day=DATE, period=S, mature=BOOL, surface=S, region=S, segment=S,
    tenure=S, key_type=S, category=S, person_id=_maybe(S), item_id=S, release_id=S,
    night=_maybe(S), score=_maybe(F64), latency_ms=_maybe(F64), feature_version=_maybe(S),
    feature_hash=_maybe(S), clicked=BOOL, bought=BOOL, revenue=F64, weight=F64,
    **{name: _maybe(F32) for name in FEATURES},
)  # fmt: skip
_symptoms("served")
_table(
    "replayed", "replay",
    "one row per night, or refresh, that served in the current period: what was served beside what "
    "was published, and beside what is made again of it",
    "night",
    night=S, requests=I64, places=I64, compared=I64, unpublished=I64, features_same=_maybe(F64),
    hash_same=_maybe(F64), score_same=_maybe(F64), order_same=_maybe(F64), rebuilt_people=I64,
    rebuilt_features_same=_maybe(F64), rebuilt_lists_same=_maybe(F64), promised=_maybe(F64),
    realised=_maybe(F64), realised_low=_maybe(F64), realised_high=_maybe(F64),
)  # fmt: skip
_table(
    "replay_features", "replay",
    "one row per feature, served beside published; shares are of the places where it was either",
    "feature", feature=S, known=I64, differs=F64, missing=F64, constant=_maybe(F64),
    constant_share=F64, ratio=_maybe(F64), ratio_share=F64, way=_maybe(S),
)  # fmt: skip
_symptoms("replay")
_table(
    "adoption", "adoption",
    "one row per surface, period and measure of what the page made of the answers, and per reason "
    "that it gave", "surface period measure",
    surface=S, period=S, measure=S, requests=I64, share=F64, low=F64, high=F64,
)  # fmt: skip
_symptoms("adoption")
_table(
    "shadow_candidates", "shadow",
    "one row per candidate that was held beside what served in the last weeks; bought_until: the "
    "night that says what was bought since, loses: surfaces on which everybody's lists lose by it; "
    "decision: promote, reject or open, and unreadable of a file that is no comparison",
    "candidate",
    candidate=S, live=S, compared_at=TIME, parameters=S, red_gates=I64, lag_live=_maybe(F64),
    lag_candidate=_maybe(F64), bought_until=_maybe(TIME), loses=I64, serves=BOOL, decision=S,
    reason=_maybe(S), decided_by=_maybe(S),
)  # fmt: skip
_table(
    "shadow_lists", "shadow",
    "one row per candidate, surface and group of people: how alike its lists are to those that "
    "served, of everybody alone, and the NDCG gained by what was bought since",
    "candidate surface group_kind group",
    candidate=S, surface=S, group_kind=S, group=S, people=I64, overlap=_maybe(F64),
    rank_biased_overlap=_maybe(F64), buyers=I64, gain=_maybe(F64), low=_maybe(F64),
    high=_maybe(F64), verdict=S,
)  # fmt: skip
_table(
    "shadow_sources", "shadow",
    "one row per candidate, surface and source: the share of the first places that it named",
    "candidate surface source", candidate=S, surface=S, source=S, share_live=F64,
    share_candidate=F64,
)  # fmt: skip
_table(
    "verdict_symptoms", "verdict",
    "one row per symptom of any step, in the order of the gates and then of severity; place 1 is "
    "what to look at first",
    "place", place=I64, step=S, **{f.name: (f.type,) if f.nullable else f.type for f in SYMPTOM},
)  # fmt: skip
_table(
    "verdict_gates", "verdict",
    "one row per gate of the verdict, in their order; go: nothing of it is wrong; classified: what "
    "to mend, on the first gate that is not go", "gate",
    gate=S, place=I32, go=BOOL, symptoms=I64, warnings=I64, evidence=S, classified=_maybe(S),
    action=_maybe(S),
)  # fmt: skip
_table(
    "evaluation_ledger", "verdict",
    "one row per release that served, as of the diagnosis that saw most of it: what was promised, "
    "measured and came of it", "release_id",
    release_id=S, night=_maybe(S), judged_at=TIME, requests=I64, promised=_maybe(F64),
    realised=_maybe(F64), realised_low=_maybe(F64), realised_high=_maybe(F64),
    conversion=_maybe(F64), value_per_request=_maybe(F64), features_same=_maybe(F64),
    order_same=_maybe(F64), verdict=S, first=_maybe(S),
)  # fmt: skip
_table(
    "feature_parity", "parity",
    "one row per feature and pair of sides, the first named left; psi and ks tell how the sides "
    "differ, which selection alone makes them; finding: what selection does not do",
    "feature pair",
    feature=S, pair=S, rows_left=I64, rows_right=I64, missing_left=F64, missing_right=F64,
    constant_left=_maybe(F64), constant_share_left=F64, constant_right=_maybe(F64),
    constant_share_right=F64, psi=_maybe(F64), ks=_maybe(F64), scale_ratio=_maybe(F64),
    auc_left=_maybe(F64), auc_right=_maybe(F64), finding=_maybe(S),
)  # fmt: skip
_table(
    "category_parity", "parity",
    "one row per category by its broadest step, and per path that was renamed; shares: of rows "
    "served; then: in the catalogue of the newest night that served", "level category",
    level=S, category=S, share_reference=_maybe(F64), share_current=_maybe(F64),
    catalogue_then=_maybe(BOOL), catalogue_now=BOOL, renamed_to=_maybe(S), items_moved=I64,
    finding=_maybe(S),
)  # fmt: skip
_symptoms("parity")
_table(
    "feature_drift", "drift",
    "one row per input, current against reference; shift: of means, in pooled standard deviations, "
    "null for a category; seasonal: moved, but to where it was a year ago", "feature",
    feature=S, rows_before=I64, rows_after=I64, missing_before=F64, missing_after=F64,
    psi=_maybe(F64), ks=_maybe(F64), p_value=F64, q_value=F64, shift=_maybe(F64),
    psi_last_year=_maybe(F64), auc_before=_maybe(F64), auc_after=_maybe(F64), drifted=BOOL,
    seasonal=BOOL, typed=_maybe(S),
)  # fmt: skip
_table(
    "outcome_drift", "drift",
    "one row per measure of outcomes and slice, current against reference; low, high: of change",
    "measure slice_kind slice",
    measure=S, slice_kind=S, slice=S, before=_maybe(F64), after=_maybe(F64), change=_maybe(F64),
    low=_maybe(F64), high=_maybe(F64), p_value=_maybe(F64), limit=_maybe(F64), rows_before=I64,
    rows_after=I64, moved=BOOL,
)  # fmt: skip
_symptoms("drift")
_table(
    "leakage_probes", "leakage",
    "one row per probe and feature, or night; shines: beyond the limit, and clearly so",
    "probe feature",
    probe=S, feature=S, value=F64, low=_maybe(F64), high=_maybe(F64), limit=F64, rows=I64,
    shines=BOOL,
)  # fmt: skip
_table(
    "exposure_bias", "leakage",
    "one row per measure of what the log could see, and place of the list; place 0: all",
    "measure place",
    measure=S, place=I32, rows=I64, value=F64, low=_maybe(F64), high=_maybe(F64),
)  # fmt: skip
_symptoms("leakage")
_table(
    "kpis", "kpis",
    "one row per measure of a group (the whole, a surface, an arm, personal or fallback answers), "
    "segment and period; visits: what it rests on",
    "group_kind group segment_kind segment period measure",
    group_kind=S, group=S, segment_kind=S, segment=S, period=S, measure=S, value=F64,
    low=_maybe(F64), high=_maybe(F64), visits=I64,
)  # fmt: skip
_symptoms("kpis")
_table(
    "experiment_checks", "experiments",
    "one row per check of an experiment: value beside its limit, and what it means",
    "experiment check",
    experiment=S, check=S, value=F64, limit=F64, passed=BOOL, sentence=S,
)  # fmt: skip
_table(
    "experiment_results", "experiments",
    "one row per arm, measure and segment of an experiment, against its control; low and high: "
    "95 %, valid on the planned day alone; always_low and always_high: valid on every day; "
    "p_value: of whichever is valid today; q_value: of it among all of its kind "
    "(Benjamini-Hochberg)",
    "experiment arm measure segment_kind segment",
    experiment=S, arm=S, measure=S, segment_kind=S, segment=S, visits=I64, visitors=I64,
    mean_control=F64, mean_arm=F64, difference=F64, low=_maybe(F64), high=_maybe(F64),
    always_low=_maybe(F64), always_high=_maybe(F64), p_value=_maybe(F64), q_value=_maybe(F64),
    method=S, verdict=S,
)  # fmt: skip
_symptoms("experiments")
_table(
    "policy_values", "off_policy",
    "one row per surface, policy and estimator: what the policy would bring a request, and how "
    "much the log says of it; logged_value: what was shown on the same rows brought; reason: why "
    "the evidence is insufficient",
    "surface policy estimator",
    surface=S, policy=S, estimator=S, reward=S, value=_maybe(F64), low=_maybe(F64),
    high=_maybe(F64), logged_value=_maybe(F64), requests=I64, rows=I64, effective_sample_size=F64,
    effective_rewards=F64, largest_weight=F64, weight_tail=F64, overlap=F64, mean_weight=F64,
    verdict=S, reason=_maybe(S),
)  # fmt: skip
_table(
    "policy_rows", "off_policy",
    "one row per surface and outcome of a mature row of the current period: whether other policies "
    "can be judged by it", "surface outcome", surface=S, outcome=S, rows=I64, share=F64,
)  # fmt: skip
_symptoms("off_policy")
_table(
    "label_delays", "labels",
    "one row per population, part of it and period: hours until arrival, from events that have not "
    "yet arrived too; feed: events that answer no request, outcome: purchases that do; "
    "maturity_days: until 99 % have arrived, of outcomes counted from the request",
    "population segment_kind segment period",
    population=S, segment_kind=S, segment=S, period=S, rows=I64, median_hours=F64, p90=F64,
    p95=F64, p99=F64, maturity_days=F64,
)  # fmt: skip
_table(
    "label_checks", "labels", "one row per check of what labels mean in a part of the shop",
    "check subject",
    check=S, subject=S, before=_maybe(F64), after=_maybe(F64), low=_maybe(F64), high=_maybe(F64),
    passed=BOOL, sentence=S,
)  # fmt: skip
_symptoms("labels")
_table(
    "calibration_slices", "decisioning",
    "one row per slice and bin of the score, -1 for all: the mean score and the share of outcomes "
    "of mature places that were shown; before: that of the reference; error: their distance, in "
    "the row of all bins its mean (expected calibration error)",
    "slice_kind slice bin",
    slice_kind=S, slice=S, bin=I32, rows=I64, predicted=F64, observed=F64, low=F64, high=F64,
    before=_maybe(F64), error=F64,
)  # fmt: skip
_table(
    "threshold_costs", "decisioning",
    "one row per threshold: what showing all from it on brings and costs; is_used: the least score "
    "that the log shows; extrapolated: below it, by the probability and not by outcomes",
    "threshold",
    threshold=F64, shown=I64, hits=F64, value=F64, cost=F64, net=F64, low=F64, high=F64,
    is_set=BOOL, is_used=BOOL, is_best=BOOL, extrapolated=BOOL,
)  # fmt: skip
_symptoms("decisioning")
_table(
    "slice_losses", "slices",
    "one row per slice by one or two columns: measure per visit or place before and after, its "
    "contribution to the change of the whole (mix and rate), the change of its outcomes over the "
    "rest's; rank: from 1 of the five that lose most, else 0",
    "kinds slice",
    kinds=S, slice=S, measure=S, rows=I64, before=F64, after=F64, mix=F64, rate=F64,
    contribution=F64, share=F64, ratio=_maybe(F64), p_value=_maybe(F64), q_value=_maybe(F64),
    rank=I32,
)  # fmt: skip
_table(
    "counterexamples", "slices",
    "one row per place where the release was most wrong, with its features as served; case: "
    "request and place; observed: 1 for an outcome, else 0",
    "release_id case",
    release_id=S, case=S, surface=S, position=I32, item_id=S, category=S, predicted=F64,
    observed=I32, why=S, top_features=S, **{name: _maybe(F32) for name in FEATURES},
)  # fmt: skip
_table(
    "counterexample_checks", "slices",
    "one row per earlier counterexample, scored again by the newest release; place: the share of "
    "recent places that it scores lower",
    "release_id case",
    release_id=S, case=S, found=TIME, checked_release=S, predicted=F64, observed=I32,
    new_score=F64, place=F64, still_wrong=BOOL,
)  # fmt: skip
_table(
    "default_drivers", "slices",
    "one row per feature: its most frequent value as served, and how far the score hangs on it",
    "feature",
    feature=S, value=F64, rows=I64, share=F64, share_before=_maybe(F64), correlation=F64,
    correlation_before=_maybe(F64), suspicious=BOOL, sentence=S,
)  # fmt: skip
_symptoms("slices")


def of_step(step: str) -> list[Table]:
    """The tables that a step writes, in the order they are declared."""
    return [table for table in TABLES.values() if table.step == step]
