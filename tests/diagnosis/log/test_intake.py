"""A log that lacks something is named, and a calm one is not."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from jobs.diagnosis.log import intake

DAY = date(2024, 3, 1)


def counted(**rows: float) -> pa.Table:
    names = [
        value for name, value in vars(intake).items()
        if name.isupper() and isinstance(value, str)
    ]  # fmt: skip
    share = {getattr(intake, name): value for name, value in rows.items()}
    return pa.table({
        "period": ["current"] * len(names),
        "outcome": names,
        "rows": [int(1_000 * share.get(name, 0)) for name in names],
        "share": [share.get(name, 0.0) for name in names],
    })  # fmt: skip


def days(young: float, was: float, unknown: float = 0.0, seed: int = 0) -> pa.Table:
    """Six weeks of 400 requests a day, each of a visitor of its own; ``young`` and ``was``: shares
    now and before."""
    rng = np.random.default_rng(seed)
    requests = rng.poisson(400, 42)
    now = np.arange(42) < 14
    share = np.where(now, young, was) + rng.normal(0, 0.01, 42)
    by_young = rng.binomial(requests, np.clip(share, 0, 1))
    return pa.table({
        "period": np.where(now, "current", "reference"),
        "day": [DAY - timedelta(days=n) for n in range(42)],
        "requests": requests,
        "young": by_young,
        "unknown": rng.binomial(requests, np.where(now, unknown, 0.0)),
        "visitors": requests,
        "newcomers": by_young,
    })  # fmt: skip


def put(rows: pa.Table, **columns: np.ndarray) -> pa.Table:
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values))
    return rows


def kinds(counts: pa.Table, by_day: pa.Table) -> list[str]:
    return [one.kind for one in intake.found(counts, by_day)]


def test_thirty_calm_logs_raise_nothing() -> None:
    for seed in range(30):
        assert kinds(counted(), days(0.15, 0.15, seed=seed)) == []


@pytest.mark.parametrize(
    "outcome", ["INCOMPLETE", "REPEATED", "NO_FEATURES", "BEFORE", "STRAY", "NO_PERSON"]
)
def test_what_a_log_lacks_is_named(outcome: str) -> None:
    found = intake.found(counted(**{outcome: 0.95}), days(0.15, 0.15))
    assert [(one.kind, one.subject) for one in found] == [
        ("incomplete_log", getattr(intake, outcome))
    ]
    assert "95.0%" in found[0].sentence


def test_single_bad_rows_are_the_noise_of_a_delivery() -> None:
    assert kinds(counted(INCOMPLETE=0.001, STRAY=0.01), days(0.15, 0.15)) == []


def test_known_people_who_come_as_strangers_are_named() -> None:
    assert kinds(counted(), days(0.30, 0.15)) == ["split_persons"]


def test_keys_that_changed_a_week_ago_are_not_hidden_by_the_week_before() -> None:
    rows, calm = days(0.55, 0.10), days(0.10, 0.10)
    lately = np.arange(42) < 8
    mixed = {
        name: np.where(lately, rows[name].to_numpy(), calm[name].to_numpy())
        for name in ("requests", "young", "visitors", "newcomers")
    }
    # As a source may have them: in no order.
    mixed_up = put(rows, **mixed).take(pa.array(np.random.default_rng(3).permutation(42)))
    (found,) = intake.found(counted(), mixed_up)
    assert (found.kind, found.subject) == ("split_persons", "keys")
    assert "of requests of the last 7 days come from people who came up lately" in found.sentence


def test_newcomers_who_ask_more_often_are_no_more_of_them() -> None:
    rows = days(0.30, 0.15)
    now = pa.compute.equal(rows["period"], "current").to_numpy()
    few = np.where(now, 60, rows["newcomers"].to_numpy())
    fewer = np.where(now, 340, rows["visitors"].to_numpy())
    assert kinds(counted(), put(rows, newcomers=few, visitors=fewer)) == []


def test_newcomers_whom_a_campaign_brings_take_nobody_away() -> None:
    rows = days(0.30, 0.15)
    now = pa.compute.equal(rows["period"], "current").to_numpy()
    more = np.where(now, 150, rows["newcomers"].to_numpy())
    all_of_them = np.where(now, 340 + 150, rows["visitors"].to_numpy())
    assert kinds(counted(), put(rows, newcomers=more, visitors=all_of_them)) == []


def test_a_few_more_newcomers_are_not() -> None:
    assert kinds(counted(), days(0.18, 0.15)) == []


def test_releases_that_nobody_knows_are_named() -> None:
    assert kinds(counted(), days(0.15, 0.15, unknown=0.5)) == ["unknown_release"]


def test_what_a_log_lacked_in_the_weeks_before_is_no_symptom_of_now() -> None:
    counts = counted(NO_FEATURES=0.9)
    before = counts.set_column(0, "period", pa.array(["reference"] * counts.num_rows))
    assert kinds(before, days(0.15, 0.15)) == []


def test_rows_of_no_known_day_are_told_and_fail_nothing() -> None:
    found = intake.found(counted(UNDATED=0.2), days(0.15, 0.15))
    assert [(one.subject, one.warning) for one in found] == [(intake.UNDATED, True)]
    assert intake.found(counted(UNDATED=0.001), days(0.15, 0.15)) == []


def test_two_forms_of_a_log_are_told_and_fail_nothing() -> None:
    found = intake.found(counted(TWO_FORMS=0.2), days(0.15, 0.15))
    assert [(one.kind, one.warning) for one in found] == [("incomplete_log", True)]
