"""What a page makes of its lists."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from jobs.diagnosis.definitions import Decision
from jobs.diagnosis.log.adoption import (
    FIRST,
    IN_ORDER,
    PLACES,
    REASON,
    SHOWN,
    TOLD,
    Params,
    measured,
    wrong,
)
from jobs.tables import TABLES

ALL_SHOWN = Decision(None, 100, 1.0, 0.0)


def log(
    pages: list[list[int | None]], period: str = "current", reason: str | None = None,
    scores: list[float] | None = None,
) -> Any:  # fmt: skip
    """An answer per page; a page says where each place of the answer was shown."""
    rows = [
        {"request_id": f"{period}{n}", "position": place, "shown_position": shown,
         "override_reason": reason, "surface": "homepage", "period": period,
         "score": scores[place - 1] if scores else None, "fallback": None}
        for n, page in enumerate(pages)
        for place, shown in enumerate(page, start=1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, pa.schema([
        TABLES["served"].schema.field(name)
        for name in ("request_id", "position", "shown_position", "override_reason", "surface",
                     "period", "score", "fallback")
    ]))  # fmt: skip


def shares(rows: pa.Table) -> dict[str, float]:
    return {str(r["measure"]): float(str(r["share"])) for r in measured(rows, ALL_SHOWN)}


def kinds(*logs: pa.Table, decision: Decision = ALL_SHOWN) -> set[tuple[str, str]]:
    found = wrong(measured(pa.concat_tables(logs), decision), Params(requests=100))
    return {(one.kind, one.subject) for one in found if not one.warning}


def test_a_page_that_shows_the_first_places_as_given_follows_its_lists() -> None:
    assert shares(log([[1, 2, None]] * 5)) == {
        TOLD: 1, SHOWN: 1, IN_ORDER: 1, FIRST: 1, PLACES: pytest.approx(2 / 3),
    }  # fmt: skip


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


def test_a_surface_that_never_tells_beside_one_that_does_is_a_warning() -> None:
    """A mail reports nothing, ever: no fault of today's page."""
    for told, warning in ((300, True), (150, False)):
        page, mail = log([[1, 2]] * told), log([[None, None]] * 200)
        place = mail.column_names.index("surface")
        mail = mail.set_column(place, mail.schema.field("surface"), pa.array(["mail"] * len(mail)))
        found = wrong(measured(pa.concat_tables([page, mail]), ALL_SHOWN), Params(requests=100))
        # Of a shop most of which is silent nobody knows anything.
        assert [(one.kind, one.subject, one.warning) for one in found] == [
            ("not_told", "mail", warning)
        ]


def test_few_answers_say_nothing_and_that_is_told() -> None:
    (one,) = wrong(measured(log([[2, 1]] * 20), ALL_SHOWN), Params(requests=100))
    assert (one.kind, one.warning) == ("adoption_unjudged", True)
    assert "homepage (20); 100 answers" in one.sentence


def test_a_page_that_begins_to_put_its_own_above_every_list_is_named() -> None:
    now: list[list[int | None]] = [[11, 12, 13]] * 200
    before: list[list[int | None]] = [[1, 2, 3]] * 200
    assert kinds(log(now), log(before, "reference")) == {("bypassed", f"homepage: {FIRST}")}
    # Below other surfaces too: from the sixth place of the page to the eleventh.
    sixth: list[list[int | None]] = [[6, 7, 8]] * 200
    assert kinds(log(now), log(sixth, "reference")) == {("bypassed", f"homepage: {FIRST}")}


def test_a_surface_that_begins_below_others_as_ever_is_not_bypassed() -> None:
    page: list[list[int | None]] = [[6, 7, 8]] * 200
    assert kinds(log(page), log(page, "reference")) == set()
    assert kinds(log(page)) == set()  # a new surface
    # On two layouts, and moved up.
    both: list[list[int | None]] = [[1, 2, 3]] * 120 + [[6, 7, 8]] * 80
    assert kinds(log(both), log(both, "reference")) == set()
    assert kinds(log([[1, 2, 3]] * 200), log(page, "reference")) == set()
    # Without the item that was given first it is no less beheaded.
    without: list[list[int | None]] = [[None, 6, 7]] * 200
    assert kinds(log(without), log(without, "reference")) == {("bypassed", f"homepage: {FIRST}")}


def test_a_page_that_shows_one_place_where_it_showed_all_is_named() -> None:
    now: list[list[int | None]] = [[1, *[None] * 19]] * 200
    before: list[list[int | None]] = [list(range(1, 21))] * 200
    assert kinds(log(now), log(before, "reference")) == {("bypassed", f"homepage: {PLACES}")}
    assert kinds(log(now), log(now, "reference")) == set()  # as many as its screens hold


def test_a_handful_of_answers_before_does_not_say_how_many_places_a_page_shows() -> None:
    now: list[list[int | None]] = [[1, *[None] * 19]] * 200
    few: list[list[int | None]] = [list(range(1, 21))] * 5
    assert kinds(log(now), log(few, "reference")) == set()


def test_longer_lists_on_the_same_page_are_no_bypass() -> None:
    now: list[list[int | None]] = [[1, 2, 3, *[None] * 17]] * 200
    before: list[list[int | None]] = [[1, 2, 3, None]] * 200
    assert kinds(log(now), log(before, "reference")) == set()
    assert kinds(log(before), log(now, "reference")) == set()


def test_what_the_agreed_threshold_and_capacity_leave_out_is_not_hidden_by_the_page() -> None:
    now: list[list[int | None]] = [[1, 2, None, None]] * 200
    before: list[list[int | None]] = [[1, 2, 3, 4]] * 200
    scores = [0.9, 0.8, 0.2, 0.1]
    logs = log(now, scores=scores), log(before, "reference", scores=scores)
    assert kinds(*logs) == {("bypassed", f"homepage: {PLACES}")}
    assert kinds(*logs, decision=Decision(0.5, 100, 1.0, 0.0)) == set()
    assert kinds(*logs, decision=Decision(None, 2, 1.0, 0.0)) == set()


def test_reasons_to_override_are_told_where_they_are_more_than_before() -> None:
    page: list[list[int | None]] = [[1, 2]] * 200
    logs = log(page, reason="campaign"), log(page, "reference")
    (one,) = wrong(measured(pa.concat_tables(logs), ALL_SHOWN), Params(requests=100))
    assert (one.kind, one.subject, one.warning) == (
        "bypassed", f"homepage: {REASON}campaign", True,
    )  # fmt: skip
    ever = log(page, reason="campaign"), log(page, "reference", reason="campaign")
    assert wrong(measured(pa.concat_tables(ever), ALL_SHOWN), Params(requests=100)) == []
