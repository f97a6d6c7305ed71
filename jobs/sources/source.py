"""The step ``source``: make what SOURCE names available in the source contract's shape.

Reads a folder in the contract's shape as it is (never writing into it), or what a named adapter
converts. Writes

- ``source.json``: name, folder, adapter, version, digest, the adapter's counts, and
  ``event_files``, the files of ``events`` that this run reads, each with what tells that it is as
  it was.
- ``source_tables``: one row per table of the contract.

A conversion lies in the lake under ``sources/<adapter>/<digest>/``, built aside and renamed when
it is whole; the digest covers the adapter's version and settings and the upstream files' contents,
so the same files are converted once.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from jobs import io, tables
from jobs.errors import Fault
from jobs.night import Night
from jobs.sources import contract

# Each adapter is a module with VERSION, upstream(argument), the files that it reads, and
# convert(argument, folder), which writes the contract and returns its counts; where more than the
# files decides the rows, options(argument) says it as a text.
ADAPTERS = {
    "completejourney": "completejourney",
    "online_retail": "online_retail:FOLDER",
    "retailrocket": "retailrocket:FILE_OR_FOLDER",
    "simulated": "simulated or simulated:events=1000000,seed=7",
    "split": "split:completejourney, split:FOLDER or split:completejourney,seed=7",
}

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Params:
    """``reuse``: take an earlier conversion of the same files; false where it is suspected."""

    reuse: bool = True


@dataclass(frozen=True)
class Source:
    """Where a source lies; ``adapter`` is ``contract`` for a folder that is used in place."""

    name: str
    folder: Path
    adapter: str
    version: str
    notes: dict[str, Any]


def run(night: Night, params: Params) -> None:
    """Prepare the source and record what it holds."""
    source = prepare(night.source, night.lake.root / "sources", params.reuse)
    facts = contract.check(source.folder)
    if night.refresh:
        refuse_gone(night, source.folder, facts)
    digest = hashlib.sha256("".join(fact.digest for fact in facts).encode()).hexdigest()
    night.notes.update(source.notes)
    io.write_json(
        night.staged / "source.json",
        {**asdict(source), "folder": str(source.folder), "digest": digest,
         "event_files": next(fact.marks for fact in facts if fact.table == "events")},
    )  # fmt: skip
    # The schema takes what it has a column for.
    rows = [asdict(fact) for fact in facts]
    night.write("source_tables", pa.Table.from_pylist(rows, tables.TABLES["source_tables"].schema))


def refuse_gone(night: Night, folder: Path, facts: list[contract.Facts]) -> None:
    """Raise ``Fault`` where a table that the base of a refresh had is gone: half of a delivery, in
    which a missing table would withdraw every refusal, link or rule that stood in it."""
    base = night.base("source")
    then = io.read_arrow(base.table("source_tables"), ["table", "present"])
    had = set(then.filter(then["present"])["table"].to_pylist())
    gone = [fact.table for fact in facts if fact.table in had and not fact.present]
    if gone:
        raise Fault(
            f"source: {folder} no longer has the table {', '.join(gone)}, which it had at "
            f"{base.as_of}; write it again, or run a night to do without it"
        )


def prepare(name: str, home: Path, reuse: bool = True) -> Source:
    """The folder in the contract's shape that ``name`` stands for; converts under ``home``.

    Raises ``Fault`` where ``name`` is neither a named source nor a folder.
    """
    adapter, colon, argument = name.partition(":")
    if adapter in ADAPTERS:
        module = importlib.import_module(f"jobs.sources.{adapter}")
        return _converted(name, adapter, module, argument if colon else None, home, reuse)
    if re.match(r"^[a-z][a-z0-9+.-]+://", name, re.IGNORECASE) and not name.startswith("file://"):
        raise Fault(f"source: {name} is on an object store; mount it and give the path, or copy it")
    folder = Path(name.removeprefix("file://")).expanduser().resolve()
    if not name or not folder.is_dir():
        raise Fault(
            f"source: {name!r} is neither a folder (looked for {folder}) nor a named source; "
            "give a folder in the source contract's shape or one of: "
            + ", ".join(ADAPTERS.values())
        )
    return Source(name, folder, "contract", "", {})


def _converted(
    name: str, adapter: str, module: ModuleType, argument: str | None, home: Path, reuse: bool
) -> Source:
    paths = module.upstream(argument)
    options = module.options(argument) if hasattr(module, "options") else ""
    digest = _digest(adapter, module.VERSION, options, paths)
    folder = home / adapter / digest
    note_file = folder / "conversion.json"
    if not (reuse and note_file.is_file()):
        _convert(module, argument, folder)
    return Source(name, folder, adapter, module.VERSION, io.read_json(note_file))


def _convert(module: ModuleType, argument: str | None, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    except OSError as error:
        raise _unwritable(folder, error) from None
    for left_over in folder.parent.glob(".building-*"):  # of a conversion that was killed
        if left_over != building:
            shutil.rmtree(left_over)
    try:
        io.write_json(building / "conversion.json", module.convert(argument, building))
        building.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(building, folder)
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise _unwritable(folder, error) from None
        # Arrow says what is broken in a file, but not that it is upstream's.
        reason = str(error).splitlines()[0]
        raise Fault(
            f"source: the files of {module.__name__.split('.')[-1]} cannot be read ({reason}); "
            "get them again"
        ) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    io.sync_folder(folder.parent)


def _unwritable(folder: Path, error: OSError) -> Fault:
    return Fault(
        f"source: {folder} cannot be written ({error.strerror or error}); give another LAKE, or "
        "free space and the right to write there"
    )


def _digest(adapter: str, version: str, options: str, paths: list[Path]) -> str:
    digest = hashlib.sha256(f"{adapter}\0{version}\0{options}\0".encode())
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name}\0{content}\0".encode(errors="replace"))
    return digest.hexdigest()[:16]
