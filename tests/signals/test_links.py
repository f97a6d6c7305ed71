"""What each link says at a cut, and which are refused, row by row."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from jobs.signals import identities, linking, links
from jobs.sources import contract
from tests.conftest import AS_OF
from tests.signals.graphs import DAY, link

ENDS = ("account:1", "device:1")


@pytest.fixture
def states(session):
    """The states of links at the night: by key_a where each pair has one, else all."""

    def run(*rows: dict, cut=AS_OF, keys: tuple[str, ...] | None = None, **params) -> list[dict]:
        chosen = identities.Params(**params)
        frame = session.createDataFrame(pa.Table.from_pylist(list(rows), SCHEMA))
        found = links.state(links.usable(frame), cut, chosen)
        usable = linking.usable(pa.Table.from_pylist(list(rows), SCHEMA))
        ours = linking.state(usable, cut, chosen)
        if keys is not None:
            named = pa.table(dict(zip(
                links.KEY, zip(*(key.split(":") for key in keys), strict=True), strict=True
            )))  # fmt: skip
            found = links.judge(found, session.createDataFrame(named), chosen)
            ours = linking.judge(ours, named, chosen)
        return alike(found, ours)

    return run


def alike(found, ours: pa.Table) -> list[dict]:
    """The rows that Spark and Arrow say alike, in the order of their pairs and more."""
    rows = [
        sorted(one.to_pylist(), key=lambda row: [repr(value) for value in row.values()])
        for one in (found.toArrow().select(ours.column_names).cast(ours.schema), ours)
    ]
    assert repr(rows[0]) == repr(rows[1])
    return rows[1]


@pytest.fixture
def logins(session):
    """The logins of links at the night."""

    def run(*rows: dict) -> list[dict]:
        given, params = pa.Table.from_pylist(list(rows), SCHEMA), identities.Params()
        found = links.logins(links.usable(session.createDataFrame(given)), AS_OF, params)
        return alike(found, linking.logins(linking.usable(given), AS_OF, params))

    return run


SCHEMA = contract.schema("identity_links")


def named(name: str, **changes) -> dict:
    """A sound login of an account on a device of the same name, with changes."""
    return link(f"account:{name}", f"device:{name}", 5, **changes)


def test_each_link_that_may_join_nothing_is_refused_with_its_reason(states):
    found = states(
        named("sound"),
        named("self", key_type_b="account"),
        named("above", confidence=1.01),
        named("below", confidence=-0.1),
        named("null", confidence=None),
        named("nan", confidence=float("nan")),
        named("undone", action="unlink"),
        named("odd", action="merge"),
        named("spelled", action=" LINK "),
        named("guess", source="probabilistic", confidence=0.89),
        named("sure guess", source="probabilistic", confidence=0.9),
        named("weak", confidence=0.5),
        named("spelled source", source=" Login "),
        named("strange source", source="household_v2"),
        named("strange guess", source="lookalike", confidence=0.95),
        named("spelled family", source="Household", confidence=0.9),
        named("family", source="household", confidence=0.6),
        named("far family", source="household", confidence=0.4),
        named("stranger"),
        named("future", observed_time=AS_OF, received_time=AS_OF - DAY),
        keys=tuple(
            f"{kind}:{name}" for kind in ("account", "device")
            for name in ("sound", "spelled", "sure guess", "spelled source")
        ),
    )  # fmt: skip
    assert {row["key_a"]: row["outcome"] for row in found} == {
        "sound": None, "spelled": None, "sure guess": None, "stranger": "unknown_key",
        "spelled source": None, "strange source": "unknown_source",
        "strange guess": "unknown_source", "spelled family": "household",
        "self": "self_link", "above": "confidence_outside_0_1", "below": "confidence_outside_0_1",
        "null": "confidence_outside_0_1", "nan": "confidence_outside_0_1", "undone": "unlinked",
        "odd": "unknown_action", "guess": "below_threshold", "weak": "below_threshold",
        "family": "household", "far family": "below_threshold",
        "future": "observed_in_the_future",
    }  # fmt: skip


def test_a_source_is_one_however_it_is_spelled(states):
    found = states(link(*ENDS, 9, source="Login"), link(*ENDS, 3, source="login ", action="unlink"))
    assert [(row["source"], row["outcome"]) for row in found] == [("login", "unlinked")]


def test_both_directions_are_one_link_and_each_source_has_its_own_state(states):
    found = states(
        link(*ENDS, 9), link(*ENDS[::-1], 3, action="unlink"),
        link(*ENDS, 5, source="email_click"),
    )  # fmt: skip
    assert [(row["source"], row["outcome"]) for row in found] == [
        ("email_click", None), ("login", "unlinked"),
    ]  # fmt: skip
    assert {(row["key_type_a"], row["key_type_b"]) for row in found} == {("account", "device")}


def test_a_link_counts_from_when_it_was_received_and_never_at_that_instant(states):
    late = link(*ENDS, 9, received_time=AS_OF - 2 * DAY)
    assert states(late, cut=AS_OF - 2 * DAY) == []
    found = states(late, cut=AS_OF - DAY)
    assert found[0]["known_time"] == AS_OF - 2 * DAY
    assert found[0]["observed_time"] == AS_OF - 9 * DAY


def test_an_older_action_that_comes_late_does_not_undo_a_newer_one(states):
    newer = link(*ENDS, 3, action="unlink")
    older = link(*ENDS, 9, received_time=AS_OF - DAY)
    assert [row["outcome"] for row in states(newer, older)] == ["unlinked"]


def test_a_clock_that_is_ahead_hides_no_other_row_and_delays_no_unlink(states):
    ahead = {"observed_time": AS_OF + 400 * DAY, "received_time": AS_OF - 3 * DAY}
    assert [row["outcome"] for row in states(link(*ENDS, 9), link(*ENDS, **ahead))] == [None]
    undone = states(link(*ENDS, 9), link(*ENDS, action="unlink", **ahead))
    assert [row["outcome"] for row in undone] == ["unlinked"]
    again = states(link(*ENDS, action="unlink", **ahead), link(*ENDS, 1))
    assert [row["outcome"] for row in again] == [None]


def test_of_actions_at_one_instant_the_one_that_joins_least_counts_in_any_order(states):
    rows = [
        link(*ENDS, 3), link(*ENDS, 3, confidence=0.95), link(*ENDS, 3, confidence=None),
        link(*ENDS, 3, action="unlink"),
    ]  # fmt: skip
    for left_out, expected in ((0, "unlinked"), (1, "confidence_outside_0_1"), (2, 0.95)):
        chosen = rows[: len(rows) - left_out]
        random.Random(left_out).shuffle(chosen)
        found = states(*chosen)[0]
        assert expected in (found["outcome"], found["confidence"])


def test_every_login_is_kept_with_its_time_and_only_logins(logins):
    rows = [
        link(*ENDS, 9), link(*ENDS[::-1], 3), link(*ENDS, 3), link(*ENDS, 1, action="unlink"),
        link(*ENDS, 5, source="email_click"), link(*ENDS, 5, confidence=2.0), link(*ENDS, -1),
        link("device:1", "device:1", 4),
    ]  # fmt: skip
    found = logins(*rows)
    assert sorted(row["observed_time"] for row in found) == [AS_OF - 9 * DAY, AS_OF - 3 * DAY]
    assert {(row["key_type_a"], row["key_a"]) for row in found} == {("account", "1")}


def test_a_login_that_is_guessed_at_or_taken_back_claims_nothing(logins):
    rows = [
        link(*ENDS, 9), link(*ENDS, 5, action="unlink", received_time=AS_OF - 4 * DAY),
        link(*ENDS, 5), link(*ENDS, 3),
        link("account:1", "device:2", 9), link("account:1", "device:2", 5, source="crm",
                                               action="unlink"),
        link("account:1", "device:3", 9, confidence=0.3),
        link("account:1", "device:4", 9, confidence=0.95),
    ]  # fmt: skip
    found = logins(*rows)
    days = {
        (row["key_b"], (AS_OF - row["observed_time"]).days): (
            row["claims"], (AS_OF - row["known_time"]).days,
        )
        for row in found
    }  # fmt: skip
    assert days == {
        # Among equals an unlink counts, and what it took back is known since it came.
        ("1", 9): (False, 4), ("1", 5): (False, 4), ("1", 3): (True, 3),
        # Another source's word stands beside it.
        ("2", 9): (True, 9), ("3", 9): (False, 9), ("4", 9): (True, 9),
    }  # fmt: skip


def test_a_login_of_a_type_that_nobody_named_joins_nothing_without_an_account(states):
    found = states(
        link("subscriber:1", "device:1", 3), link("subscriber:2", "device:1", 3),
        link("Account:3", "device:1", 3), link("account:4", "device:1", 3),
        link("subscriber:5", "device:1", 3, source="registration"),
    )  # fmt: skip
    outcomes = {row[f"key_{end}"]: row["outcome"] for row in found for end in "ab"}
    assert [outcomes[key] for key in "2345"] == ["no_account", "no_account", None, None]
    named = states(link("subscriber:2", "device:1", 3), max_of_type={"subscriber": 1, "other": 500})
    assert [row["outcome"] for row in named] == [None]


def test_the_fingerprint_of_the_past_follows_its_rows_and_not_their_order(session):
    rows = [link(*ENDS, 9), link(*ENDS, 8, source=None), link(*ENDS, 3)]

    def past(*chosen: dict) -> tuple:
        given, params = pa.Table.from_pylist(list(chosen), SCHEMA), identities.Params()
        since = AS_OF - 5 * DAY
        frame = session.createDataFrame(given)
        by_spark = links.tally(frame, AS_OF, since, params).toArrow().to_pylist()[0]
        ours = linking.tally(given, AS_OF, since, params)
        assert [*by_spark] == [*ours]
        counts = [name for name in ours if not name.endswith(("high", "low"))]
        assert [by_spark[name] for name in counts] == [ours[name] for name in counts]
        return tuple(
            row[f"past_{part}"] for row in (by_spark, ours) for part in ("rows", "high", "low")
        )

    assert past(*rows) == past(*rows[::-1]) == past(*rows[:2])
    assert past(*rows)[0] == 2
    assert past(*rows[1:]) != past(*rows)
    assert past({**rows[0], "confidence": 0.5}, rows[1]) != past(*rows)
    assert past(rows[0], {**rows[1], "action": "link"}) != past(*rows)
