"""What a page makes of its lists."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from jobs.diagnosis.log.adoption import (
    FIRST,
    IN_ORDER,
    REASON,
    SHOWN,
    TOLD,
    Params,
    measured,
    wrong,
)
from jobs.tables import TABLES


def log(pages: list[list[int | None]], period: str = "current", reason: str | None = None) -> Any:
    """An answer per page; a page says where each place of the answer was shown."""
    rows = [
        {"request_id": f"{period}{n}", "position": place, "shown_position": shown,
         "override_reason": reason, "surface": "homepage", "period": period}
        for n, page in enumerate(pages)
        for place, shown in enumerate(page, start=1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, pa.schema([
        TABLES["served"].schema.field(name)
        for name in ("request_id", "position", "shown_position", "override_reason", "surface",
                     "period")
    ]))  # fmt: skip


def shares(rows: pa.Table) -> dict[str, float]:
    return {str(r["measure"]): float(str(r["share"])) for r in measured(rows)}


def kinds(*logs: pa.Table) -> set[tuple[str, str]]:
    found = wrong(measured(pa.concat_tables(logs)), Params(requests=100))
    return {(one.kind, one.subject) for one in found}


def test_a_page_that_shows_the_first_places_as_given_follows_its_lists() -> None:
    assert shares(log([[1, 2, None]] * 5)) == {TOLD: 1, SHOWN: 1, IN_ORDER: 1, FIRST: 1}


def test_reordered_hidden_and_beheaded_answers_are_told_apart() -> None:
    found = shares(log([[2, 1, None], [None, None, None], [None, 1, 2], [1, 2, 3]]))
    assert found[SHOWN] == 0.75
    assert found[IN_ORDER] == pytest.approx(2 / 3)
    assert found[FIRST] == pytest.approx(1 / 3)


def test_reasons_are_counted_by_answer() -> None:
    found = shares(pa.concat_tables([log([[1, 2]], reason="campaign"), log([[1, 2]], "reference")]))
    assert found[REASON + "campaign"] == 1.0


def test_a_page_as_ever_raises_nothing() -> None:
    page: list[list[int | None]] = [[1, 2, None]] * 190 + [[2, 1, None]] * 10
    assert kinds(log(page), log(page, "reference")) == set()


def test_a_page_that_begins_to_reorder_is_named() -> None:
    now: list[list[int | None]] = [[1, 2, None]] * 150 + [[2, 1, None]] * 50
    before: list[list[int | None]] = [[1, 2, None]] * 200
    assert ("bypassed", f"homepage: {IN_ORDER}") in kinds(log(now), log(before, "reference"))


def test_a_page_that_never_followed_its_lists_is_named() -> None:
    page: list[list[int | None]] = [[None, None]] * 150 + [[1, 2]] * 50
    assert ("bypassed", f"homepage: {SHOWN}") in kinds(log(page), log(page, "reference"))


def test_a_log_that_never_says_what_was_shown_is_told_and_blames_no_page() -> None:
    page: list[list[int | None]] = [[None, None]] * 200
    assert kinds(log(page)) == {("not_told", "homepage")}


def test_few_answers_say_nothing() -> None:
    assert kinds(log([[2, 1]] * 20)) == set()
