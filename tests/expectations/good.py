"""One good table for every suite: small, consistent, and green without a warning."""

from __future__ import annotations

import importlib
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import limits, tables

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
PERSONS = [f"account:{n}" for n in range(1, limits.SOUND.people + 1)]
ITEMS = [f"i{n:03d}" for n in range(limits.SOUND.interactions // limits.SOUND.people)]
BEFORE = AS_OF - timedelta(days=2)
LISTED = 3
# Modules of their own, which take their ids from this one.
OF_DIAGNOSIS = ("diagnosis", "kpis", "parity", "outcomes", "off_policy")


def table(name: str, rows: list[dict[str, Any]] | dict[str, Any]) -> pa.Table:
    """Rows, or columns with scalars repeated, as the declared table."""
    schema = tables.TABLES[name].schema
    if isinstance(rows, list):
        return pa.Table.from_pylist(rows, schema)
    size = max(len(v) for v in rows.values() if isinstance(v, list | np.ndarray))
    columns = [
        pa.array(v if isinstance(v, list | np.ndarray) else [v] * size, field.type)
        for field in schema
        for v in [rows.get(field.name)]
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def all_tables() -> dict[str, pa.Table]:
    """A good table under each name of ``jobs.tables.TABLES``."""
    found = {**signals(), **audits(), **retrieval(), **changes(), **lists()}
    for name in OF_DIAGNOSIS:
        found |= importlib.import_module(f"tests.expectations.good_{name}").tables()
    assert set(found) == set(tables.TABLES)
    return found


def changes() -> dict[str, pa.Table]:
    hours = [AS_OF - timedelta(hours=n) for n in range(6, -1, -1)]
    return {
        "intervals": table("intervals", {
            "started": hours[:-1], "ended": hours[1:], "state": "read", "events": 30, "late": 0,
        }),
        "touched_people": table("touched_people", [
            {"person_id": PERSONS[0], "reason": "events"},
            {"person_id": PERSONS[0], "reason": "facts"},
            {"person_id": PERSONS[1], "reason": "came"},
            {"person_id": "account:gone", "reason": "went"},
        ]),
        "touched_items": table("touched_items", [
            {"item_id": ITEMS[0], "reason": "described"}, {"item_id": ITEMS[1], "reason": "came"},
        ]),
        "change_counts": table("change_counts", [
            {"what": "persons", "known": 1_000, "touched": 2, "share": 0.002, "due": 3},
            {"what": "items", "known": 50, "touched": 2, "share": 0.04, "due": 2},
        ]),
        "ladder": table("ladder", [
            {"what": "person", "id": PERSONS[0], "tier": "hot", "decision": "touched",
             "made": AS_OF},
            {"what": "person", "id": PERSONS[1], "tier": "dormant", "decision": "pooled",
             "made": AS_OF},
            {"what": "item", "id": ITEMS[0], "tier": "cold", "decision": "kept", "made": BEFORE},
        ]),
        "ladder_counts": table("ladder_counts", [
            {"what": "person", "tier": "hot", "decision": "touched", "count": 1},
            {"what": "person", "tier": "dormant", "decision": "pooled", "count": 1},
            {"what": "item", "tier": "cold", "decision": "kept", "count": 1},
        ]),
        "surface_digests": table("surface_digests", [
            {"surface": "homepage", "grain": "person", "cadence": "hourly",
             "digest": "0123456789abcdef", "changed": False},
            {"surface": "digest", "grain": "person", "cadence": "nightly",
             "digest": "fedcba9876543210", "changed": False},
        ]),
    }  # fmt: skip


def signals() -> dict[str, pa.Table]:
    people, items = len(PERSONS), len(ITEMS)
    keys = [person.removeprefix("account:") for person in PERSONS]
    sessions = [f"{person}|{BEFORE:%Y-%m-%dT%H:%M:%S}Z" for person in PERSONS]
    event = {
        "event_id": [f"e{n}" for n in range(people)],
        "event_time": BEFORE, "received_time": BEFORE, "first_received": BEFORE,
        "event_type": "purchase",
        "item_id": [ITEMS[n % items] for n in range(people)],
        "quantity": 1.0, "value": 2.5, "event_date": BEFORE.date(),
    }  # fmt: skip
    pairs = {
        "person_id": np.repeat(PERSONS, items).tolist(),
        "item_id": np.tile(ITEMS, people).tolist(),
    }
    return {
        "source_tables": table("source_tables", [
            {"table": name, "present": True, "rows": 5, "files": 1, "bytes": 900, "digest": "d"}
            for name in ("events", "items")
        ]),
        "events": table("events", {**event, "revision": 0, "key_type": "account", "key": keys}),
        "events_rejected": table("events_rejected", [{"revision": 0, "reason": "no_item"}]),
        "events_counts": table("events_counts", [
            {"outcome": "kept", "rows": people, "share": 1.0},
            {"outcome": "not_yet_received", "rows": 4, "share": 0.0},
        ]),
        "events_volume": table("events_volume", [{
            "day": date(2017, 11, 30), "weekday": 4, "rows": 100, "history_days": 20,
            "history_median": 90.0, "ratio": 1.1,
        }]),
        "items": table("items", {
            "item_id": ITEMS, "position": list(range(items)), "category": "A > B", "price": 1.5,
            "available": True, "flags": [[]] * items,
        }),
        "editorial": table("editorial", [
            {"list_id": "autumn", "position": n + 1, "item_id": ITEMS[n]} for n in range(2)
        ]),
        "rules_in_force": table("rules_in_force", [
            {"rule_id": f"r{n}", "kind": kind, "scope": f"item:{ITEMS[n]}", "scope_kind": "item",
             "starts": BEFORE, "ends": AS_OF + timedelta(days=n), "strength": 1.0, "reason": "why",
             "outcome": outcome, "items": 1, "unjudged": 0}
            for n, (kind, outcome) in enumerate([
                ("ban", "in force"), ("boost", "in force"), ("cap", "not yet"),
            ])
        ]),
        "identities": table("identities", {
            "key_type": "account", "key": keys, "person_id": PERSONS, "household_id": PERSONS,
            "component": PERSONS,
        }),
        "persons": table("persons", {
            "person_id": PERSONS, "household_id": PERSONS, "region": "north", "personalised": True,
            "restrictions": [[]] * people, "keys": 1,
        }),
        "identity_links": table("identity_links", [
            {"key_type_a": "account", "key_a": keys[n], "key_type_b": "account",
             "key_b": keys[n + 1], "source": "login", "confidence": confidence,
             "known_time": BEFORE, "outcome": outcome}
            for n, (confidence, outcome) in enumerate(
                [(1.0, "admitted")] * 4 + [(0.95, "admitted"), (0.5, "below_threshold")]
            )
        ]),
        "identity_changes": table("identity_changes", [
            {"kind": kind, "from_person": PERSONS[0], "to_person": PERSONS[1],
             "changed_at": BEFORE, "cause": "link", "as_of": BEFORE}
            for kind in ("merge", "split")
        ]),
        "identity_counts": table("identity_counts", [
            {"outcome": outcome, "rows": count} for outcome, count in {
                "keys": people, "persons": people, "over_cap": 0, "without_accounts": 0,
                "unnamed_types": 0, "link: no_account": 0,
                "rows: received": 2_000, "rows: no_key": 1,
                "rows: received_before_observed": 1, "link: admitted": 1_900,
                "link: too_many_of_type": 9, "link: unknown_key": 9,
                "link: confidence_outside_0_1": 1, "link: unknown_source": 0,
            }.items()
        ]),
        "history": table("history", {
            **event, "person_id": PERSONS, "basket": "b", "resolved_by": "key",
            "session": sessions, "key_type": "account", "key": keys,
        }),
        "sessions": table("sessions", {
            "session": sessions, "person_id": PERSONS, "started": BEFORE,
            "ended": BEFORE + timedelta(minutes=9), "events": 3, "items": 2, "keys": 1,
            "channels": [["store"]] * people, "purchases": 1, "value": 2.5, "by_login": 0,
        }),
        "interactions": table("interactions", {
            **pairs, "weight": 1.5, "purchases": 1.0, "events": 1, "first_time": BEFORE,
            "last_time": BEFORE,
        }),
    }  # fmt: skip


def audits() -> dict[str, pa.Table]:
    fresh = {"people": 900, "unit": "days", "median": 4.0, "p95": 40.0}
    feed = {
        "source": "account", "channel": "web", "recent": 9,
        "newest_event": BEFORE, "age_hours": 12.0, "usual_gap_hours": 24.0,
        "lag_median_hours": 0.5, "lag_p95_hours": 2.0, "limit_hours": 336.0, "late": False,
    }  # fmt: skip
    promised = {"promised": 0.4, "promised_low": 0.38, "promised_high": 0.42}
    realised = {"realised": 0.39, "realised_low": 0.37, "realised_high": 0.41}
    gap = {"gap": 0.01, "gap_low": -0.02, "gap_high": 0.04}
    release = {
        "released": AS_OF - timedelta(days=30), "ranking": "published", "slice_kind": "all",
        "slice": "", "horizon_days": 28.0, "people": 900, "final": True,
    }  # fmt: skip
    window = {"window_p25_hours": 30.0, "window_median_hours": 60.0, "window_p75_hours": 99.0}
    return {
        "signal_freshness": table("signal_freshness", [
            {"measure": "last_event_age", "population": "active", **fresh, "limit": 14.0,
             "gated": True},
            {"measure": "drift_window", "population": "measured", **fresh, "gated": False},
            {"measure": "signal_age_weighted", "population": "active", **fresh, "gated": False},
        ]),
        "feed_freshness": table("feed_freshness", [
            {"event_type": kind, **feed, "events": events}
            for kind, events in (("purchase", limits.FEED_EVENTS), ("view", 9_000), ("return", 9))
        ]),
        "identity_coverage": table("identity_coverage", [
            {"population": population, "stage": stage, "by": by, "total": limits.SPLIT_PERSONS,
             "split": 0.0, "share": 0.0}
            for population in ("active persons", "revenue", "groups")
            for stage in ("before merging", "after merging")
            for by in ("any", "exact", "anonymous")
        ]),
        "promises": table("promises", [
            {**release, **promised, **realised, **gap},
            {**release, "ranking": "popular", **promised, **realised, **gap},
        ]),
        "conversion_windows": table("conversion_windows", [
            {"category": name, "conversions": 90, **window, "serving_median_hours": 14.0,
             "decided_before": 0.1, "revenue_share": 0.5, "late": False}
            for name in ("A", "B")
        ]),
    }  # fmt: skip


def retrieval() -> dict[str, pa.Table]:
    items = len(ITEMS)
    vectors = np.random.default_rng(0).normal(size=(len(PERSONS), 4)).astype("float32").tolist()
    measures = {
        "coverage_items": 1.0, "coverage_persons": 1.0, "nonfinite": 0.0, "norm_max_items": 4.0,
        "moved_share": 0.1,
    }  # fmt: skip
    return {
        "item_factors": table("item_factors", {"item_id": ITEMS, "vector": vectors[:items]}),
        "person_factors": table("person_factors", {"person_id": PERSONS, "vector": vectors}),
        "embedding_report": table("embedding_report", {
            "measure": list(measures), "value": list(measures.values()),
        }),
        "content_vectors": table("content_vectors", {"item_id": ITEMS, "vector": vectors[:items]}),
        "item_vectors": table("item_vectors", {
            "item_id": ITEMS, "position": list(range(items)), "vector": vectors[:items],
            "origin": "collaborative",
        }),
        "index_recall": table("index_recall", [
            {"kind": "overall", "stratum": "all", "queries": 500, "recall": 0.98},
            {"kind": "age", "stratum": "new", "queries": 50, "recall": 0.95},
            {"kind": "age", "stratum": "unseen", "queries": 3, "recall": 0.2},
            {"kind": "category", "stratum": "A", "queries": 400, "recall": 0.97},
        ]),
        "candidates": table("candidates", {
            "person_id": np.repeat(PERSONS, 4).tolist(), "item_id": ITEMS[:4] * len(PERSONS),
            "source": ["buy_again", "collaborative"] * 2 * len(PERSONS),
            "rank": [1, 1, 2, 2] * len(PERSONS), "score": 0.5,
        }),
        "two_tower_items": table("two_tower_items", {"item_id": ITEMS, "vector": vectors[:items]}),
        "two_tower_persons": table("two_tower_persons", {
            "person_id": PERSONS, "vector": vectors,
        }),
        "two_tower_weights": table("two_tower_weights", {
            "layer": ["row", "row", "band"], "place": [0, 1, 0], "key": [None, ITEMS[0], None],
            "vector": vectors[:3],
        }),
        "pools": table("pools", {
            "source": "popular", "context_kind": "all", "context": "", "rank": [1, 2, 3],
            "item_id": ITEMS[:3], "score": [3.0, 2.0, 1.0],
        }),
        "candidate_counts": table("candidate_counts", {
            "source": list(tables.SOURCES), "persons": 10, "rows": 100, "items": 30,
        }),
        "eligibility": table("eligibility", {
            "kind": ["availability", "region"], "value": ["all", "north"], "positions": items,
            "allowed": items - 1, "bitmap": b"\xff",
        }),
        "ineligible_items": table("ineligible_items", [
            {"item_id": ITEMS[-1], "kind": "availability", "value": "all", "reason": "recalled"},
            {"item_id": ITEMS[-2], "kind": "region", "value": "south", "reason": "not sold"},
            {"item_id": ITEMS[-2], "kind": "restriction", "value": "alcohol", "reason": "flag"},
        ]),
        "blocked_pairs": table("blocked_pairs", [
            {"person_id": PERSONS[n], "item_id": ITEMS[-3], "reason": "returned", "since": BEFORE,
             "until": AS_OF + timedelta(days=9)}
            for n in range(2)
        ]),
    }  # fmt: skip


def lists() -> dict[str, pa.Table]:
    people, items = len(PERSONS), len(ITEMS)
    places = list(range(1, LISTED + 1))
    listed = {
        "person_id": np.repeat(PERSONS, LISTED).tolist(),
        "item_id": ITEMS[:LISTED] * people,
    }
    named = [{"source": "buy_again", "rank": 1, "score": 1.0}]
    reached = {
        "people": 700,
        "ndcg_low": 0.3,
        "ndcg_high": 0.5,
        "recall_at_20": 0.2,
        "new_ndcg_at_10": 0.06,
    }
    return {
        "blend_weights": table("blend_weights", {
            "source": list(tables.SOURCES), "weight": [1.0] + [0.1] * (len(tables.SOURCES) - 1),
        }),
        "ranking_evidence": table("ranking_evidence", [
            {"ranking": "ranker", "published": True, "ndcg_at_10": 0.44, "difference_low": 0.02,
             **reached},
            {"ranking": "blend", "published": False, "ndcg_at_10": 0.42, "difference_low": 0.01,
             **reached},
            {"ranking": "buy_again", "published": False, "ndcg_at_10": 0.40, "difference_low": 0.0,
             **reached},
        ]),
        "examples": table("examples", {
            "person_id": np.repeat(PERSONS, 2).tolist(), "item_id": ITEMS[:2] * people,
            "as_of": AS_OF - timedelta(days=28), "trained": True, "bought": True,
            "label": 1.0, "weight": 1.2, **dict.fromkeys(tables.FEATURES, 0.5),
        }),
        "example_people": table("example_people", {
            "person_id": PERSONS, "as_of": AS_OF - timedelta(days=28), "wanted": 9,
            "wanted_new": 3, "events": 40,
        }),
        "slice_evidence": table("slice_evidence", [
            {"ranking": ranking, "slice_kind": "activity", "slice": value, "people": 350,
             "ndcg_at_10": 0.4, "ndcg_low": 0.3, "ndcg_high": 0.5}
            for ranking in ("ranker", "buy_again") for value in ("heavy", "light")
        ]),
        "ranker_models": table("ranker_models", {
            "member": [0, 1], "trees": 200, "model": "{}",
        }),
        "calibration": table("calibration", {
            "score": [-3.0, -1.0, 2.0], "logit": [-4.0, -2.0, 1.0], "rows": 900.0,
        }),
        "reliability": table("reliability", {
            "bin": list(range(1, 11)), "rows": 4_000, "predicted": 0.1, "bought": 0.11,
            "bought_low": 0.1, "bought_high": 0.12, "off": 0.1,
        }),
        "feature_importance": table("feature_importance", {
            "feature": list(tables.FEATURES), "gain": 1 / len(tables.FEATURES),
        }),
        "recommendations": table("recommendations", {
            "surface": "homepage", **listed, "rank": places * people, "score": 0.5,
            "propensity": [1.0, 1.0, 0.25] * people,
            "placed_by": ["model", "rule", "explore"] * people,
            "rule_id": [None, "r1", None] * people, "model_rank": [1, 3, None] * people,
            "sources": [["buy_again"]] * people * LISTED, "provenance": [named] * people * LISTED,
        }),
        "model_lists": table("model_lists", {
            "surface": "homepage", **listed, "rank": places * people, "score": 0.5,
        }),
        "list_work": table("list_work", [
            {"what": "persons", "known": 1_000, "untouched": 900, "filled": 97, "anew": 3},
        ]),
        "overrides": table("overrides", [
            {"surface": "homepage", "kind": kind, "cause": cause, "slots": slots,
             "share": slots / 900, "value_lost": slots / 100, "value_share": slots / 900}
            for kind, cause, slots in (
                ("ban", "r0", 0), ("boost", "r1", 9), ("stage", "explore", 90), ("all", "all", 9),
            )
        ]),
        "explore_shares": table("explore_shares", {
            "surface": "homepage", "source": list(tables.SOURCES), "impressions": 40,
            "conversions": 2, "posterior_mean": 3 / 42, "share": 1 / len(tables.SOURCES),
        }),
        "features": table("features", {
            **listed, "event_timestamp": AS_OF,
            "feature_version": "1", "feature_hash": "h",
            **dict.fromkeys(tables.FEATURES, 0.5),
        }),
        "delivery": table("delivery", {
            "surface": "homepage", "source": ["buy_again", "collaborative"],
            "intended": [0.0, 0.1], "delivered": [0.8, 0.2], "slots": 300,
        }),
        "shortfalls": table("shortfalls", [
            {"surface": "homepage", "reason": "topped_up", "persons": 3, "slots": 4},
            {"surface": "homepage", "reason": "short", "persons": 0, "slots": 0},
        ]),
        "context_lists": table("context_lists", {
            "surface": "homepage", "context_kind": ["all", "all", "region"],
            "context": ["", "", "north"], "rank": [1, 2, 1], "item_id": [*ITEMS[:2], ITEMS[1]],
            "score": 0.5, "propensity": [1.0, 0.25, 1.0],
            "placed_by": ["rule", "explore", "model"], "rule_id": ["r1", None, None],
            "model_rank": [3, None, 1], "sources": [["popular"]] * 3,
        }),
        "item_lists": table("item_lists", {
            "surface": "similar", "item_id": np.repeat(ITEMS[:-1], 2).tolist(),
            "rank": [1, 2] * (items - 1),
            "listed_item_id": [
                ITEMS[(n + step) % (items - 1)] for n in range(items - 1) for step in (1, 2)
            ],
            "score": 0.5,
        }),
    }  # fmt: skip
