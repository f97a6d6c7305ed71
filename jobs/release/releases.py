"""The shelf of releases: which there are, which is current, which are whole, which are kept.

Layout under the lake's root::

    releases/CURRENT             one line, the id of the release that is served
    releases/<id>/manifest.json  written last: a folder without it is no release
    releases/<id>/…              the files that the manifest names
    releases/history.jsonl       one line per publication and rollback

A release never changes after its rename into ``releases/``; only ``CURRENT`` is ever replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from errno import EACCES, EDQUOT, EFBIG, EMLINK, ENOSPC, EOPNOTSUPP, EPERM, EROFS, EXDEV
from pathlib import Path
from typing import Any

from jobs import io
from jobs.errors import Fault
from jobs.io import Lake

FORMAT = 2  # raised when a reader of the older format could misread a release
REJECTED = "shadow reject"  # the line of the history of a candidate that never served
# Of a release: what bans and margin floors take out, and where.
REMOVED = "filters/removed_items"
# How far two machines' clocks may be apart.
AHEAD = timedelta(minutes=5)
# Bytes up to which a reader always checks a file's hash, not only its size, and up to which
# releases have files of their own.
SMALL = 1 << 20
ID = re.compile(r"^\d{8}T\d{6}Z-[0-9a-f]{10}$")
_NO_ROOM = (ENOSPC, EDQUOT, EFBIG, EACCES, EROFS, EPERM)


class Broken(Fault):
    """A release that is not whole; readers take the one before."""


@dataclass(frozen=True)
class Release:
    """One release and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    @property
    def as_of(self) -> datetime:
        return datetime.fromisoformat(self.manifest["as_of"])

    @property
    def shown_as_of(self) -> datetime:
        """The instant up to which it says what may be shown; after :attr:`as_of` in a night that
        serves in place of what has read on."""
        return datetime.fromisoformat(self.manifest.get("shown_as_of") or self.manifest["as_of"])

    @property
    def night(self) -> datetime:
        """The run date of its night: its own, or that of the night which a refresh goes on from."""
        named = self.manifest.get("night")
        return io.parse_as_of(named) if named else self.as_of

    @property
    def age(self) -> tuple[str, str, str, str, str]:
        """Sorts releases from old to new: by their night and when it was published, by run date,
        by the moment of publishing. A night that is published, for the first time or again, after
        refreshes of what was there before is newer than they."""
        night, as_of = (moment.astimezone(UTC).isoformat() for moment in (self.night, self.as_of))
        return (night, self.night_created, as_of, self.manifest.get("created", ""), self.id)

    @property
    def night_created(self) -> str:
        """When its night was published."""
        return str(self.manifest.get("night_created") or self.manifest.get("created", ""))

    def path(self, name: str) -> Path:
        """The path of one of its files or folders."""
        return self.folder / name


def root(lake: Lake) -> Path:
    """The folder of all releases."""
    return lake.root / "releases"


def new_id(as_of: datetime, digest: str) -> str:
    """``20171201T000000Z-0123456789``: ids sort by run date."""
    return f"{stamp(as_of)}-{digest[:10]}"


def stamp(as_of: datetime) -> str:
    """How the id of a release of this run date begins."""
    return f"{as_of:%Y%m%dT%H%M%SZ}"


def moment(release_id: str) -> datetime | None:
    """The run date that an id begins with; None for what is no id."""
    if not ID.match(release_id):
        return None
    try:
        return datetime.strptime(release_id[:16] + "+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return None


def history(lake: Lake) -> list[dict[str, Any]]:
    """The lines of ``history.jsonl``, the oldest first."""
    try:
        lines = (root(lake) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    told = [json.loads(line) for line in lines if line.strip()]
    return [one for one in told if isinstance(one, dict)]


def served(lake: Lake) -> list[str]:
    """The ids of the releases that served here, by the history, the oldest first, whether they are
    kept or not."""
    told = [one for one in history(lake) if one.get("what") != REJECTED]
    return [one["to"] for one in told if one.get("to")]


def published_ids(lake: Lake) -> set[str]:
    """The ids of all releases that were ever published here, whether they are kept or not."""
    return set(served(lake))


def current_id(lake: Lake) -> str | None:
    """What ``CURRENT`` names, or None where there is no such file or it names nothing."""
    try:
        text = (root(lake) / "CURRENT").read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if ID.match(text) else None


def switch(lake: Lake, release_id: str) -> None:
    """Serve another release: one atomic replace of ``CURRENT``. What served until then is told of
    first where a kill kept its line from being written; by whom it was made to is not known."""
    now = current_id(lake)
    if now is not None and now != release_id:
        tell(lake, "rollback" if now in published_ids(lake) else "publish", "unknown", now)
    io.write_text(root(lake) / "CURRENT", release_id + "\n")


def load(folder: Path) -> Release:
    """Read a release's manifest; raises ``Broken`` where it is missing, cut short or foreign."""
    path = folder / "manifest.json"
    try:
        manifest = io.read_json(path)
    except FileNotFoundError:
        raise Broken(f"release {folder.name}: {path} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise Broken(f"release {folder.name}: {path} is cut short or not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise Broken(f"release {folder.name}: its format is {found!r}, this program reads {FORMAT}")
    missing = [name for name in ("id", "as_of", "files", "tables") if name not in manifest]
    if missing:
        raise Broken(f"release {folder.name}: its manifest lacks {', '.join(missing)}")
    return Release(folder, manifest)


def damage(release: Release, deep: bool = False) -> list[str]:
    """What is wrong with a release's files against its manifest, a sentence each.

    Sizes are always looked at, hashes of files up to 1 MiB too; ``deep`` hashes every file and
    names files that the manifest does not know.
    """
    found = []
    for name, facts in release.manifest["files"].items():
        path = release.path(name)
        try:
            size = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            found.append(f"{name} is missing")
            continue
        if size != facts["bytes"]:
            found.append(f"{name} has {size} bytes, its manifest says {facts['bytes']}")
        elif (deep or size <= SMALL) and digest(path) != facts["sha256"]:
            found.append(f"{name} has other content than its manifest says (sha256)")
    if deep:
        known = set(release.manifest["files"]) | {"manifest.json"}
        found += [f"{name} is not in the manifest" for name in files_of(release.folder) - known]
    return found


def opened(folder: Path, deep: bool = False) -> Release:
    """A release that is whole; raises ``Broken`` with all its damage in one message."""
    release = load(folder)
    found = damage(release, deep)
    if found:
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        raise Broken(f"release {folder.name} is damaged: {shown}")
    return release


def readable(lake: Lake) -> list[Release]:
    """Every release whose manifest can be read, oldest first; its files are not looked at."""
    found = []
    for folder in _folders(lake):
        try:
            found.append(load(folder))
        except Broken:
            continue
    return sorted(found, key=lambda release: release.age)


def serving(lake: Lake, deep: bool = False) -> tuple[Release, list[str]]:
    """The newest valid release that may be served, and why newer ones were passed over.

    It is the one that ``CURRENT`` names. Where that is not whole, it is the newest whole one that
    is not newer than it: what a rollback left behind is not taken up again. Raises ``Fault`` where
    no release is whole.
    """
    passed: list[str] = []
    wanted = current_id(lake)
    if wanted is None:
        passed.append(f"{root(lake) / 'CURRENT'} is missing or names no release")
    else:
        try:
            return opened(root(lake) / wanted, deep), passed
        except Broken as broken:
            passed.append(str(broken))
    for release in reversed(before(lake, wanted)):
        try:
            return opened(release.folder, deep), passed
        except Broken as broken:
            passed.append(str(broken))
    raise Fault(
        f"releases: {root(lake)} holds no whole release ({'; '.join(passed)}); run a night with "
        "`make run`, or restore the folder from a backup"
    )


def before(lake: Lake, release_id: str | None) -> list[Release]:
    """Readable releases older than the named one, oldest first; all of them for None."""
    shelf = readable(lake)
    if release_id is None:
        return shelf
    for place, release in enumerate(shelf):
        if release.id == release_id:
            return shelf[:place]
    # Its manifest is gone: the run date in its id still says what is not newer.
    return [release for release in shelf if release.id[:16] <= release_id[:16]]


def ids_before(lake: Lake, release_id: str) -> list[str]:
    """The ids of the readable releases older than the named one, newest first."""
    return [release.id for release in reversed(before(lake, release_id))]


def newest_before(lake: Lake, as_of: datetime) -> Release | None:
    """The newest readable release of this run date or an earlier one."""
    found = [release for release in readable(lake) if release.as_of <= as_of]
    return found[-1] if found else None


def retire(lake: Lake, keep: dict[str, int], spare: set[str]) -> list[str]:
    """Delete releases beyond what is kept of each kind; returns the ids deleted.

    Kept are the newest ``keep[kind]`` releases, and the newest one of each of the newest
    ``keep[kind]`` run dates: a night that is run again pushes out no earlier night. Never deleted
    are the current release, one newer than it, and one in ``spare``. A folder without a readable
    manifest is left for a person to look at.
    """
    shelf = readable(lake)
    serving_id = current_id(lake)
    older = {release.id for release in before(lake, serving_id)}
    doomed = []
    for kind in {release.manifest["kind"] for release in shelf}:
        same = [release for release in shelf if release.manifest["kind"] == kind]
        count = keep.get(kind, len(same))
        newest = {release.as_of: release.id for release in same}  # the last of a date is its newest
        dates = sorted(newest)[-count:]
        kept = {one.id for one in same[-count:]} | {newest[date] for date in dates} | spare
        doomed += [one for one in same if one.id in older - kept]
    for release in doomed:
        # Out of sight in one step, so that no reader opens a half-deleted release.
        gone = release.folder.with_name(f".gone-{release.folder.name}")
        os.rename(release.folder, gone)
    for folder in root(lake).glob(".gone-*"):
        shutil.rmtree(folder)
    return sorted(release.id for release in doomed)


def tell(lake: Lake, what: str, by: str, release_id: str) -> None:
    """Write down that this release serves now, unless the last line that says so names it: a kill
    after the pointer was replaced leaves the line to whoever repeats the step, or to the next
    :func:`switch`."""
    before = served(lake)
    if before and before[-1] == release_id:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record(lake, time=now, what=what, by=by,
           **{"from": before[-1] if before else None, "to": release_id})  # fmt: skip


def record(lake: Lake, **facts: Any) -> None:
    """Append one line to ``history.jsonl``."""
    line = json.dumps(facts, ensure_ascii=False) + "\n"
    root(lake).mkdir(parents=True, exist_ok=True)
    with open(root(lake) / "history.jsonl", "a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


# --- files -----------------------------------------------------------------------------------
def digest(path: Path) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> set[str]:
    """Every file below a folder, as POSIX paths relative to it."""
    return {
        (Path(home) / name).relative_to(folder).as_posix()
        for home, _, names in os.walk(folder)
        for name in names
    }


def sync_tree(folder: Path) -> None:
    """Make the names of a folder and its subfolders durable, its own in its parent last."""
    for home, _, _ in os.walk(folder):
        io.sync_folder(Path(home))
    io.sync_folder(folder.parent)


def link(source: Path, target: Path) -> None:
    """Share a file, or copy it where the filesystem cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        # Never over a file that is there: it may be the same file, or another release's.
        if error.errno not in (EXDEV, EMLINK, EPERM, EOPNOTSUPP):
            raise
        shutil.copy2(source, target)


def link_tree(source: Path, target: Path) -> None:
    """Share every file below a folder."""
    for name in sorted(files_of(source)):
        link(source / name, target / name)


@contextmanager
def room(what: str, place: Path) -> Iterator[None]:
    """Turn a full disk or a folder without the right to write into a ``Fault`` that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise Fault(
            f"{what}: {place} cannot be written ({error.strerror}); free space or give the right "
            "to write there, then run the step again; what was published still serves"
        ) from None


def _folders(lake: Lake) -> list[Path]:
    home = root(lake)
    if not home.is_dir():
        return []
    return [path for path in home.iterdir() if ID.match(path.name) and path.is_dir()]
