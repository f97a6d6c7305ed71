"""Going back is one command, checked first and written down."""

from __future__ import annotations

import argparse
import errno
import json
import resource
from urllib.parse import urlsplit

import pytest

from jobs.__main__ import command
from jobs.errors import Fault
from jobs.release import release, releases, rollback, stores
from tests.release import nights
from tests.release.conftest import start_redis


@pytest.fixture
def three(lake) -> list[str]:
    return [nights.whole(lake, nights.day(n), f"run-{n}") for n in range(3)]


def go(lake, to=None, redis_url=None):
    rollback.main(argparse.Namespace(lake=str(lake.root), to=to, redis_url=redis_url))


def history(lake) -> list[dict]:
    text = (releases.root(lake) / "history.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_without_a_name_the_release_before_serves(lake, three, capsys):
    go(lake)
    assert releases.current_id(lake) == three[1]
    assert f"{three[1]} serves now (as of 2017-12-02 00:00 UTC)" in capsys.readouterr().out
    last = history(lake)[-1]
    assert (last["what"], last["from"], last["to"]) == ("rollback", three[2], three[1])
    assert last["by"]


def test_twice_goes_back_two_nights_and_a_name_goes_anywhere(lake, three):
    go(lake)
    go(lake)
    assert releases.current_id(lake) == three[0]
    go(lake, to=three[2])
    assert releases.current_id(lake) == three[2]


def test_the_night_after_a_rollback_serves_again(lake, three):
    go(lake, to=three[0])
    assert nights.whole(lake, nights.day(3), "run-3") == releases.current_id(lake)


def test_a_damaged_release_is_passed_over(lake, three):
    (releases.root(lake) / three[1] / "index/index.json").write_text("{}")
    go(lake)
    assert releases.current_id(lake) == three[0]


def test_a_damaged_release_is_refused_by_name(lake, three):
    (releases.root(lake) / three[1] / "index/index.json").write_text("{}")
    with pytest.raises(Fault, match=r"index.json has 2 bytes.*CURRENT is unchanged"):
        go(lake, to=three[1])
    assert releases.current_id(lake) == three[2]


@pytest.mark.parametrize("name", ["20180101T000000Z-0123456789", "../x", "latest"])
def test_a_release_that_does_not_exist_is_refused_with_those_that_do(lake, three, name):
    with pytest.raises(Fault, match="there is no release") as caught:
        go(lake, to=name)
    assert all(one in str(caught.value) for one in three)


def test_with_nothing_before_it_nothing_changes(lake):
    only = nights.whole(lake)
    with pytest.raises(Fault, match="no whole release before"):
        go(lake)
    assert releases.current_id(lake) == only


def test_an_empty_lake_is_refused(lake):
    with pytest.raises(Fault, match="the lake holds no release"):
        go(lake)


def test_the_release_that_serves_is_not_rolled_back_to(lake, three, capsys):
    go(lake, to=three[2])
    assert "serves already" in capsys.readouterr().out
    assert history(lake)[-1]["what"] == "publish"


def test_redis_follows_and_lost_keys_are_written_again(lake, redis_url):
    made = [nights.whole(lake, nights.day(n), f"run-{n}", redis_url=redis_url) for n in range(2)]
    store = stores.RedisStore(redis_url)
    store.retire(keep={made[1]})
    assert store.get_of(made[0], "m") is None
    go(lake, redis_url=redis_url)
    assert store.current() == made[0] == releases.current_id(lake)
    assert store.get("s", "similar", "i9")["item_id"][0] == "i0"


def test_an_unreachable_redis_changes_nothing(lake, mortal_redis):
    made = [
        nights.whole(lake, nights.day(n), f"run-{n}", redis_url=mortal_redis.url) for n in range(2)
    ]
    mortal_redis.kill()
    with pytest.raises(Fault, match="does not answer"):
        go(lake, redis_url=mortal_redis.url)
    assert releases.current_id(lake) == made[1]


def test_a_redis_that_goes_away_at_the_last_moment_changes_nothing(
    lake, mortal_redis, tmp_path, monkeypatch
):
    made = [
        nights.whole(lake, nights.day(n), f"run-{n}", redis_url=mortal_redis.url) for n in range(3)
    ]
    told = history(lake)
    point = stores.RedisStore.point

    def too_late(store, *args):
        mortal_redis.kill()
        point(store, *args)

    with monkeypatch.context() as patched:
        patched.setattr(stores.RedisStore, "point", too_late)
        with pytest.raises(Fault, match="does not answer"):
            go(lake, redis_url=mortal_redis.url)
    assert releases.current_id(lake) == made[2]
    assert history(lake) == told
    again = start_redis(tmp_path, port=urlsplit(mortal_redis.url).port)
    try:
        go(lake, redis_url=again.url)
        assert stores.RedisStore(again.url).current() == made[1] == releases.current_id(lake)
    finally:
        again.kill()


def served_and_killed(lake, monkeypatch, number: int) -> str:
    """The release of a night whose gate was killed before it wrote that the release serves."""
    nights.publish(lake, nights.day(number), f"run-{number}")
    night = nights.stage(lake, nights.day(number), f"run-{number}")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(releases, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            release.publish(night)
    return releases.current_id(lake)


def test_what_served_untold_is_told_of_when_another_serves(lake, monkeypatch):
    first = nights.whole(lake)
    second = served_and_killed(lake, monkeypatch, 1)
    go(lake)
    third = served_and_killed(lake, monkeypatch, 2)
    fourth = nights.whole(lake, nights.day(3), "run-3")
    lines = history(lake)
    assert [(one["what"], one["from"], one["to"]) for one in lines] == [
        ("publish", None, first), ("publish", first, second), ("rollback", second, first),
        ("publish", first, third), ("publish", third, fourth),
    ]  # fmt: skip
    assert [one["by"] for one in lines[1::2]] == ["unknown", "unknown"]
    assert (lines[0]["by"], lines[4]["by"]) == ("run-1", "run-3")


def test_a_rollback_that_was_killed_untold_is_told_of_by_the_next_one(lake, three, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(releases, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            go(lake)
    assert releases.current_id(lake) == three[1]
    go(lake)
    assert [(one["what"], one["from"], one["to"]) for one in history(lake)[3:]] == [
        ("rollback", three[2], three[1]), ("rollback", three[1], three[0]),
    ]  # fmt: skip


def test_killed_between_redis_and_current_the_same_command_finishes(lake, redis_url, monkeypatch):
    made = [nights.whole(lake, nights.day(n), f"run-{n}", redis_url=redis_url) for n in range(3)]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(releases, "switch", killed)
        with pytest.raises(KeyboardInterrupt):
            go(lake, redis_url=redis_url)
    go(lake, redis_url=redis_url)
    assert stores.RedisStore(redis_url).current() == made[1] == releases.current_id(lake)
    last = history(lake)[-1]
    assert (last["what"], last["from"], last["to"]) == ("rollback", made[2], made[1])


def test_where_current_cannot_be_written_redis_serves_what_it_served(lake, redis_url):
    made = [nights.whole(lake, nights.day(n), f"run-{n}", redis_url=redis_url) for n in range(2)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(Fault, match="cannot be written"):
            go(lake, redis_url=redis_url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stores.RedisStore(redis_url).pointed() == (made[1], [made[0]])
    assert releases.current_id(lake) == made[1]


def test_where_redis_goes_away_too_the_full_disk_is_told_and_that_the_pointers_differ(
    lake, mortal_redis, monkeypatch, caplog
):
    made = [
        nights.whole(lake, nights.day(n), f"run-{n}", redis_url=mortal_redis.url) for n in range(2)
    ]

    def full(*_):
        mortal_redis.kill()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(releases, "switch", full)
    with pytest.raises(Fault, match=r"cannot be written \(No space left"):
        go(lake, redis_url=mortal_redis.url)
    assert f"pointers_differ redis={made[0]} current={made[1]}" in caplog.text
    assert releases.current_id(lake) == made[1]


def test_the_command_line_rolls_back_and_shows(lake, three, capsys):
    command(["rollback", "--lake", str(lake.root), "--to", three[0]])
    command(["show", "--lake", str(lake.root), "p0"])
    assert f"release {three[0]}" in capsys.readouterr().out
