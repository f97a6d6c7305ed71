"""What a step sees as of an earlier cut: nothing that became known later."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.evaluation import outcomes
from jobs.io import Lake
from jobs.signals import sessions
from tests.conftest import AS_OF
from tests.signals.graphs import DAY, Shop, event, link


@pytest.fixture
def shop(lake: Lake, tmp_path: Path):
    """Makes a shop whose night has run up to its sessions: ``shop(events, links)``."""

    def make(*rows) -> Shop:
        made = Shop(lake, tmp_path / "source", *rows)
        made.run()
        night = made.night(step="sessions")
        sessions.run(night, sessions.Params())
        night.close(sessions.Params(), "test")
        lake.publish("sessions", AS_OF, "test-run")
        return made

    return make


def owners(history) -> dict[str, str]:
    """Person by event."""
    return {row["event_id"]: row["person_id"] for row in history.toArrow().to_pylist()}


def test_a_link_that_came_after_the_cut_tells_nothing_about_events_before_it(shop):
    made = shop(
        [event("cookie:c", 20), event("account:1", 15), event("account:1", 2)],
        [link("cookie:c", "account:1", 5)],
    )
    night = made.night(step="ranker")
    assert set(owners(night.frame("history")).values()) == {"cookie:c"}
    seen = sessions.at(night, AS_OF - 10 * DAY)
    assert owners(seen.history) == {
        "cookie:c@20": "cookie:c", "account:1@15": "account:1",
    }  # fmt: skip
    assert sorted(seen.known.persons.toArrow()["person_id"].to_pylist()) == [
        "account:1", "cookie:c",
    ]  # fmt: skip
    later = sessions.at(night, AS_OF - 3 * DAY)
    assert set(owners(later.history).values()) == {"cookie:c"}


def test_a_login_that_came_to_be_known_after_the_cut_gives_its_session_to_nobody_at_it(shop):
    on_shared = {"received_time": AS_OF - 5 * DAY}
    made = shop(
        [event("device:d", 20), event("account:1", 30), event("account:2", 30)],
        [link("device:d", "account:1", 20 - 1 / 144, **on_shared),
         link("device:d", "account:2", 40)],
    )  # fmt: skip
    night = made.night(step="ranker")
    # Two accounts on one device: it is nobody's, and its session is whose login it holds.
    assert owners(night.frame("history"))["device:d@20"] == "account:1"
    # Before the second account showed, the device was the first one's alone.
    assert owners(sessions.at(night, AS_OF - 10 * DAY).history)["device:d@20"] == "account:2"


def test_a_cut_without_later_links_is_the_nights_own_history_up_to_it(shop):
    made = shop(
        [event("cookie:c", 20), event("account:1", 15), event("account:1", 2)],
        [link("cookie:c", "account:1", 12)],
    )
    night = made.night(step="ranker")
    seen = sessions.at(night, AS_OF - 10 * DAY)
    assert owners(seen.history) == {"cookie:c@20": "cookie:c", "account:1@15": "cookie:c"}


def test_a_client_session_in_which_an_account_acts_after_the_cut_says_nothing_at_it(shop):
    minutes = 1 / 1440
    in_one = {"session_id": "s"}
    made = shop(
        [event("cookie:c", 10 + 10 * minutes, **in_one),
         event("account:1", 10 - 5 * minutes, **in_one), event("account:1", 30)],
        None,
    )  # fmt: skip
    viewed = f"cookie:c@{10 + 10 * minutes}"
    night = made.night(step="ranker")
    assert owners(night.frame("history"))[viewed] == "account:1"
    seen = sessions.at(night, AS_OF - 10 * DAY)
    assert owners(seen.history) == {viewed: "cookie:c", "account:1@30": "account:1"}
    assert not seen.as_published
    # Where nothing was claimed yet the published rows serve, whatever is claimed later.
    earlier = sessions.at(night, AS_OF - 20 * DAY)
    assert owners(earlier.history) == {"account:1@30": "account:1"}
    assert earlier.as_published


def test_an_account_that_refuses_after_the_cut_takes_no_event_away_at_it(shop):
    minutes = 1 / 1440
    in_one = {"session_id": "s"}
    made = shop(
        [event("cookie:c", 10 + 10 * minutes, **in_one),
         event("account:1", 10 - 5 * minutes, **in_one)],
        None,
        [{"key_type": "account", "key": "1", "consents": []}],
    )  # fmt: skip
    night = made.night(step="ranker")
    assert owners(night.frame("history")) == {}
    seen = sessions.at(night, AS_OF - 10 * DAY)
    assert owners(seen.history) == {f"cookie:c@{10 + 10 * minutes}": "cookie:c"}


def test_without_claims_every_cut_is_the_published_history(shop):
    night = shop([event("account:1", 10), event("account:1", 2)], None).night(step="ranker")
    seen = sessions.at(night, AS_OF - 5 * DAY)
    assert owners(seen.history) == {"account:1@10": "account:1"}
    assert seen.as_published


def test_what_was_done_after_a_cut_is_told_of_who_was_known_at_it(session):
    then = session.createDataFrame(
        [("cookie", "c", "cookie:c"), ("account", "1", "account:1")],
        "key_type string, key string, person_id string",
    )
    after = session.createDataFrame(
        [
            # Merged since: a key keeps the person that it was of at the cut.
            ("cookie", "c", "cookie:c", "milk", "key"),
            ("account", "1", "cookie:c", "bread", "key"),
            # New since: of the person who held the founding key.
            ("device", "new", "cookie:c", "tea", "key"),
            # Unknown altogether at the cut.
            ("account", "9", "account:9", "salt", "key"),
            # Somebody had logged in: it is that person's, whose key it ever was.
            ("cookie", "c", "account:1", "oil", "login"),
            ("cookie", "c", "account:9", "rice", "login"),
        ],
        "key_type string, key string, person_id string, item_id string, resolved_by string",
    )  # fmt: skip
    found = outcomes.of_persons(after, then).toArrow()
    pairs = zip(found["person_id"].to_pylist(), found["item_id"].to_pylist(), strict=True)
    assert sorted(pairs) == [
        ("account:1", "bread"), ("account:1", "oil"), ("cookie:c", "milk"), ("cookie:c", "tea"),
    ]  # fmt: skip
