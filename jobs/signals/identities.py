"""Keys become persons, and persons households.

Reads ``events`` and the contract tables ``identity_links`` and ``people``. Writes ``identities``
(a row per key), ``persons`` (a row per person), ``identity_links`` (a row per pair of keys and
source, with what became of it), ``identity_changes`` (a row per merge or split) and
``identity_counts`` (a row per outcome).

A person is a group of keys that admitted links connect (``links`` admits row by row, ``components``
group by group); a wrong merge is worse than a missed one, so what breaks a cap stays apart. The
person's id is the id of its first-seen key: it survives merges, and after a split it stays with the
part that holds that key. A household link groups persons and never merges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io, limits, tables
from jobs.night import Night
from jobs.params import OPEN, check
from jobs.signals import (
    changes,
    components,
    continuing,
    households,
    identity_counts,
    linking,
    links,
    named,
    resolution,
    resolving,
)
from jobs.signals.components import Caps
from jobs.signals.continuing import Before
from jobs.signals.links import KEY, PAIR
from jobs.signals.named import Named
from jobs.sources import contract, in_memory

IDS = ("person_id", "household_id", "component")
GROUPING = ("household", "household_too_large")
ENGINES = ("auto", "array", "spark")
USABLE = (
    "key_type_a string, key_a string, key_type_b string, key_b string, source string, "
    "confidence double, observed_time timestamp, received_time timestamp, known_time timestamp, "
    "action string"
)


@dataclass(frozen=True)
class Params:
    """Which links may merge, how much one merge may join, and where it is computed."""

    # They say that two keys are one person's, as sure as their confidence. A link of a source that
    # no parameter names joins nothing: what it is worth, nobody has said.
    exact_sources: tuple[str, ...] = (
        "login", "registration", "email_click", "checkout", "loyalty", "crm",
    )  # fmt: skip
    # They say who lives together: they group persons, and never merge them.
    household_sources: tuple[str, ...] = ("household",)
    # They say who looks alike: guesses, whatever confidence they claim.
    guessing_sources: tuple[str, ...] = ("probabilistic",)
    # A person logged in: what the key did just before, in the same session, was that person's. A
    # login on a key of a type that no parameter names, and on no account, joins nothing.
    login_sources: tuple[str, ...] = ("login",)
    # Keys of these types appear in no event; they exist to tie others together.
    linking_types: tuple[str, ...] = ("email_hash",)
    # A guess below this merges nobody: at 0.9 still up to one in ten would be a wrong merge.
    min_confidence: float = 0.9
    # A household only groups, so more likely than not is enough.
    household_confidence: float = 0.5
    # Clocks of a link's two times may disagree by this many seconds without being counted.
    clock_tolerance_seconds: int = 300
    # How many keys of a type one key may join, ``joiner>type`` before ``type`` before ``other``.
    # Two accounts on one key: the key is shared or recycled. Two cards: one was lost; on one
    # browser or device two cards, e-mails or phones may be a family's. A cookie lives in one
    # browser. Browsers that drop cookies after 7 days make 52 a year, on three devices 156. More
    # than fifty devices are a call centre.
    max_joined: Mapping[str, int] = field(
        default_factory=lambda: {
            "account": 1, "customer": 1, "member": 1, "user": 1, "loyalty_card": 2,
            "email_hash": 5, "phone": 3, "device": 50, "cookie>device": 1, "cookie": 200, OPEN: 50,
            **{f"{joiner}>{own}": 1 for joiner in ("cookie", "device")
               for own in ("email_hash", "phone", "loyalty_card")},
        }
    )  # fmt: skip
    # How many keys of a type a person may hold. Keys of a type with a cap found persons: the shop
    # itself says that two accounts are two people. ``other`` caps each type that is not named.
    max_of_type: Mapping[str, int] = field(
        default_factory=lambda: {
            "account": 1,
            "customer": 1,
            "member": 1,
            "user": 1,
            OPEN: limits.KEYS_IMPOSSIBLE,
        }
    )
    # More keys than this are a call centre, a test account or a wrong merge.
    max_keys_per_person: int = limits.KEYS_IMPOSSIBLE
    # More persons than this share an office, a dormitory or a wrong address, not a home.
    max_persons_per_household: int = 12
    # auto: arrays up to ``array_links``, beyond them Spark.
    engine: str = "auto"
    # The most keys or links for arrays on one machine: 17 million links and 18 million keys took
    # 8.4 GB at the peak, their making included.
    array_links: int = 10_000_000
    # With fewer links known all persons are computed anew, which is the same and quicker: to find
    # what is touched costs some twenty seconds of a processor, a million links on arrays three.
    incremental_links: int = 1_000_000

    def __post_init__(self) -> None:
        check(len(set(self.household_sources) & set(self.login_sources)) == 0,
              "a source cannot be both a household's and a login's")  # fmt: skip
        merging = {*self.exact_sources, *self.guessing_sources}
        check(len(set(self.household_sources) & merging) == 0,
              "a source of households cannot be one that merges, in exact_sources or "
              "guessing_sources")  # fmt: skip
        for name in self.sources:
            check(
                name == name.strip().lower() != "",
                f"sources are named in lower case without spaces around them, not {name!r}",
            )
        check(0 <= self.min_confidence <= 1, "min_confidence must be 0 to 1")
        check(0 <= self.household_confidence <= 1, "household_confidence must be 0 to 1")
        check(self.clock_tolerance_seconds >= 0, "clock_tolerance_seconds must not be negative")
        check(min(self.max_joined.values()) >= 0, "max_joined must not be negative")
        check(min(self.max_of_type.values()) >= 1, "max_of_type must be at least 1")
        check(
            self.max_of_type.get("account", 1) == 1,
            "max_of_type of account must be 1, since the gate stops a person with two; keys of "
            "which a person may hold several are of another type",
        )
        check(
            1 <= self.max_keys_per_person <= limits.KEYS_IMPOSSIBLE,
            f"max_keys_per_person must be 1 to {limits.KEYS_IMPOSSIBLE}, what the gate lets pass",
        )
        check(self.max_persons_per_household >= 1, "max_persons_per_household must be positive")
        check(self.engine in ENGINES, f"engine must be one of {', '.join(ENGINES)}")
        check(self.array_links > 0, "array_links must be positive")
        check(self.incremental_links >= 0, "incremental_links must not be negative")

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of links of which the policy says what they are worth."""
        return tuple(dict.fromkeys(
            (*self.exact_sources, *self.login_sources, *self.guessing_sources,
             *self.household_sources)
        ))  # fmt: skip

    @property
    def account_types(self) -> tuple[str, ...]:
        """The key types that found persons: who is seen under one of them has said who it is."""
        return tuple(name for name in self.max_of_type if name != OPEN)

    @property
    def named_types(self) -> tuple[str, ...]:
        """The key types of which the policy says how many one key or person may hold."""
        return tuple(sorted({*self.caps.types, *self.linking_types} - {OPEN}))

    @property
    def caps(self) -> Caps:
        """The caps on persons, as the engines take them."""
        return Caps.of(self.max_joined, self.max_of_type, self.max_keys_per_person)

    @property
    def household_caps(self) -> Caps:
        """The cap on households: their members are persons, of whatever type."""
        most = self.max_persons_per_household
        return Caps.of({OPEN: 2**62}, {}, most)


@dataclass(frozen=True)
class Known:
    """What was known at a cut: ``identities`` and ``persons`` as the tables, ``logins`` a row per
    login seen (``PAIR``, observed_time, known_time).

    ``same_as_night``: no link that matters became known between the cut and the night, so that the
    published persons of the keys seen before the cut are right there too.
    """

    identities: DataFrame
    persons: DataFrame
    logins: DataFrame
    same_as_night: bool


@dataclass(frozen=True)
class Inputs:
    """What events received before a cut and the people table ``named``, and the links of the
    source: ``rows`` as they came (None where there is no such table), ``links`` those that are
    usable; both are the engine's."""

    night: Night
    named: Named

    @staticmethod
    def read(night: Night, cut: datetime) -> Inputs:
        told = in_memory.read(night.source_folder(), "people", columns=named.PEOPLE.names)
        return Inputs(night, Named(night.folder("events"), told, cut))

    @cached_property
    def rows(self) -> DataFrame | None:
        return contract.read(self.night.spark, self.night.source_folder(), "identity_links")

    @cached_property
    def links(self) -> DataFrame:
        if self.rows is None:
            return self.night.spark.createDataFrame([], USABLE)
        return links.usable(self.rows)

    def in_memory(self) -> pa.Table | None:
        """The links as they came, as a table; None where the source has none."""
        return in_memory.read(self.night.source_folder(), "identity_links")


def are_few(night: Night, params: Params, keys: int = 0) -> bool:
    """Whether links are judged by arrays alone, without an engine."""
    files = contract.files(night.source_folder(), "identity_links") or []
    most = max(keys, sum(file.rows for file in files))
    return params.engine == "array" or (params.engine == "auto" and most <= params.array_links)


# --- the night -------------------------------------------------------------------------------
def run(night: Night, params: Params) -> None:
    """Stage the five tables."""
    inputs, before = Inputs.read(night, night.as_of), Before.find(night)
    keys, since = inputs.named.keys(), before.as_of if before else None
    few = are_few(night, params, keys.num_rows)
    rows = inputs.in_memory() if few else None
    tallied = (
        linking.tally(rows, night.as_of, since, params) if few
        else identity_counts.tally(inputs.rows, night.as_of, since, params)
    )  # fmt: skip
    past, known = ([tallied.pop(f"{at}_{part}") for part in ("rows", "high", "low")]
                   for at in ("past", "known"))  # fmt: skip
    policy = continuing.policy(params)
    differs = before.differs(policy, past) if before else None
    why = full_for(before, differs, known[0], params, few and night.refresh is not None)
    if before is not None and not why:
        found = resume(night, inputs, before, params)
    elif few:
        found = at_once(keys, rows, night.as_of, params)
    else:
        found = resolve(night, inputs, night.as_of, params)
    night.notes[continuing.NOTE] = {
        "mode": found.mode, "full_for": why, "differs": differs, "engine": found.engine,
        "touched": found.touched, "policy": policy, "known": known,
    }  # fmt: skip
    night.write("identities", found.identities)
    night.write("identity_links", found.links)
    now = changes.Graph.read(night.staged)
    night.write("persons", inputs.named.persons(now.keys))
    if before is None:
        night.write("identity_changes", tables.TABLES["identity_changes"].schema.empty_table())
    else:
        then = changes.Graph.read(before.folder)
        made = changes.between(then, now, before.as_of, night.as_of, differs)
        night.write("identity_changes", before.changes, made)
    counts = identity_counts.of_tables(now.keys, now.links, params)
    counts |= {f"rows: {name}": rows for name, rows in tallied.items()}
    counts |= {f"mode: {found.mode}": 1, f"engine: {found.engine}": 1}
    counts |= {f"touched: {name}": rows for name, rows in found.touched.items()}
    night.write(
        "identity_counts",
        pa.table({"outcome": list(counts), "rows": pa.array(list(counts.values()), pa.int64())}),
    )


def full_for(
    before: Before | None, differs: str | None, known: int, params: Params, of_refresh: bool = False
) -> str | None:
    """Why all persons are computed anew: ``first`` (no night before), ``policy`` or ``data`` (those
    were others then), ``size`` (few links are known, see ``incremental_links``), or ``refresh``, in
    one whose links fit in memory (``of_refresh``), since to find what is touched asks an engine;
    None where only what is touched is."""
    if before is None:
        return "first"
    if differs or known < max(params.incremental_links, 1):
        return differs or "size"
    return "refresh" if of_refresh else None


def at_once(keys: pa.Table, rows: pa.Table | None, cut: datetime, params: Params) -> Resolution:
    """What :func:`resolve` says, by arrays. ``rows``: the contract's links, if there are any."""
    alone = rows is None
    found = resolving.alone(keys) if alone else resolving.resolve(keys, rows, cut, params)
    engine = "none" if alone else "array"
    return Resolution(found.identities, found.links, "full", engine, found.touched)


def logins(night: Night) -> pa.Table:
    """The logins known at the run date, as of :func:`links.logins`; for any step that follows."""
    params = night.params_of("identities")
    if not are_few(night, params):
        return at(night, night.as_of).logins.toArrow()
    rows = in_memory.read(night.source_folder(), "identity_links")
    if rows is None:
        return linking.LOGINS.empty_table()
    return linking.logins(linking.usable(rows), night.as_of, params)


# --- any cut ---------------------------------------------------------------------------------
def at(night: Night, cut: datetime) -> Known:
    """Keys, persons and logins as known at ``cut``, by the functions of the night itself.

    Reads the published tables of the night; for any step that follows.
    """
    params = night.params_of("identities")
    inputs = Inputs.read(night, cut)
    published, judged = night.frame("identities"), night.frame("identity_links")
    logins = links.logins(inputs.links, cut, params)
    if cut == night.as_of:
        return Known(published, night.frame("persons"), logins, True)
    home = night.scratch("cut")
    keys = io.held(night.spark, inputs.named.keys(), home / "named")
    merging = judged.where(F.col("outcome").isin(*components.OUTCOMES))
    same = inputs.rows is None
    if not same:
        grouping = judged.where(F.col("outcome").isin(*GROUPING))
        states = links.judge(links.state(inputs.links, cut, params), keys, params)
        then = states.where(F.col("outcome").isNull() | (F.col("outcome") == "household"))
        same = fingerprint(then, keys) == fingerprint(merging.unionAll(grouping), published)
    if same:
        keys = with_linking_keys(keys, merging, params)
        of_key = published.select(*KEY, *IDS)
        identities = keys.join(of_key, on=KEY, how="inner").select(*published.columns)
    else:
        identities = resolve(night, inputs, cut, params).identities
        assert not isinstance(identities, pa.Table)
    # Written once: whoever looks at a cut reads persons and keys many times over.
    identities = io.kept(identities, home / "identities")
    persons = inputs.named.persons(io.read_arrow(home / "identities"))
    return Known(identities, io.held(night.spark, persons, home / "persons"), logins, same)


def fingerprint(candidates: DataFrame, keys: DataFrame) -> tuple[int, ...]:
    """Equal where the same links tie the same keys, seen at the same times; whatever the order."""
    for end in ("a", "b"):
        seen = keys.select(
            F.col("key_type").alias(f"key_type_{end}"), F.col("key").alias(f"key_{end}"),
            F.col("first_seen").alias(f"seen_{end}"),
        )  # fmt: skip
        candidates = candidates.join(seen, on=[f"key_type_{end}", f"key_{end}"], how="left")
    hashed = links.row_hash([*PAIR, "source", "confidence", "seen_a", "seen_b"])
    found = candidates.agg(F.count(F.lit(1)), *links.halves(hashed)).toArrow()
    return tuple(column[0].as_py() for column in found.columns)


@dataclass(frozen=True)
class Resolution:
    """``identities`` and ``links`` as the tables; whether they are a ``full`` run's or an
    ``incremental`` one's, which engine ran, and on how many keys, links that may merge and raw
    components."""

    identities: DataFrame | pa.Table
    links: DataFrame | pa.Table
    mode: str
    engine: str
    touched: dict[str, int]


def resolve(night: Night, inputs: Inputs, cut: datetime, params: Params) -> Resolution:
    """Persons and households as known at ``cut``, all of them anew."""
    home = night.scratch("graph")
    keys = io.held(night.spark, inputs.named.keys(), home / "named")
    if inputs.rows is None:
        alone = keys.select("*", *[resolution.key_id().alias(name) for name in IDS])
        none = inputs.links.select(
            *PAIR, "source", "confidence", "observed_time", "known_time",
            *[F.col("action").alias(name) for name in ("outcome", "detail")],
        )  # fmt: skip
        size = io.count_rows(home / "named")
        touched = {"keys": size, "links": 0, "components": size}
        return Resolution(alone, none, "full", "none", touched)
    judged = links.judge(links.state(inputs.links, cut, params), keys, params)
    judged = io.kept(judged, home / "links")
    merging = judged.where(F.col("outcome").isNull())
    found = _connect(night, with_linking_keys(keys, merging, params), merging, home, params)
    states = judged.withColumns(dict.fromkeys(("was", "was_detail"), F.lit(None).cast("string")))
    return _finish(night, found, found.keys, states, home / "links", "full", params)


def resume(night: Night, inputs: Inputs, before: Before, params: Params) -> Resolution:
    """Persons and households of the night, anew only where the night touches them."""
    home = night.scratch("graph")
    keys = io.held(night.spark, inputs.named.keys(), home / "named")
    part = continuing.touched(before, keys, inputs.links, night.as_of, params, home)
    keys = with_linking_keys(part.keys, part.candidates, params)
    found = _connect(night, keys, part.candidates, home, params)
    resolved = found.keys.unionByName(part.copied.select(*found.keys.columns))
    return _finish(night, found, resolved, part.states, part.folder, "incremental", params)


@dataclass(frozen=True)
class _Found:
    """What an engine made of a graph: its ``keys`` and ``links`` as ``resolution`` writes them."""

    keys: DataFrame
    links: DataFrame
    engine: str
    touched: dict[str, int]


def _connect(
    night: Night, keys: DataFrame, merging: DataFrame, home: Path, params: Params
) -> _Found:
    """Hand a graph to an engine."""
    guess = links.is_guess(params).alias("guess")
    io.kept(keys, home / "keys")
    io.kept(merging.select(*PAIR, "source", "confidence", guess), home / "candidates")
    engine, groups = resolution.resolve(
        night.spark, home / "keys", home / "candidates", home / "persons", params.caps,
        params.engine, params.array_links,
    )  # fmt: skip
    touched = {
        "keys": io.count_rows(home / "keys"),
        "links": io.count_rows(home / "candidates"),
        "components": groups,
    }
    return _Found(
        io.frame(night.spark, home / "persons" / "keys"),
        io.frame(night.spark, home / "persons" / "links"),
        engine,
        touched,
    )


def _finish(
    night: Night,
    found: _Found,
    resolved: DataFrame,
    states: DataFrame,
    folder: Path,
    mode: str,
    params: Params,
) -> Resolution:
    """Group the persons and write every link's outcome down.

    ``states``: what lies in ``folder``, ``links.STATE`` with ``was`` and ``was_detail``, which stay
    where a link that may merge was not handed to the engine.
    """
    is_household = F.col("outcome") == "household"
    if io.count_rows(folder, ds.field("outcome") == "household"):
        grouped = households.group(
            night, resolved, states.where(is_household).select(*links.STATE), params
        )
    else:
        grouped = households.alone(resolved, states)
    settled = found.links.withColumnsRenamed({"outcome": "is", "detail": "is_detail"})
    merging = states.where(F.col("outcome").isNull()).join(
        settled, on=[*PAIR, "source"], how="left"
    )
    anew = F.col("is").isNotNull()
    outcome = F.coalesce("is", "was").alias("outcome")
    detail = F.when(anew, F.col("is_detail")).otherwise(F.col("was_detail")).alias("detail")
    plain = [name for name in links.STATE if name != "outcome"]
    refused = states.where(F.col("outcome").isNotNull() & ~is_household)
    every = (
        merging.select(*plain, outcome, detail)
        .unionByName(refused.select(*links.STATE, F.lit(None).cast("string").alias("detail")))
        .unionByName(grouped.links)
    )
    return Resolution(grouped.identities, every, mode, found.engine, found.touched)


def with_linking_keys(named: DataFrame, merging: DataFrame, params: Params) -> DataFrame:
    """The keys, and those that exist only to link: key_type, key, first_seen."""
    only = links.ends(merging).where(F.col("key_type").isin(*params.linking_types))
    return named.join(only, on=KEY, how="full").select(*KEY, "first_seen")
