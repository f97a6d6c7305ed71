"""A real source whose people are split over several keys, with the truth beside it.

``split:completejourney``, ``split:FOLDER`` or, with settings (see :class:`Split`),
``split:completejourney,seed=7,shared=0.04`` takes another source in the contract's shape and gives
each person there, a key of type ``account``, a loyalty card, devices and cookies as the simulator's
people have them. Each basket (a session; without one, a person's day) goes under one of them whole.
Writes

- ``events``: the other source's rows, in their order, with other keys and nothing else changed;
- ``identity_links``: what becomes known of the keys, by the simulator's own model, with its noise
  (see ``jobs.sources.simulated.links``), and the other source's own links;
- every other table of that source as it is;
- ``truth/keys``, ``truth/links``, ``truth/people`` and ``truth/settings.json``, as the simulator's
  (docs/simulator.md); ``truth/people`` gives each person's number the account it stands for.

Keys of other types stay as they are and are in no truth.
"""

from __future__ import annotations

import importlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.errors import Fault
from jobs.sources import contract, source, writing
from jobs.sources.simulated import links, truth
from jobs.sources.simulated import settings as simulated
from jobs.sources.simulated.keys import ACCOUNT, CARD, COOKIE, DEVICE, Keyring, Pace

VERSION = "1"
USAGE = "split:completejourney,seed=7"
LETTER = "x"  # of the new keys; the simulator's begin with another
ELSEWHERE = {COOKIE: 0.4, DEVICE: 0.25, CARD: 0.35}  # of the baskets apart from the account
ROWS_PER_FILE = 500_000
DAY = 86_400_000_000  # in microseconds


@dataclass(frozen=True)
class Split(simulated.KeySettings):
    """The settings of a split: those of keys and links, and how much goes apart."""

    # Share of baskets that are seen under another key than the account.
    apart: float = 0.65

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_shares("apart")


def upstream(argument: str | None) -> list[Path]:
    """The files that the other source is made of."""
    name, _ = parse(argument)
    adapter, module, inner = _adapter(name)
    if module is not None:
        return list(module.upstream(inner))
    folder = _folder(adapter)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def options(argument: str | None) -> str:
    """What decides the rows beside these files."""
    name, chosen = parse(argument)
    adapter, module, inner = _adapter(name)
    if module is None:
        return repr(chosen)
    told = module.options(inner) if hasattr(module, "options") else ""
    return f"{adapter} {module.VERSION} {told} {chosen!r}"


def convert(argument: str | None, folder: Path) -> dict[str, Any]:
    """Write the split source into ``folder``; the other source is converted, once, where ``folder``
    lies: beside the folder that holds it."""
    name, chosen = parse(argument)
    whole = source.prepare(name, folder.parent.parent).folder
    contract.check(whole)
    for table in contract.CONTRACT:
        if table != "events" and (whole / table).is_dir():
            shutil.copytree(whole / table, folder / table)
    for path in whole.glob("rules.y*ml"):
        shutil.copy2(path, folder)
    rows = split(_events(whole), folder, chosen)
    truth.write_settings(folder, {**asdict(chosen), "source": name})
    return {**asdict(chosen), "source": name, "rows": rows}


def parse(argument: str | None) -> tuple[str, Split]:
    """(the other source's name, the settings); settings stand behind it, commas between."""
    known = set(Split.__dataclass_fields__)
    parts = (argument or "").split(",")
    at = len(parts)
    while at > 1 and parts[at - 1].partition("=")[0] in known:
        at -= 1
    name = ",".join(parts[:at])
    if not name or name.partition(":")[0] == "split":
        raise Fault(f"source: split needs another source to split; write it like {USAGE}")
    return name, simulated.parse(parts[at:], Split, "split", USAGE)


def _adapter(name: str) -> tuple[str, ModuleType | None, str | None]:
    """(name, module, argument) of a named source; of a folder, its path and no module."""
    adapter, colon, argument = name.partition(":")
    if adapter not in source.ADAPTERS:
        return name, None, None
    module = importlib.import_module(f"jobs.sources.{adapter}")
    return adapter, module, argument if colon else None


def _folder(name: str) -> Path:
    """The folder of a source that is used in place; ``Fault`` where there is none."""
    return source.prepare(name, Path()).folder


def _events(folder: Path) -> pa.Table:
    """The contract table ``events`` with exactly its columns and types."""
    files = [str(path) for path in io.parquet_files(folder / "events")]
    rows = ds.dataset(files, format="parquet").to_table()
    columns = {}
    for field in contract.schema("events"):
        if field.name in rows.schema.names:
            columns[field.name] = rows[field.name].cast(field.type, safe=False)
        else:
            columns[field.name] = pa.nulls(rows.num_rows, field.type)
    return pa.table(columns)


# --- the split -------------------------------------------------------------------------------
def split(events: pa.Table, folder: Path, chosen: Split) -> dict[str, int]:
    """Write ``events`` under split keys, their links and their truth; the rows of each."""
    usable = pc.and_(pc.equal(events["key_type"], "account"), pc.is_valid(events["key"]))
    usable = pc.and_(usable, pc.is_valid(events["event_time"])).combine_chunks()
    at = np.flatnonzero(pc.fill_null(usable, False).to_numpy(zero_copy_only=False))
    mine = events.take(pa.array(at)).combine_chunks()
    if not len(at):
        raise Fault("source: split finds no event under a key of type account; nothing to split")
    baskets = Baskets.of(mine)
    often = np.bincount(baskets.person) / baskets.days * chosen.apart
    pace = Pace(often * ELSEWHERE[COOKIE], often * ELSEWHERE[DEVICE])
    keyring = Keyring(chosen, baskets.days, baskets.accounts, pace, LETTER)
    code, observed = _keys(baskets, keyring, chosen)
    key_type, key = keyring.names(code[baskets.basket])
    rows = events.num_rows
    place = np.full(rows, -1)
    place[at] = np.arange(len(at))
    taken = pa.array(np.maximum(place, 0))
    others = pa.array(place < 0)
    columns = {name: events[name].combine_chunks() for name in events.schema.names}
    columns["key_type"] = pc.if_else(
        others, columns["key_type"], key_type.dictionary_decode().take(taken)
    )
    columns["key"] = pc.if_else(others, columns["key"], key.take(taken))
    for part, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        writing.write(folder, "events", part, **{
            name: values.slice(first, ROWS_PER_FILE) for name, values in columns.items()
        })  # fmt: skip
    households = links.households(
        np.random.default_rng([chosen.seed, 6]), keyring.people, chosen.households
    )
    standing = links.of_people(
        np.random.default_rng([chosen.seed, 3]), keyring, households, baskets.start
    )
    delivered = links.deliver(
        np.random.default_rng([chosen.seed, 8]), links.Links.join([standing, *observed]), chosen
    )
    own = io.parquet_files(folder / "identity_links")
    for path in own:  # the other source's own links, under names that are free
        path.rename(path.with_name(f"source-{path.name}"))
    truth.write(folder, "people", pa.table({
        "person": np.arange(keyring.people), "account": baskets.accounts, "household": households,
    }))  # fmt: skip
    return {
        "events": rows,
        "split_events": len(at),
        "baskets": len(code),
        "identity_links": links.write(folder, keyring, delivered),
        "keys": truth.write_keys(folder, keyring, baskets.start),
    }


@dataclass(frozen=True)
class Baskets:
    """Baskets of account holders: ``basket`` (n_events,) is each event's; ``person``, ``began``,
    ``ended`` (n_baskets,), times in microseconds; person p holds ``accounts[p]``. ``start`` is the
    midnight before the first, ``days`` the days until after the last."""

    basket: np.ndarray
    person: np.ndarray
    began: np.ndarray
    ended: np.ndarray
    accounts: pa.Array
    start: int
    days: int

    @staticmethod
    def of(events: pa.Table) -> Baskets:
        time = events["event_time"].combine_chunks().cast(pa.int64()).to_numpy()
        accounts = pc.unique(events["key"]).sort()
        person = pc.index_in(events["key"], accounts).to_numpy().astype(np.int64)
        day = time // DAY
        # A session is the person's own; without one a day is a basket.
        named = pc.dictionary_encode(pc.fill_null(events["session_id"], "")).combine_chunks()
        session = named.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        unnamed = pc.is_null(events["session_id"]).to_numpy()
        within = np.where(unnamed, day - day.min(), session)
        labels = np.stack([person, unnamed.astype(np.int64), within])
        order = np.lexsort(labels[::-1])
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(labels[:, order], axis=1) != 0).any(axis=0)
        basket = np.empty(len(order), np.int64)
        basket[order] = np.cumsum(new) - 1
        bounds = np.flatnonzero(new)
        start = int(day.min()) * DAY
        return Baskets(
            basket=basket, person=person[order][bounds],
            began=np.minimum.reduceat(time[order], bounds),
            ended=np.maximum.reduceat(time[order], bounds),
            accounts=accounts, start=start, days=int(day.max() - day.min()) + 1,
        )  # fmt: skip


def _keys(
    baskets: Baskets, keyring: Keyring, chosen: Split
) -> tuple[np.ndarray, list[links.Links]]:
    """(the code of each basket's key, the links that each day's baskets show)."""
    rng = np.random.default_rng([chosen.seed, 1])
    count = len(baskets.person)
    elsewhere = rng.choice(list(ELSEWHERE), count, p=list(ELSEWHERE.values()))
    kind = np.where(rng.random(count) < chosen.apart, elsewhere, ACCOUNT)
    kind = np.where((kind == CARD) & ~keyring.has_card[baskets.person], ACCOUNT, kind)
    day = (baskets.began - baskets.start) // DAY
    order = np.argsort(day, kind="stable")
    bounds = np.searchsorted(day[order], np.arange(baskets.days + 1))
    code = np.empty(count, np.int64)
    observed = []
    for each in range(baskets.days):
        rows = order[bounds[each] : bounds[each + 1]]
        person = baskets.person[rows]
        device = keyring.device_of(rng, person, each)
        code[rows] = keyring.code(kind[rows], person, device, each)
        sessions = links.Sessions(
            person, code[rows], device, baskets.began[rows], baskets.ended[rows]
        )
        observed.append(links.of_sessions(rng, keyring, chosen, each, sessions)[0])
        keyring.see(code[rows])
        keyring.use(code[rows], person, device, each)
    return code, observed
