"""Late feeds: told by their name and hours, apart from what is merely beside them."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis.labels import feeds
from jobs.diagnosis.labels.feeds import Cube

TYPES, CHANNELS, KEYS = ["click", "purchase", "view"], ["app", "store", "web"], ["account", "card"]
NAMES = {"event_type": TYPES, "channel": CHANNELS, "key_type": KEYS}


def shop(
    seed: int, late=None, start: float = 14.0, hours: float = 24.0, rows: int = 30_000
) -> Cube:
    """Six weeks of events, few of them late by days; ``late``: which are late since ``start`` days
    ago, a function of the codes of type, channel and key type."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, 42 * 24, rows)
    channel = rng.choice(3, rows, p=[0.3, 0.2, 0.5])
    codes = {
        "event_type": rng.choice(3, rows, p=[0.3, 0.1, 0.6]), "channel": channel,
        "key_type": np.where(rng.random(rows) < np.array([0.1, 0.7, 0.3])[channel], 1, 0),
    }  # fmt: skip
    bad_day = rng.random(43) < 0.05  # on some days much is late
    chance = np.where(bad_day[(age // 24).astype(int)], 0.2, 0.01)
    lag = np.where(rng.random(rows) < chance, rng.uniform(1, 60, rows), 0.05)
    if late is not None:
        lag = np.where(late(**codes) & (age < start * 24), lag + hours, lag)
    here = lag < age
    codes = {name: code[here] for name, code in codes.items()}
    return feeds.cube(age[here] < 14 * 24, age[here], lag[here], codes, NAMES)


def test_a_cube_holds_every_event_once() -> None:
    made = shop(0, rows=500)
    assert 480 < made.cells.total <= 500
    assert sum(made.cells.of(of).total for feed, of in made.feeds() if feed.kind == "channel") == (
        made.cells.total
    )


@pytest.mark.parametrize("seed", range(60))
def test_a_clean_shop_has_no_late_feed(seed: int) -> None:
    assert feeds.late_feeds(shop(seed, rows=8_000), 200) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("channel store", lambda channel, **_: channel == 1),
        ("key_type card", lambda key_type, **_: key_type == 1),
        ("event_type view", lambda event_type, **_: event_type == 2),
        ("event_type view, channel web", lambda event_type, channel, **_:
            (event_type == 2) & (channel == 2)),
        ("all feeds", lambda channel, **_: channel >= 0),
    ],
)  # fmt: skip
def test_the_late_feed_is_named_alone_with_its_hours(seed: int, name: str, late) -> None:
    found = feeds.late_feeds(shop(seed, late), 200)
    assert [str(one.feed) for one in found] == [name]
    assert found[0].hours == pytest.approx(24, abs=3)


@pytest.mark.parametrize("seed", range(4))
def test_two_late_feeds_are_both_named(seed: int) -> None:
    found = feeds.late_feeds(
        shop(seed, lambda channel, event_type, **_: (channel == 1) | (event_type == 0)), 200
    )
    assert {str(one.feed) for one in found} == {"channel store", "event_type click"}


@pytest.mark.parametrize("seed", range(4))
def test_a_feed_that_is_late_since_the_day_before_yesterday_is_named(seed: int) -> None:
    found = feeds.late_feeds(shop(seed, lambda channel, **_: channel == 1, 3.0, 24.0), 200)
    assert [str(one.feed) for one in found] == ["channel store"]


@pytest.mark.parametrize("seed", range(4))
def test_a_feed_of_which_nothing_has_come_lately_is_silent(seed: int) -> None:
    found = feeds.late_feeds(shop(seed, lambda channel, **_: channel == 1, 3.0, 96.0), 200)
    assert [str(one.feed) for one in found] == ["channel store"]
    assert found[0].silent > 24
