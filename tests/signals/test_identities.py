"""Which keys are one person, and which are rather kept apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa

from jobs.signals import identities
from jobs.sources import contract
from tests.conftest import AS_OF

DAY = datetime(2017, 11, 1, tzinfo=UTC)


def keys(*names: str) -> pd.DataFrame:
    split = [name.split(":") for name in names]
    return pd.DataFrame(
        {
            "key_type": [one[0] for one in split],
            "key": [one[1] for one in split],
            "first_seen": [pd.Timestamp(DAY) + timedelta(days=i) for i in range(len(split))],
        }
    )


def links(*pairs: tuple[str, str], outcome: str = "admitted") -> pd.DataFrame:
    rows = [(*a.split(":"), *b.split(":"), outcome) for a, b in pairs]
    return pd.DataFrame(rows, columns=["key_type_a", "key_a", "key_type_b", "key_b", "outcome"])


def persons(resolved: pa.Table) -> dict[str, str]:
    return {f"{r['key_type']}:{r['key']}": r["person_id"] for r in resolved.to_pylist()}


def test_an_account_gives_its_name_to_the_keys_that_links_tie_to_it():
    found, _ = identities.resolve(
        keys("cookie:c", "device:d", "account:1", "cookie:lonely"),
        links(("account:1", "device:d"), ("cookie:c", "device:d")),
        identities.Params(),
    )
    assert persons(found) == {
        "cookie:c": "account:1", "device:d": "account:1", "account:1": "account:1",
        "cookie:lonely": "cookie:lonely",
    }  # fmt: skip


def test_without_an_account_the_first_seen_key_founds_the_person():
    found, _ = identities.resolve(
        keys("device:z", "cookie:a"), links(("cookie:a", "device:z")), identities.Params()
    )
    assert set(persons(found).values()) == {"device:z"}


def test_two_accounts_are_never_joined_by_a_shared_device():
    found, counts = identities.resolve(
        keys("account:1", "account:2", "device:shared"),
        links(("account:1", "device:shared"), ("account:2", "device:shared")),
        identities.Params(),
    )
    assert persons(found) == {name: name for name in ("account:1", "account:2", "device:shared")}
    assert dict(zip(*counts.to_pydict().values(), strict=True)) == {
        "keys": 3, "persons": 3, "link: would_join_two_accounts": 2,
    }  # fmt: skip


def test_a_link_to_an_unknown_key_is_counted_and_merges_nobody():
    found, counts = identities.resolve(
        keys("account:1"), links(("account:1", "device:ghost")), identities.Params()
    )
    assert persons(found) == {"account:1": "account:1"}
    assert "link: unknown_key" in counts["outcome"].to_pylist()


def test_the_order_of_rows_does_not_matter():
    known = keys("account:1", "device:a", "cookie:b", "account:2", "device:c")
    tied = links(("account:1", "device:a"), ("device:a", "cookie:b"), ("account:2", "device:c"))
    one, _ = identities.resolve(known, tied, identities.Params())
    other, _ = identities.resolve(known[::-1], tied[::-1], identities.Params())
    assert one.equals(other)


def test_only_exact_links_known_by_then_and_not_taken_back_are_admitted(session):
    def link(name: str, **changes) -> dict:
        return {
            "key_type_a": "account", "key_a": name, "key_type_b": "device", "key_b": name,
            "source": "login", "confidence": 1.0, "observed_time": DAY,
        } | changes  # fmt: skip

    rows = [
        link("exact"),
        link("guess", confidence=0.7, source="probabilistic"),
        link("weak", confidence=0.99),
        link("family", source="household"),
        link("beyond", confidence=1.5),
        link("self", key_type_b="account"),
        link("tomorrow", observed_time=AS_OF),
        link("undone"),
        link("undone", action="unlink", observed_time=DAY + timedelta(days=1)),
    ]
    frame = session.createDataFrame(pa.Table.from_pylist(rows, contract.schema("identity_links")))
    found = identities.judge_links(frame, AS_OF, identities.Params()).toArrow().to_pylist()
    assert {row["key_a"]: row["outcome"] for row in found} == {
        "exact": "admitted", "guess": "not_an_identity_link", "weak": "not_exact",
        "family": "not_an_identity_link", "beyond": "confidence_outside_0_1",
        "self": "self_link", "undone": "unlinked",
    }  # fmt: skip


def test_the_stricter_word_counts_where_keys_of_one_person_disagree(session):
    resolved = session.createDataFrame(
        [
            ("account", "1", "account:1"),
            ("device", "d", "account:1"),
            ("account", "2", "account:2"),
        ],
        "key_type string, key string, person_id string",
    )
    told = pa.Table.from_pylist(
        [
            {"key_type": "account", "key": "1", "region": "north", "restrictions": ["alcohol"]},
            {"key_type": "device", "key": "d", "consents": ["email"], "restrictions": ["tobacco"]},
        ],
        contract.schema("people"),
    )
    events = session.createDataFrame(
        [
            ("account", "2", DAY, "south"),
            ("account", "2", DAY, "south"),
            ("account", "2", DAY, "east"),
        ],
        "key_type string, key string, event_time timestamp, region string",
    )
    rows = identities.persons(resolved, events, session.createDataFrame(told)).toArrow()
    found = {row["person_id"]: row for row in rows.to_pylist()}
    assert found["account:1"]["personalised"] is False
    assert found["account:1"]["restrictions"] == ["alcohol", "tobacco"]
    assert (found["account:1"]["region"], found["account:1"]["keys"]) == ("north", 2)
    assert (found["account:2"]["region"], found["account:2"]["personalised"]) == ("south", True)
