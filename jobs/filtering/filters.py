"""What may be shown to whom: bitmaps over the catalogue, and pairs that a person should not see.

Reads ``items``, ``persons`` and ``history``. Writes ``eligibility`` (a bitmap per rule, aligned
with ``items.position``), ``ineligible_items`` (a row per item and rule that excludes it, with the
reason in words) and ``blocked_pairs`` (a row per person, item and reason, in force at ``as_of``;
in a night that will serve in place of a release that has read on, also what was blocked there).

Rules of ``eligibility``, by kind and value:

- ``availability``, ``all``: items that anybody at all may get: available, and without a flag of
  ``excluded_flags``;
- ``region``, R: items that may be sold in R. An item without regions is sold everywhere. The empty
  region stands for a person whose region is unknown: only what is sold everywhere, since whether
  the rest may be sold to them is not known;
- ``restriction``, R: items that a person with the restriction R may get, which are those without
  the flag R (compared without case and outer spaces);
- ``flag``, F: items without the flag F, for lists that must do without. A flag alone excludes
  nobody, so it has no rows in ``ineligible_items``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.errors import Fault
from jobs.filtering import blocking
from jobs.night import Night
from jobs.params import check
from jobs.release import replaced
from jobs.release.releases import Release
from jobs.signals.past import Record, people_of
from jobs.signals.shop import Catalogue

UNKNOWN_REGION = ""
EVERYONE = ("availability", "all")
# The reason of a pair that the night itself has not read of.
BLOCKED_SINCE = "blocked_since"


@dataclass(frozen=True)
class Params:
    """Which flags exclude everybody, and when an item counts as just bought.

    The defaults for just_bought are measured on Complete Journey at five cuts from 2017-08-01 to
    2017-11-03. On average 2,700 pairs are blocked; they hold 0.1 % of the next day's repeat
    purchases and 0.4 % of the next 28 days' (0.5 % at the worst cut), and are bought the next day
    10 times less often than all pairs bought in the last two weeks. The quantile 0.2 would hold
    3.4 % of the next 28 days' purchases, a shortest block of 10 days 1.2 %.
    """

    # An item with one of these flags is for nobody, whatever else the catalogue says of it.
    excluded_flags: tuple[str, ...] = ("recalled",)
    # Just bought: before this share of the item's gaps between purchase days has passed.
    repurchase_quantile: float = 0.1
    # Fewer gaps than this say nothing about an item; its category's gaps then speak, else none.
    repurchase_min_gaps: int = 50
    # A shorter block is not worth its mistakes: such items are bought week by week.
    repurchase_min_days: int = 14
    # However slow an item, nobody is kept from it longer than this after a purchase.
    repurchase_max_days: int = 90

    def __post_init__(self) -> None:
        check(0 <= self.repurchase_quantile < 1, "repurchase_quantile must be in [0, 1)")
        check(self.repurchase_min_gaps >= 1, "repurchase_min_gaps must be at least 1")
        check(self.repurchase_min_days >= 1, "repurchase_min_days must be at least 1")
        check(
            self.repurchase_max_days >= self.repurchase_min_days,
            "repurchase_max_days must not be below repurchase_min_days",
        )


def run(night: Night, params: Params) -> None:
    """Stage ``eligibility``, ``ineligible_items`` and ``blocked_pairs``."""
    items = night.arrow("items", ["item_id", "position", "available", "regions", "flags"])
    persons = night.arrow("persons", ["region", "restrictions"])
    rules = judge_items(items, regions_of(items, persons), restrictions_of(persons), params)
    night.write("eligibility", eligibility(items, rules))
    night.write("ineligible_items", ineligible_items(items, rules))
    night.notes["restrictions_without_a_flag"] = unmatched_restrictions(items, persons)
    catalogue = Catalogue.of(night.arrow("items", ["item_id", "category"]))
    record = Record(night.folder("history"), night.as_of, catalogue.ids)
    people = people_of(night.arrow("persons", ["person_id"]))
    night.write("blocked_pairs", blocking.blocked_pairs(record, people, catalogue.narrow, params))
    if ahead := replaced.noted(night.published("catalogue")):
        night.notes |= ahead.note
        night.add("blocked_pairs", 1, blocked_since(night, replaced.read(night, ahead)))


# --- items -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rule:
    """One rule judged on every item.

    ``allowed``: (n_items,) bool, row i belongs to row i of the items given. ``reasons``: why, for
    the items not allowed, in their order; None where the rule alone excludes nobody.
    """

    kind: str
    value: str
    allowed: np.ndarray
    reasons: list[str] | None


def judge_items(
    items: pa.Table, regions: list[str], restrictions: list[str], params: Params
) -> list[Rule]:
    """Every rule on every item. ``items``: available, regions and flags, a row per item."""
    flags = _rows_by_value(items["flags"], _plain)
    named = {_plain(flag) for flag in params.excluded_flags}
    excluded = {flag: rows for flag, rows in flags.items() if flag in named}
    none = np.zeros(items.num_rows, dtype=bool)
    rules = [_availability(_booleans(items["available"]), excluded)]
    everywhere, sold = _booleans(pc.is_null(items["regions"])), _rows_by_value(items["regions"])
    sold_in = items["regions"].to_pylist() if not everywhere.all() else []
    for region in regions:
        allowed = everywhere | sold.get(region, none) if region else everywhere
        rules.append(Rule("region", region, allowed, _region_reasons(region, sold_in, allowed)))
    for restriction in restrictions:
        allowed = ~flags.get(_plain(restriction), none)
        sentence = f"flagged {_plain(restriction)}, which the restriction {restriction} excludes"
        rules.append(Rule("restriction", restriction, allowed, [sentence] * int((~allowed).sum())))
    rules += [Rule("flag", flag, ~flags[flag], None) for flag in sorted(flags)]
    return rules


def for_somebody(items: pa.Table, params: Params) -> np.ndarray:
    """(n_items,) bool: items that anybody at all may get, by the rule :data:`EVERYONE`. ``items``
    as in :func:`judge_items`."""
    return judge_items(items, [], [], params)[0].allowed


def _availability(available: np.ndarray, excluded: dict[str, np.ndarray]) -> Rule:
    allowed = available.copy()
    for flagged in excluded.values():
        allowed &= ~flagged
    reasons = []
    for row in np.flatnonzero(~allowed):
        why = [] if available[row] else ["not available in the catalogue"]
        why += [f"flagged {flag}: for nobody" for flag, flagged in excluded.items() if flagged[row]]
        reasons.append("; ".join(why))
    return Rule(*EVERYONE, allowed, reasons)


def _region_reasons(region: str, sold_in: list[list[str] | None], allowed: np.ndarray) -> list[str]:
    where = f"not in {region}" if region else "and the person's region is not known"
    named = [
        ", ".join(sorted(one for one in sold_in[row] or [] if one is not None))
        for row in np.flatnonzero(~allowed)
    ]
    return [f"sold only in {regions or 'no region at all'}, {where}" for regions in named]


def eligibility(items: pa.Table, rules: list[Rule]) -> pa.Table:
    """The table ``eligibility``: rules over items become bitmaps over positions.

    A position that no row of ``items`` holds is allowed by no rule.
    """
    positions = items["position"].to_numpy()
    size = int(positions.max()) + 1 if len(positions) else 0
    rows = []
    for rule in rules:
        mask = np.zeros(size, dtype=bool)
        mask[positions] = rule.allowed
        rows.append({
            "kind": rule.kind, "value": rule.value, "positions": size, "allowed": int(mask.sum()),
            "bitmap": np.packbits(mask, bitorder="little").tobytes(),
        })  # fmt: skip
    return pa.Table.from_pylist(rows, tables.TABLES["eligibility"].schema)


def ineligible_items(items: pa.Table, rules: list[Rule]) -> pa.Table:
    """The table ``ineligible_items``."""
    schema = tables.TABLES["ineligible_items"].schema
    parts = []
    for rule in rules:
        if rule.reasons is None:
            continue
        rows = np.flatnonzero(~rule.allowed)
        parts.append(
            pa.table(
                [
                    items["item_id"].take(pa.array(rows)).combine_chunks(),
                    pa.array([rule.kind] * len(rows), pa.string()),
                    pa.array([rule.value] * len(rows), pa.string()),
                    pa.array(rule.reasons, pa.string()),
                ],
                schema=schema,
            )
        )
    return pa.concat_tables(parts) if parts else schema.empty_table()


def allowed_mask(
    eligibility: pa.Table, region: str | None, restrictions: Iterable[str] = ()
) -> np.ndarray:
    """What a person may get: (positions,) bool, entry i belongs to the item at position i.

    ``eligibility`` is the published table. Raises ``Fault`` for a restriction that it has no row
    for: it is not of the night that the person is of.
    """
    names = zip(eligibility["kind"].to_pylist(), eligibility["value"].to_pylist(), strict=True)
    row_of = {name: row for row, name in enumerate(names)}
    place = ("region", region or UNKNOWN_REGION)
    wanted = [EVERYONE, place if place in row_of else ("region", UNKNOWN_REGION)]
    wanted += [("restriction", restriction) for restriction in restrictions]
    missing = [f"{kind} {value!r}" for kind, value in wanted if (kind, value) not in row_of]
    if missing:
        raise Fault(
            f"eligibility: has no row for {', '.join(missing)}; "
            "use the table of the same night as the persons"
        )
    size = eligibility["positions"][0].as_py()
    mask = np.ones(size, dtype=bool)
    for name in wanted:
        packed = np.frombuffer(eligibility["bitmap"][row_of[name]].as_py(), dtype=np.uint8)
        mask &= np.unpackbits(packed, count=size, bitorder="little").astype(bool)
    return mask


def regions_of(items: pa.Table, persons: pa.Table) -> list[str]:
    """Every region that an item or a person names, and the unknown one, sorted."""
    named = set(pc.unique(pc.list_flatten(items["regions"])).to_pylist())
    named |= set(pc.unique(persons["region"]).to_pylist())
    return sorted({region for region in named if region} | {UNKNOWN_REGION})


def restrictions_of(persons: pa.Table) -> list[str]:
    """Every restriction that a person has, sorted."""
    named = pc.unique(pc.list_flatten(persons["restrictions"])).to_pylist()
    return sorted(restriction for restriction in named if restriction is not None)


def unmatched_restrictions(items: pa.Table, persons: pa.Table) -> list[str]:
    """Restrictions that no item's flag matches: today they protect nobody from anything."""
    known = _rows_by_value(items["flags"], _plain)
    return [name for name in restrictions_of(persons) if _plain(name) not in known]


# --- pairs -----------------------------------------------------------------------------------
def blocked_since(night: Night, ahead: Release) -> DataFrame:
    """The pairs that ``ahead``, which has read on, has blocked for what the night has not read, in
    the form of the table ``blocked_pairs``, without those staged.

    Whose they are is told by keys, among the night's persons who consent, of whom alone it knows
    what they did. Items that the night does not know are left out, since it offers none of them.
    """
    pair = ["person_id", "item_id"]
    theirs, then = (
        io.frame(night.spark, ahead.path(name)) for name in ("filters/blocked_pairs", "identities")
    )
    then = then.select("key_type", "key", F.col("person_id").alias("was"))
    now = night.frame("identities").select("key_type", "key", "person_id")
    consenting = night.frame("persons").where("personalised").select("person_id")
    decides = F.col("event_type").isin("purchase", "return", "reject")
    known = night.frame("history").where(decides).groupBy(*pair)
    # The night's own verdict counts where it knows of something later, and of a purchase of the
    # same moment; a return of that moment may be all it lacks of what went back.
    news = (F.col("known") < F.col("since")) | (
        (F.col("reason") != "just_bought") & (F.col("known") == F.col("since"))
    )
    found = (
        theirs.where(F.col("since") < F.lit(ahead.shown_as_of))
        .withColumnRenamed("person_id", "was")
        .join(then, on="was")
        .join(now, on=["key_type", "key"])
        .join(known.agg(F.max("event_time").alias("known")), on=pair, how="left")
        .where(F.coalesce(news, F.lit(True)))
        .groupBy(*pair)
        .agg(
            F.max("since").alias("since"),
            F.when(F.bool_and(F.col("until").isNotNull()), F.max("until")).alias("until"),
        )
    )
    staged = io.frame(night.spark, night.staged / "blocked_pairs")
    return (
        found.join(staged.select(*pair), on=pair, how="anti")
        .join(consenting, on="person_id", how="semi")
        .join(night.frame("items").select("item_id"), on="item_id", how="semi")
        .select(*pair, F.lit(BLOCKED_SINCE).alias("reason"), "since", "until")
    )


# --- columns of lists as arrays ----------------------------------------------------------------
def _booleans(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False).astype(bool)


def _rows_by_value(
    lists: pa.ChunkedArray, form: Callable[[str], str] = str
) -> dict[str, np.ndarray]:
    """For each value of the lists: (n_lists,) bool, whether list i holds it; sorted by value."""
    whole = lists.combine_chunks()
    values = pc.dictionary_encode(pc.list_flatten(whole))
    rows, codes = pc.list_parent_indices(whole).to_numpy(), values.indices
    known = _booleans(pc.is_valid(codes))
    rows, codes = rows[known], codes.drop_null().to_numpy()
    found: dict[str, np.ndarray] = {}
    for code, value in enumerate(values.dictionary.to_pylist()):
        mask = found.setdefault(form(value), np.zeros(len(whole), dtype=bool))
        mask[rows[codes == code]] = True
    return dict(sorted(found.items()))


def _plain(text: str) -> str:
    return text.strip().lower()
