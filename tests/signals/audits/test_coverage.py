"""Who is still several persons, for which reason, and what it costs; counted by hand."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from jobs.signals.audits import coverage
from jobs.tables import TABLES
from tests.conftest import AS_OF

HOUSEHOLD = ("household",)
ACCOUNT = ("account",)
# key -> (person, active, revenue)
KEYS = {
    "account:ann": ("account:ann", True, 60.0),
    "cookie:a1": ("account:ann", True, 20.0),
    "cookie:a2": ("cookie:a2", True, 20.0),
    "account:bob": ("account:bob", False, 100.0),
    "cookie:kiosk": ("cookie:kiosk", True, 0.0),
    "cookie:lone": ("cookie:lone", True, 0.0),
}


def keys(changes: dict | None = None, unseen: tuple[str, ...] = (), refused: tuple[str, ...] = ()):
    rows = KEYS | (changes or {})
    return pa.Table.from_pylist([
        {
            "key_type": name.partition(":")[0], "key": name.partition(":")[2],
            "person_id": person, "personalised": person not in refused,
            "seen": name not in unseen, "active": active, "revenue": revenue,
        }
        for name, (person, active, revenue) in reversed(rows.items())
    ])  # fmt: skip


def links(*ties: tuple[str, str, str], source: str = "login") -> pa.Table:
    return pa.Table.from_pylist([
        {
            "key_type_a": a.partition(":")[0], "key_a": a.partition(":")[2],
            "key_type_b": b.partition(":")[0], "key_b": b.partition(":")[2],
            "source": source, "known_time": AS_OF, "outcome": outcome,
        }
        for a, b, outcome in ties
    ], TABLES["identity_links"].schema)  # fmt: skip


TIES = (
    ("account:ann", "cookie:a1", "admitted"),
    ("account:ann", "cookie:a2", "below_threshold"),
    ("account:bob", "cookie:kiosk", "too_many_of_type"),
)


def shares(*rows_of, accounts=ACCOUNT) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(population, stage, by) to (split, total)."""
    rows = coverage.coverage(*rows_of, HOUSEHOLD, accounts).to_pylist()
    return {(r["population"], r["stage"], r["by"]): (r["split"], r["total"]) for r in rows}


def test_before_merging_every_tied_key_is_a_split_person():
    found = shares(keys(), links(*TIES))
    assert found["persons", "before merging", "any"] == (5, 6)
    assert found["active persons", "before merging", "any"] == (4, 5)
    assert found["revenue", "before merging", "any"] == (200.0, 200.0)
    assert found["persons", "before merging", "exact"] == (2, 6)


def test_merging_mends_what_it_admits_and_the_rest_is_told_by_its_reason():
    found = shares(keys(), links(*TIES))
    assert found["persons", "after merging", "any"] == (4, 5)
    assert found["persons", "after merging", "exact"] == (0, 5)
    assert found["persons", "after merging", "guess"] == (2, 5)
    assert found["persons", "after merging", "cap"] == (2, 5)
    assert found["persons", "after merging", "conflict"] == (0, 5)
    assert found["active persons", "after merging", "guess"] == (2, 4)
    assert found["revenue", "after merging", "guess"] == (100.0, 200.0)


def test_the_cost_is_the_groups_that_would_be_served_two_lists():
    found = shares(keys(), links(*TIES))
    # Before: ann's three active keys are one group; bob is not active, so the kiosk has one list.
    assert found["groups", "before merging", "any"] == (1, 3)
    assert found["groups", "after merging", "any"] == (1, 3)
    mended = {"cookie:a2": ("account:ann", True, 20.0)}
    ties = (TIES[0], ("account:ann", "cookie:a2", "admitted"), TIES[2])
    found = shares(keys(mended), links(*ties))
    assert found["groups", "before merging", "any"] == (1, 3)
    assert found["groups", "after merging", "any"] == (0, 3)


def test_who_has_no_consent_gets_no_list_that_could_be_a_second_one():
    found = shares(keys(refused=("cookie:a2",)), links(*TIES))
    assert found["groups", "after merging", "any"] == (0, 3)
    assert found["active persons", "after merging", "guess"] == (2, 4), "split all the same"


def test_people_without_an_account_are_counted_where_the_shop_has_accounts():
    found = shares(keys(), links(*TIES))
    assert found["persons", "after merging", "anonymous"] == (3, 5)
    assert found["revenue", "after merging", "anonymous"] == (20.0, 200.0)
    assert found["revenue", "before merging", "anonymous"] == (40.0, 200.0)
    without = shares(keys(), links(*TIES), accounts=("loyalty_card",))
    assert not any(by == "anonymous" for _, _, by in without)


def test_a_key_without_events_ties_others_together_and_is_nobody_itself():
    bridge = {"email_hash:h": ("email_hash:h", False, 0.0)}
    tie = (
        ("cookie:lone", "email_hash:h", "below_threshold"),
        ("cookie:a2", "email_hash:h", "below_threshold"),
    )
    found = shares(keys(bridge, unseen=("email_hash:h",)), links(*tie))
    assert found["persons", "after merging", "any"] == (2, 5)
    alone = shares(keys(bridge, unseen=("email_hash:h",)), links(tie[0]))
    assert alone["persons", "after merging", "any"] == (0, 5)


@pytest.mark.parametrize(
    "outcome",
    ["unlinked", "household", "self_link", "confidence_outside_0_1", "unknown_key"],
)
def test_links_that_say_nothing_of_one_person_are_no_evidence(outcome):
    found = shares(keys(), links(("account:ann", "account:bob", outcome)))
    assert found["persons", "after merging", "any"] == (0, 5)


def test_a_doubtful_household_is_no_evidence_of_one_person():
    tie = links(("account:ann", "account:bob", "below_threshold"), source="household")
    assert shares(keys(), tie)["persons", "after merging", "any"] == (0, 5)


def test_a_link_to_a_key_of_nobody_ties_nothing():
    tie = links(("account:ann", "cookie:never", "admitted"))
    assert shares(keys(), tie)["persons", "before merging", "any"] == (0, 6)


def test_a_shop_without_links_or_money_has_shares_of_nothing():
    bare = {name: (person, active, 0.0) for name, (person, active, _) in KEYS.items()}
    rows = coverage.coverage(keys(bare), links(), HOUSEHOLD, ACCOUNT).to_pylist()
    assert {r["share"] for r in rows if r["by"] != "anonymous"} == {0.0}


def test_the_order_of_the_rows_does_not_matter():
    some, ties = keys(), links(*TIES)
    turned = pa.Table.from_pylist(some.to_pylist()[::-1]), links(*TIES[::-1])
    one, other = (coverage.coverage(*rows, HOUSEHOLD, ACCOUNT) for rows in ((some, ties), turned))
    assert one == other


def test_a_key_is_active_by_its_own_last_event_and_its_money_is_of_purchases(session):
    events = session.createDataFrame(
        [
            ("account", "a", "purchase", AS_OF - timedelta(days=100), 5.0),
            ("account", "a", "return", AS_OF - timedelta(days=99), 2.0),
            ("cookie", "c", "view", AS_OF - timedelta(days=3), None),
        ],
        "key_type string, key string, event_type string, event_time timestamp, value double",
    )
    identities = session.createDataFrame(
        [("account", "a", "p"), ("cookie", "c", "p"), ("email_hash", "h", "p")],
        "key_type string, key string, person_id string",
    )
    persons = session.createDataFrame([("p", True)], "person_id string, personalised boolean")
    rows = coverage.keys_seen(events, identities, persons, AS_OF, 56.0).toArrow().to_pylist()
    found = {row["key"]: (row["seen"], row["active"], row["revenue"]) for row in rows}
    assert found == {"a": (True, False, 5.0), "c": (True, True, 0.0), "h": (False, False, 0.0)}
