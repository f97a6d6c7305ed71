"""What is known of events, people and items, and the audits of it."""

from __future__ import annotations

from jobs.tables.form import BOOL, DATE, F64, I32, I64, STRINGS, TEXTS, TIME, S, Tables, maybe

TABLES = Tables()
table = TABLES.declare

# --- sources ---------------------------------------------------------------------------------
table(
    "source_tables", "source", "one row per table of the source contract", "table",
    table=S, present=BOOL, rows=I64, files=I32, bytes=I64, digest=S,
)  # fmt: skip

# --- signals ---------------------------------------------------------------------------------
table(
    "events", "events", "one row per event received before as_of, its newest revision", "event_id",
    event_id=S, revision=I32, event_time=TIME, received_time=TIME, first_received=TIME,
    key_type=S, key=S, session_id=maybe(S), event_type=S, item_id=S, quantity=F64,
    value=maybe(F64), channel=maybe(S), region=maybe(S), campaign=maybe(S),
    request_id=maybe(S), event_date=DATE,
)  # fmt: skip
table(
    "events_rejected", "events", "one row per quarantined row of the source, as it was", "",
    event_id=maybe(S), revision=I32, event_time=maybe(TIME), received_time=maybe(TIME),
    key_type=maybe(S), key=maybe(S), event_type=maybe(S), item_id=maybe(S),
    quantity=maybe(F64), value=maybe(F64), reason=S,
)  # fmt: skip
table(
    "events_counts", "events", "one row per outcome of a source row", "outcome",
    outcome=S, rows=I64, share=F64,
)  # fmt: skip
table(
    "events_volume", "events", "one row: the newest day against the same weekday before", "",
    day=DATE, weekday=I32, rows=I64, history_days=I32, history_median=F64, ratio=F64,
)  # fmt: skip
table(
    "items", "catalogue",
    "one row per item of the catalogue or of any event, as of the night; catalogued: this night's "
    "catalogue or an earlier one's named it", "item_id",
    item_id=S, position=I64, title=maybe(S), category=maybe(S), brand=maybe(S),
    seller=maybe(S), price=maybe(F64), margin=maybe(F64), created_time=maybe(TIME),
    first_seen=maybe(TIME), available=BOOL, regions=maybe(STRINGS), flags=STRINGS,
    attributes=maybe(TEXTS), catalogued=maybe(BOOL),
)  # fmt: skip
table(
    "editorial", "catalogue", "one row per place of a curated list in force", "list_id position",
    list_id=S, surface=maybe(S), position=I32, item_id=S,
)  # fmt: skip
table(
    "rules_in_force", "catalogue",
    "one row per business rule and what became of it; items: how many it is about", "rule_id",
    rule_id=S, kind=S, scope=S, scope_kind=maybe(S), surface=maybe(S), region=maybe(S),
    starts=maybe(TIME), ends=maybe(TIME), strength=maybe(F64), reason=S, outcome=S, items=I64,
    unjudged=I64,
)  # fmt: skip
table(
    "identities", "identities", "one row per key", "key_type key",
    key_type=S, key=S, person_id=S, household_id=S, component=S, first_seen=maybe(TIME),
)  # fmt: skip
table(
    "persons", "identities", "one row per person", "person_id",
    person_id=S, household_id=S, region=maybe(S), segment=maybe(S), personalised=BOOL,
    restrictions=STRINGS, keys=I32, first_seen=maybe(TIME), last_seen=maybe(TIME),
)  # fmt: skip
table(
    "identity_links", "identities",
    "one row per unordered pair of keys and link source, its state at as_of",
    "key_type_a key_a key_type_b key_b source",
    key_type_a=S, key_a=S, key_type_b=S, key_b=S, source=S, confidence=maybe(F64),
    observed_time=maybe(TIME), known_time=TIME, outcome=S, detail=maybe(S),
)  # fmt: skip
table(
    "identity_changes", "identities", "one row per merge or split of persons", "",
    kind=S, from_person=S, to_person=S, changed_at=TIME, key_type_a=maybe(S), key_a=maybe(S),
    key_type_b=maybe(S), key_b=maybe(S), link_source=maybe(S), cause=S, as_of=TIME,
)  # fmt: skip
table(
    "identity_counts", "identities", "one row per kind of link and what became of it", "outcome",
    outcome=S, rows=I64,
)  # fmt: skip
table(
    "history", "sessions",
    "one row per event of a person; resolved_by: key, or login (an anonymous event that a login in "
    "its session gave to the person)", "event_id",
    event_id=S, person_id=S, item_id=S, event_type=S, event_time=TIME, received_time=TIME,
    session=S, basket=S, quantity=F64, value=maybe(F64), region=maybe(S), channel=maybe(S),
    event_date=DATE, resolved_by=S, key_type=S, key=S,
)  # fmt: skip
table(
    "sessions", "sessions", "one row per session of a person", "session",
    session=S, person_id=S, started=TIME, ended=TIME, events=I64, items=I64, keys=I64,
    channels=STRINGS, purchases=I64, value=F64, by_login=I64,
)  # fmt: skip
table(
    "interactions", "interactions", "one row per (person, item) with positive net intent",
    "person_id item_id", person_id=S, item_id=S, weight=F64, purchases=F64, events=I64,
    first_time=TIME, last_time=TIME,
)  # fmt: skip

# --- audits ----------------------------------------------------------------------------------
table(
    "signal_freshness", "audits",
    "one row per measure of how old signals are, and the drift window", "measure population",
    measure=S, population=S, people=I64, median=F64, p95=F64, limit=maybe(F64), unit=S,
    gated=BOOL,
)  # fmt: skip
table(
    "feed_freshness", "audits", "one row per feed; source: the type of its keys",
    "event_type source channel",
    event_type=S, source=S, channel=S, events=I64, recent=I64, newest_event=TIME, age_hours=F64,
    usual_gap_hours=maybe(F64), lag_median_hours=F64, lag_p95_hours=F64, limit_hours=F64,
    late=BOOL, reason=maybe(S),
)  # fmt: skip
table(
    "identity_coverage", "audits",
    "one row per population, stage and reason why keys of one human being are apart",
    "population stage by", population=S, stage=S, total=F64, split=F64, share=F64, by=S,
)  # fmt: skip
table(
    "promises", "audits", "one row per earlier release, ranking and slice of people",
    "released ranking slice_kind slice",
    released=TIME, ranking=S, slice_kind=S, slice=S, horizon_days=F64, people=I64,
    promised=maybe(F64), promised_low=maybe(F64), promised_high=maybe(F64), realised=F64,
    realised_low=F64, realised_high=F64, gap=maybe(F64), gap_low=maybe(F64),
    gap_high=maybe(F64), final=BOOL, flag=maybe(S),
)  # fmt: skip
table(
    "conversion_windows", "audits",
    "one row per category that people bought from after a signal; one of '' where nobody did",
    "category", category=S, conversions=I64, window_median_hours=maybe(F64),
    window_p25_hours=maybe(F64), window_p75_hours=maybe(F64), serving_median_hours=F64,
    decided_before=F64, revenue_share=F64, late=BOOL,
)  # fmt: skip
