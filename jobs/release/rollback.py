"""Serve an earlier release: ``make rollback``, ``make rollback TO=<id>``.

Reads the shelf of releases. Replaces ``CURRENT``, and the pointer in Redis where there is one, and
appends a line to ``history.jsonl``. The release to go to is checked down to every hash first.
"""

from __future__ import annotations

import argparse
import getpass
import logging

from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import releases, stores
from jobs.release.releases import Broken, Release

log = logging.getLogger("nightjar")


def main(chosen: argparse.Namespace) -> None:
    """Roll ``chosen.lake`` back and print what serves now."""
    lake = Lake(chosen.lake)
    try:
        with releases.room("rollback", releases.root(lake)):
            now, target = rollback(lake, chosen.to or None, chosen.redis_url, user())
    except ConnectionError as error:
        raise Fault(f"rollback: {error}") from None
    if now == target.id:
        print(f"{target.id} serves already.")
    else:
        print(f"{target.id} serves now (as of {target.as_of:%Y-%m-%d %H:%M} UTC), not {now}.")
        print(f"The next night that is published serves again; to go back: make rollback TO={now}")


def rollback(
    lake: Lake, to: str | None, redis_url: str | None, by: str
) -> tuple[str | None, Release]:
    """Point at ``to``, or at the newest whole release before the current one.

    Returns the id that served before and the release that serves now. Raises ``Fault`` where there
    is no such release or it is damaged, and ``ConnectionError`` where Redis does not answer; then
    nothing changed.
    """
    now = releases.current_id(lake)
    target = _named(lake, to) if to else _before(lake, now)
    serve(lake, target, redis_url)
    releases.tell(lake, "rollback", by, target.id)
    return now, target


def serve(lake: Lake, target: Release, redis_url: str | None) -> None:
    """Point at a release of the lake, in Redis too where it is given; raises as ``rollback``.

    Redis first: where it goes away, or all is killed in between, ``CURRENT`` is what it was, and
    the same command finishes. Where ``CURRENT`` can't be written, Redis is pointed back, and where
    it went away meanwhile the log says that the two differ.
    """
    now = releases.current_id(lake)
    store = stores.RedisStore(redis_url) if redis_url else None
    if store is not None:
        _hold(store, target)
        store.point(target.id, releases.ids_before(lake, target.id))
    try:
        if now != target.id:
            releases.switch(lake, target.id)
    except OSError:
        if store is not None and now is not None:
            _point_back(lake, store, now, target.id)
        raise
    if store is not None:
        store.close()


def _point_back(lake: Lake, store: stores.RedisStore, now: str, target_id: str) -> None:
    """Point Redis at what ``CURRENT`` names; where it went away that is said, and why ``CURRENT``
    could not be written is left to be raised."""
    try:
        store.point(now, releases.ids_before(lake, now))
    except ConnectionError as error:
        log.warning("rollback=pointers_differ redis=%s current=%s error=%s", target_id, now, error)


def user() -> str:
    """Who decides, for the history."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _named(lake: Lake, release_id: str) -> Release:
    folder = releases.root(lake) / release_id
    if not releases.ID.match(release_id) or not folder.is_dir():
        raise Fault(f"rollback: there is no release {release_id!r}; {_choice(lake)}")
    try:
        return releases.opened(folder, deep=True)
    except Broken as broken:
        raise Fault(f"rollback: {broken}; CURRENT is unchanged; {_choice(lake)}") from None


def _before(lake: Lake, now: str | None) -> Release:
    passed = []
    for release in reversed(releases.before(lake, now)):
        try:
            return releases.opened(release.folder, deep=True)
        except Broken as broken:
            log.warning("rollback=passed_over %s", broken)
            passed.append(str(broken))
    why = f" ({'; '.join(passed)})" if passed else ""
    raise Fault(
        f"rollback: there is no whole release before {now or 'the first'}{why}; "
        f"CURRENT is unchanged; {_choice(lake)}"
    )


def _choice(lake: Lake) -> str:
    ids = [release.id for release in reversed(releases.readable(lake))]
    return f"there are: {', '.join(ids[:10])}" if ids else "the lake holds no release"


def _hold(store: stores.RedisStore, release: Release) -> None:
    """Make sure that Redis has every key of the release, from its embedded store."""
    embedded = stores.LmdbStore(release.path("kv"))
    if store.count(release.id, embedded.items()) == embedded.count():
        return
    written = store.stage(release.id, embedded.items())
    held = store.count(release.id, embedded.items())
    if held != written:
        raise Fault(
            f"rollback: redis {store.place} holds {held} of {written} keys of {release.id}; give "
            "it memory and run again; CURRENT and the pointer in Redis are unchanged"
        )
