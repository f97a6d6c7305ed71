"""Which release a night will replace that has read more than it: what may be shown goes by that."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from jobs import io, lock, steps
from jobs.__main__ import command
from jobs.errors import Fault
from jobs.io import Lake
from jobs.night import Night
from jobs.refresh.route import Refresh
from jobs.release import release, releases, replaced
from jobs.release.rollback import rollback
from tests.release import nights

FIVE = nights.day(1) + timedelta(hours=5)


@pytest.fixture
def hour(lake: Lake) -> str:
    """A night serves, and then its refresh of five hours after the next night's run date."""
    nights.whole(lake)
    named = io.label(nights.AS_OF)
    return nights.whole(lake, FIVE, "hour", refresh=Refresh(base=named, night=named))


def of(lake: Lake, as_of: datetime, source: str = "test", **kwargs) -> replaced.Replaced | None:
    return replaced.find(Night(lake, as_of, "run", source, "catalogue", **kwargs))


def test_a_night_replaces_the_refresh_that_has_read_on(lake: Lake, hour: str) -> None:
    found = replaced.Replaced(hour, FIVE)
    assert of(lake, nights.day(1)) == found
    assert of(lake, nights.AS_OF) == found, "the night of its own chain, run again"


def test_nothing_is_replaced_that_has_read_less_or_goes_on_serving(lake: Lake, hour: str) -> None:
    assert of(lake, FIVE) is None
    assert of(lake, nights.day(2)) is None
    assert of(lake, nights.day(-1)) is None, "an older night will not serve"
    assert of(lake, nights.day(1), source="another") is None
    chain = Refresh(io.label(nights.AS_OF), io.label(nights.AS_OF))
    assert of(lake, nights.day(1), refresh=chain) is None


def test_a_night_that_replaced_a_refresh_is_replaced_as_that_would_be(
    lake: Lake, hour: str
) -> None:
    """Run again, or followed by the next of a backfill, before another refresh has been."""
    replacing(lake, nights.day(1), hour)
    again = nights.night(lake, nights.day(1), "next")
    first = release.publish(nights.stage(lake, nights.day(1), "next"))
    assert releases.current_id(lake) == first
    assert replaced.find(again) == replaced.Replaced(first, FIVE)
    assert of(lake, nights.day(1) + timedelta(hours=2)) == replaced.Replaced(first, FIVE)


def test_a_night_whose_catalogue_was_looked_at_before_refreshes_read_on_is_stopped(
    lake: Lake, hour: str
) -> None:
    asked = replacing(lake, nights.day(1), hour)
    assert replaced.overtaken(asked) is None
    six, named = FIVE + timedelta(hours=1), io.label(nights.AS_OF)
    chain = Refresh(base=io.label(FIVE), night=named)
    later = nights.whole(lake, six, "later", refresh=chain)
    said = replaced.overtaken(asked)
    assert said is not None
    assert f"was looked at for {io.label(FIVE)}, and {later} serves, which has read on" in said
    assert replaced.overtaken(dataclasses.replace(asked, step="ranker")) is not None
    made = nights.stage(lake, nights.day(1), "next")
    assert release.verify(made) == [said]
    # Steps that another look at the catalogue begins with, or runs beside, go on.
    for step in replaced.BEFORE:
        assert replaced.overtaken(dataclasses.replace(asked, step=step)) is None
    # Tables of an earlier run of this date may be about to be made anew; what is published may not
    # stand on them.
    another = dataclasses.replace(asked, run_id="another")
    assert replaced.overtaken(another) == said
    assert replaced.overtaken(dataclasses.replace(another, step="ranker")) is None


def test_a_step_of_a_night_that_was_overtaken_does_not_begin(lake: Lake, hour: str) -> None:
    replacing(lake, nights.day(1), hour)
    chain = Refresh(base=io.label(FIVE), night=io.label(nights.AS_OF))
    nights.whole(lake, FIVE + timedelta(hours=1), "later", refresh=chain)
    line = [f"--lake={lake.root}", "--source=test", "--run-id=next",
            f"--as-of={nights.day(1).isoformat()}"]  # fmt: skip
    lock.acquire(lake, "next")
    with pytest.raises(Fault, match="item_lists: the catalogue was looked at for"):
        command(["run", "item_lists", *line])


def test_a_catalogue_that_was_looked_at_again_alone_is_no_release(lake: Lake, hour: str) -> None:
    asked = replacing(lake, nights.day(1), hour)
    path = lake.published("filters", nights.day(1)).table("manifest.json")
    io.write_json(path, {**io.read_json(path), "notes": {}})
    assert "for another refresh than what people refused" in (replaced.overtaken(asked) or "")


def test_what_a_clock_that_was_ahead_has_made_is_replaced_by_its_night_as_before(
    lake: Lake,
) -> None:
    nights.whole(lake)
    named, year = io.label(nights.AS_OF), datetime.now(UTC) + timedelta(days=365)
    ahead = nights.whole(lake, year, "ahead", refresh=Refresh(base=named, night=named))
    assert releases.current_id(lake) == ahead
    assert of(lake, nights.day(1)) is None
    night = nights.whole(lake, nights.day(1), "next")
    assert releases.current_id(lake) == night
    assert of(lake, nights.day(2)) is None


def test_what_was_rolled_back_is_replaced_by_nothing(lake: Lake, hour: str) -> None:
    rollback(lake, None, None, "test")
    assert of(lake, nights.day(1)) is None


def test_an_empty_lake_has_nothing_to_replace(lake: Lake) -> None:
    assert of(lake, nights.AS_OF) is None


def test_what_one_step_found_the_next_ones_are_told_and_the_release_says(
    lake: Lake, hour: str
) -> None:
    first = nights.night(lake, nights.AS_OF)
    assert replaced.noted(first.published("catalogue")) is None
    told = release.describe("id", first, release.Params(), manifests(first))
    assert told["shown_as_of"] == told["as_of"] == nights.AS_OF.isoformat()
    asked = replacing(lake, nights.day(1), hour)
    found = replaced.noted(asked.published("catalogue"))
    assert found == replaced.Replaced(hour, FIVE)
    assert replaced.read(asked, found).id == hour
    told = release.describe("id", asked, release.Params(), manifests(asked))
    assert (told["as_of"], told["shown_as_of"]) == (nights.day(1).isoformat(), FIVE.isoformat())


def test_a_release_that_went_meanwhile_is_missed(lake: Lake, hour: str) -> None:
    asked = nights.night(lake, nights.day(1), "next")
    (releases.root(lake) / hour / "manifest.json").unlink()
    with pytest.raises(Fault, match=r"takes over .* run the night again from its step catalogue"):
        replaced.read(asked, replaced.Replaced(hour, FIVE))


def replacing(lake: Lake, as_of: datetime, hour: str) -> Night:
    """A night's tables, of which the catalogue is as of the refresh that it will replace."""
    nights.publish(lake, as_of, "next")
    notes = lake.published("catalogue", as_of).manifest["notes"]
    assert notes == {replaced.NOTE: {"release": hour, "as_of": FIVE.isoformat()}}
    return nights.night(lake, as_of, "next")


def manifests(night: Night) -> dict[str, dict]:
    return {step: night.published(step).manifest for step in steps.STEPS if step != "release"}
