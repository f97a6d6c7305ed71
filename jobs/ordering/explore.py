"""Explore places: items that the list would not hold, drawn with known probabilities.

Pure arrays, but for :func:`outcomes`, which reads what was logged as Spark frames. A source is
drawn by the night's shares, then an item of it with equal chances; the probability of that draw is
the place's propensity. Shares follow Thompson's (1933) rule in its batched form, randomised
probability matching (Scott, 2010): a source's share is the probability that it converts best, as
sampled from a Beta posterior a source.

Where a list has several explore places, the candidates are dealt out to them in turn, best first,
and each place draws from its own: no item can be drawn twice, and a place's propensity needs no
condition on what was drawn elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from jobs.ordering.diversity import Capped, Placed, Shelf
from jobs.params import check
from jobs.refresh import onward
from jobs.tables import TABLES

# Samples of each posterior: shares are then right to about one in a hundred.
SAMPLES = 4_096


@dataclass(frozen=True)
class Explore:
    """Where and from what a list explores."""

    # Places of a list that explore; 0 is off.
    places: int = 0
    # The first of them, from 1; the others follow it.
    first: int = 11
    # The share that is spread equally over the sources whatever the log says: without it a source
    # that began unluckily is never tried again, and off-policy estimates lose their support.
    floor: float = 0.1

    def __post_init__(self) -> None:
        check(self.places >= 0, "explore_places must not be negative")
        check(self.first >= 1, "explore_first must be at least 1")
        check(0 < self.floor <= 1, "explore_floor must be in (0, 1]")

    def __bool__(self) -> bool:
        return self.places > 0


@dataclass(frozen=True)
class Drawn:
    """``column``: (n_people, places) of the shelf, -1 where there was nothing to draw from;
    ``propensity``: (n_people, places), the probability of that draw."""

    column: np.ndarray
    propensity: np.ndarray


def draw(
    shelf: Shelf,
    placed: Placed,
    caps: Sequence[Capped],
    wanted: np.ndarray,
    named: np.ndarray,
    shares: np.ndarray,
    chance: np.ndarray,
    near: Sequence[np.ndarray] = (),
) -> Drawn:
    """Draw an item for each explore place of each person.

    ``wanted``: (n_people, places) bool, places that no pin holds;
    ``named``: (n_pairs, n_sources) bool; ``shares``: (n_sources,), 0 for what is not drawn from;
    ``chance``: (n_people, places) in [0, 1), from :func:`chances`;
    ``near``: by place (n_people, width) bool, from ``diversity.near_open``, candidates that spread
    keeps from it while others are left. Sources with nothing to give a place leave their share to
    the others, in proportion.
    """
    people, places = chance.shape
    rows = np.arange(people)
    column, propensity = np.full((people, places), -1), np.zeros((people, places))
    count = np.maximum(wanted.sum(axis=1), 1)
    turn = (np.cumsum(placed.free, axis=1) - 1) % count[:, None]
    before = np.cumsum(wanted, axis=1) - wanted
    drawable = np.asarray(named[:, shares > 0].any(axis=1))
    for place in range(places if shelf.pair.shape[1] else 0):
        here = before[:, place]
        mine = placed.free & (turn == here[:, None]) & wanted[:, place, None]
        for cap, room in zip(caps, placed.room, strict=True):
            # The places before this one may each have drawn one of the cap's items.
            full = np.flatnonzero(room <= here)
            mine[full] &= ~cap.member[shelf.item[full]]
        if near:
            spread = mine & ~near[place] & drawable[np.maximum(shelf.pair, 0)]
            mine = np.where(spread.any(axis=1)[:, None], spread, mine)
        probability = probabilities(shelf, mine, named, shares)
        reached = np.cumsum(probability, axis=1)
        total = reached[:, -1]
        found = (reached <= (chance[:, place] * total)[:, None]).sum(axis=1)
        # Rounding may lift a chance next to 1 up to the last of the sums.
        last = mine.shape[1] - 1 - (probability[:, ::-1] > 0).argmax(axis=1)
        found = np.minimum(found, last)
        some = total > 0
        column[some, place] = found[some]
        propensity[some, place] = probability[rows, found][some]
    return Drawn(column, propensity)


def probabilities(
    shelf: Shelf, mine: np.ndarray, named: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """(n_people, width) the probability that each candidate of ``mine`` is drawn; rows add up to 1
    where there is one at all."""
    pair = np.maximum(shelf.pair, 0)
    of_source = [mine & named[:, source][pair] for source in range(named.shape[1])]
    counts = np.stack([one.sum(axis=1) for one in of_source], axis=1)
    live = np.where(counts > 0, shares, 0.0)
    whole = live.sum(axis=1, keepdims=True)
    each = np.divide(
        live, whole * counts, out=np.zeros_like(live), where=(counts > 0) & (whole > 0)
    )
    probability = np.zeros(mine.shape)
    for source, members in enumerate(of_source):
        probability += members * each[:, source, None]
    return probability


def chances(
    person_ids: Sequence[str], places: int, seed: int, as_of: datetime, surface: str
) -> np.ndarray:
    """(n_people, places) uniform in [0, 1): a hash of the seed, the night, the surface and the
    person, so that whoever else is in the block changes nothing."""
    prefix = f"{seed}|{as_of.isoformat()}|{surface}|".encode()
    size = 8 * places
    digests = b"".join(
        hashlib.shake_128(prefix + person.encode(errors="surrogatepass")).digest(size)
        for person in person_ids
    )
    # A double holds 53 bits.
    words = np.frombuffer(digests, ">u8").reshape(len(person_ids), places) >> np.uint64(11)
    return words.astype(np.float64) / 2.0**53


# --- the bandit ------------------------------------------------------------------------------
def shares(
    impressions: np.ndarray, conversions: np.ndarray, generator: np.random.Generator, floor: float
) -> np.ndarray:
    """(n_sources,) shares that add up to 1, from what was logged of each source.

    The posterior of a source's conversion is Beta(1 + conversions, 1 + the rest), uniform before
    anything was logged.
    """
    sampled = generator.beta(
        1.0 + conversions, 1.0 + impressions - conversions, (SAMPLES, len(impressions))
    )
    best = np.bincount(sampled.argmax(axis=1), minlength=len(impressions)) / SAMPLES
    return (1.0 - floor) * best + floor / len(impressions)


def of_night(seed: int, as_of: datetime, surface: str) -> np.random.Generator:
    """The random numbers of one surface in one night."""
    text = f"{seed}|{as_of.isoformat()}|{surface}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))


def share_table(
    surface: str, floor: float, counted: pa.Table, sources: Sequence[str],
    generator: np.random.Generator,
) -> pa.Table:  # fmt: skip
    """The table ``explore_shares`` of one surface: a row per source that can be drawn.

    ``counted``: source, impressions, conversions, a row per source that was shown; ``sources``:
    those that the surface takes and that named something.
    """
    if not sources:
        return TABLES["explore_shares"].schema.empty_table()
    shown = {row["source"]: row for row in counted.to_pylist()}
    none = {"impressions": 0, "conversions": 0}
    impressions, conversions = (
        np.array([shown.get(source, none)[name] for source in sources], np.float64) for name in none
    )
    return pa.table({
        "surface": pa.repeat(surface, len(sources)),
        "source": list(sources),
        "impressions": impressions.astype(np.int64),
        "conversions": conversions.astype(np.int64),
        "posterior_mean": (1.0 + conversions) / (2.0 + impressions),
        "share": shares(impressions, conversions, generator, floor),
    }, schema=TABLES["explore_shares"].schema)  # fmt: skip


def outcomes(shown: pa.Table, answers: pa.Table) -> pa.Table:
    """What became of explored places: source, impressions, conversions; no row for a source that
    was not shown. An item that several sources named counts for each.

    ``shown``: request_id, item_id, source, a row per explored item shown and source that named it;
    ``answers``: request_id, item_id of the events that count as conversions.
    """
    place = ["request_id", "item_id"]
    rows = shown.group_by([*place, "source"]).aggregate([])
    converted = onward.among(rows, answers, place).cast(pa.int64())
    counted = rows.append_column("converted", converted).group_by("source").aggregate(
        [([], "count_all"), ("converted", "sum")]
    )  # fmt: skip
    return counted.select(["source", "count_all", "converted_sum"]).rename_columns(
        ["source", "impressions", "conversions"]
    )
