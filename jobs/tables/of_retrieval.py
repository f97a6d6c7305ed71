"""What finds items, what may be shown, and what a refresh changes."""

from __future__ import annotations

import pyarrow as pa

from jobs.tables.form import BOOL, F64, I32, I64, TIME, VECTOR, S, Tables, maybe

TABLES = Tables()
table = TABLES.declare

# --- retrieval -------------------------------------------------------------------------------
table(
    "item_factors", "embeddings", "one row per item with interactions", "item_id",
    item_id=S, vector=VECTOR,
)  # fmt: skip
table(
    "person_factors", "embeddings", "one row per person with interactions", "person_id",
    person_id=S, vector=VECTOR,
)  # fmt: skip
table(
    "embedding_report", "embeddings", "one row per measure of the fit", "measure",
    measure=S, value=F64,
)  # fmt: skip
table(
    "content_vectors", "content_embeddings", "one row per item of the catalogue", "item_id",
    item_id=S, vector=VECTOR,
)  # fmt: skip
table(
    "item_vectors", "index", "one row per indexed item; origin: collaborative or content",
    "item_id", item_id=S, position=I64, vector=VECTOR, origin=S,
)  # fmt: skip
table(
    "index_recall", "index", "one row per stratum of held queries", "kind stratum",
    kind=S, stratum=S, queries=I32, recall=F64,
)  # fmt: skip
table(
    "candidates", "candidates", "one row per (person, item, source)", "person_id item_id source",
    person_id=S, item_id=S, source=S, rank=I32, score=F64, seed_item=maybe(S),
    seed_time=maybe(TIME),
)  # fmt: skip
table(
    "pools", "candidates",
    "one row per place in a list shared by all (context ''), a region, a segment, or requests that "
    "say a category, a channel or a quarter of the day; or curated for a surface",
    "source context_kind context rank", source=S, context_kind=S, context=S, rank=I32,
    item_id=S, score=F64,
)  # fmt: skip
table(
    "candidate_counts", "candidates", "one row per source that is on, whatever it named", "source",
    source=S, persons=I64, rows=I64, items=I64,
)  # fmt: skip
table(
    "two_tower_items", "candidates",
    "one row per item of the catalogue, chosen or not; none where the two towers are off",
    "item_id", item_id=S, vector=VECTOR,
)  # fmt: skip
table(
    "two_tower_persons", "candidates",
    "one row per person with interactions; none where the two towers are off", "person_id",
    person_id=S, vector=VECTOR,
)  # fmt: skip
table(
    "two_tower_weights", "candidates",
    "one row per row of a layer or an embedding of the two towers; key: the text or the item that "
    "an embedding is of", "layer place", layer=S, place=I32, key=maybe(S), vector=VECTOR,
)  # fmt: skip

# --- filtering -------------------------------------------------------------------------------
table(
    "eligibility", "filters",
    "one row per rule: a bitmap over index positions, bit i of byte i // 8 (least significant "
    "first) set where the item at position i is allowed",
    "kind value", kind=S, value=S, positions=I64, allowed=I64, bitmap=pa.binary(),
)  # fmt: skip
table(
    "ineligible_items", "filters", "one row per (item, rule that excludes it)",
    "item_id kind value", item_id=S, kind=S, value=S, reason=S,
)  # fmt: skip
table(
    "blocked_pairs", "filters", "one row per (person, item, reason)", "person_id item_id reason",
    person_id=S, item_id=S, reason=S, since=TIME, until=maybe(TIME),
)  # fmt: skip

# --- refreshing ------------------------------------------------------------------------------
table(
    "intervals", "changes",
    "one row per hour, or part of one, since the night: how many events were received in it; read: "
    "by the refresh of that hour, healed: by a later one; late: those that an earlier refresh of "
    "it had not found", "started",
    started=TIME, ended=TIME, state=S, events=I64, late=I64,
)  # fmt: skip
table(
    "touched_people", "changes", "one row per person whose lists are made anew, and why",
    "person_id reason", person_id=S, reason=S,
)  # fmt: skip
table(
    "touched_items", "changes", "one row per item that is not as in the base, and how",
    "item_id reason", item_id=S, reason=S,
)  # fmt: skip
table(
    "change_counts", "changes",
    "one row for persons and one for items: how many are touched, and how many are due, whose "
    "lists are made anew; what is done to the lists of others is in list_work", "what",
    what=S, known=I64, touched=I64, share=F64, due=I64,
)  # fmt: skip
table(
    "ladder", "changes",
    "one row per person and item: its tier by activity, what the refresh does with its lists, and "
    "of when the oldest of these then is", "what id",
    what=S, id=S, tier=S, decision=S, made=TIME,
)  # fmt: skip
table(
    "ladder_counts", "changes", "one row per tier and decision of persons and of items",
    "what tier decision", what=S, tier=S, decision=S, count=I64,
)  # fmt: skip
table(
    "surface_digests", "changes",
    "one row per surface: a digest of all that configures its lists, and whether it is the base's",
    "surface", surface=S, grain=S, cadence=S, digest=S, changed=BOOL,
)  # fmt: skip
