"""The step ``replay``: what was really served, computed again.

Reads ``served_features``, ``served``, ``definitions`` and ``events``, and of the nights that
served: the tables ``features`` and ``recommendations`` as published, the ranker, and what it takes
to make them again. Writes ``replayed`` (a row per night that served in the current period, or in
the reference where its promise is due), ``replay_features`` (a row per feature: served beside
published), ``rebuilt_features`` (a row per feature: published beside made again from the night's
own tables, which proves that it was known by then) and ``replay_symptoms``.

Three things are held together: the features that the log has and those that the release published,
value by value, by their hash and by their version; the scores and the order that these features
give; and, for some people, all of it made again from the night's own tables by the night's own
code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import definitions, rankers, symptoms
from jobs.diagnosis.definitions import Definitions
from jobs.diagnosis.log import intake
from jobs.diagnosis.replay import comparing, promises, rebuilding
from jobs.diagnosis.replay.comparing import DEFAULT, LOST, OTHER, UNIT, Compared
from jobs.diagnosis.replay.promises import Came
from jobs.diagnosis.symptoms import Symptom
from jobs.evaluation import metrics
from jobs.night import Night
from jobs.params import check
from jobs.scoring import features
from jobs.tables import FEATURES, TABLES

# Shares of rows beyond which serving does something else than publishing. Nothing at all differs
# where serving gives what was published, so that this leaves room for a deployment's minutes only.
SHARE = 0.005
LEAST = 200  # rows that a feature's comparison rests on
# Of the scored places whose release should be here: the log's own limits leave so many without
# features, and so many to releases that nobody knows.
REPLAYED = 1 - intake.LIMITS[intake.NO_FEATURES] - intake.NO_RELEASE_LIMIT
SIGMAS = 3.0  # of drawing whole requests, by which a share of the sample may be off
# Refreshes are kept for hours only, so that places of theirs are no fault; beyond half of all, what
# was looked at does not speak for what was served.
RETIRED = 0.5
SCORE_WITHIN = 1e-4  # relative; scores are means of float32 sums
LITTLE = 0.01  # of a promise, which nobody misses
FEW_ANSWERS = 50  # lists of buyers; fewer say nothing of a promise
KIND = {
    LOST: "lost_join", DEFAULT: "default_on_timeout", UNIT: "unit_change", OTHER: "unlike_release",
}  # fmt: skip


@dataclass(frozen=True)
class Params:
    """How much is computed again."""

    # People of the newest night whose features and lists are made again from its tables.
    rebuilt_people: int = 100

    def __post_init__(self) -> None:
        check(0 <= self.rebuilt_people <= 10_000, "rebuilt_people must be 0 to 10,000")


@dataclass(frozen=True)
class Shown:
    """What was served in the current period: requests, places with a score of their own, and of
    these, those of releases that were ``retired`` and those that can be replayed.

    ``replayable`` is drawn from a sample of requests; ``error``: its standard error, relative.
    """

    requests: int
    scored: int
    retired: int = 0
    replayable: float = 0.0
    error: float = 0.0


@dataclass
class Replayed:
    """What was found of one night; shares are None where nothing could be compared."""

    night: str
    requests: int = 0
    places: int = 0
    compared: int = 0
    unpublished: int = 0
    features_same: float | None = None
    hash_same: float | None = None
    version_same: float | None = None
    score_same: float | None = None
    order_same: float | None = None
    rebuilt_people: int = 0
    rebuilt_features_same: float | None = None
    rebuilt_lists_same: float | None = None
    promised: float | None = None
    realised: float | None = None
    realised_low: float | None = None
    realised_high: float | None = None
    # (n,) the agreed metric of each visitor who bought in the horizon; of lists at most so long.
    reached: np.ndarray | None = field(default=None, repr=False)
    longest: int = 0
    # Of the rows whose features are served as published, those that have their hash.
    hash_kept: float | None = None
    # (n, n_features) of the rows compared: as served, as published.
    both: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    # (n, n_features) bool, of the rows published: where the value made again is the same.
    rebuilt: np.ndarray | None = field(default=None, repr=False)
    rebuilt_places: int = 0

    def rows_of(self, what: str) -> int:
        """How many rows the share of this name rests on."""
        if what == "rebuilt_features_same":
            return 0 if self.rebuilt is None else len(self.rebuilt)
        if what == "rebuilt_lists_same":
            return self.rebuilt_places
        return self.compared + self.unpublished

    @property
    def published_at_all(self) -> float | None:
        """The share of the sampled places that the night published for the person."""
        whole = self.compared + self.unpublished
        return self.compared / whole if whole else None


def run(night: Night, params: Params) -> None:
    """Stage what was found of each night, of each feature, and what is wrong."""
    agreed = definitions.read(night)
    now = ds.field("period") == "current"
    sample = night.arrow("served_features", where=now & ds.field("night").is_valid())
    columns = ["request_id", "night", "score", "fallback", "published"]
    every = night.arrow("served", columns, now)
    shown = every.filter(pc.is_valid(every["night"]))
    found = []
    kept = promises.kept(night, agreed)
    for label in sorted({*shown["night"].to_pylist(), *kept}):
        of_night = shown.filter(pc.equal(shown["night"], label))
        one = replay(night, label, sample.filter(pc.equal(sample["night"], label)))
        one.places = of_night.num_rows
        one.requests = pc.count_distinct(of_night["request_id"]).as_py()
        one.promised = promises.of_night(night, label, agreed).promised
        if label in kept:
            realise(one, kept[label], night.seed)
        found.append(one)
    gone = made_again(night, found, sample, params.rebuilt_people)
    compared = comparing.compare(FEATURES, *_together(found))
    schema = TABLES["replayed"].schema
    rows = [{name: getattr(one, name) for name in schema.names} for one in found]
    night.write("replayed", pa.Table.from_pylist(rows, schema))
    night.write("replay_features", _feature_rows(compared))
    night.write("rebuilt_features", _rebuilt_rows(found))
    told = [*wrong(found, compared, shown_of(every, sample)), *below_promise(found, agreed)]
    if gone and any(one.compared for one in found):
        told.append(symptoms.unjudged(
            "replay_unjudged", "rebuilt", 0, params.rebuilt_people,
            f"That what was published is what its night's tables give is not proved: {gone}.",
        ))  # fmt: skip
    night.write("replay_symptoms", symptoms.table(told))


def _together(found: list[Replayed]) -> tuple[np.ndarray, np.ndarray]:
    """(n, n_features) twice: all rows compared, as served and as published."""
    both = [one.both for one in found if one.both is not None]
    if not both:
        nothing = np.zeros((0, len(FEATURES)), np.float32)
        return nothing, nothing
    return np.concatenate([b[0] for b in both]), np.concatenate([b[1] for b in both])


def shown_of(rows: pa.Table, sample: pa.Table) -> Shown:
    """What all places of the current period are; ``sample``: those of a night that is here, with
    features, each standing for its ``weight``."""
    scored = rows.filter(pc.and_(pc.is_valid(rows["score"]), pc.is_null(rows["fallback"])))
    gone = pc.and_(pc.is_null(scored["night"]), scored["published"])
    mine = sample.filter(pc.is_valid(sample["score"]))
    drawn = pc.count_distinct(mine["request_id"]).as_py()
    weight = float(pc.sum(mine["weight"]).as_py() or 0.0)
    rest = 1 - mine.num_rows / max(weight, 1.0)  # of the requests, those that were not drawn
    return Shown(
        requests=pc.count_distinct(rows["request_id"]).as_py(),
        scored=scored.num_rows,
        retired=int(pc.sum(gone).as_py() or 0),
        replayable=weight,
        error=float(np.sqrt(max(rest, 0.0) / max(drawn, 1))),
    )


# --- one night -------------------------------------------------------------------------------
def replay(night: Night, label: str, sample: pa.Table) -> Replayed:
    """Hold a night's sampled places, as served, against what it published."""
    one = Replayed(label)
    if not sample.num_rows:
        return one
    lists = night.earlier("recommendations", label)
    if not features.held(lists.table("features")):
        one.unpublished = sample.num_rows  # by an earlier code, of other features
        return one
    people = pc.unique(sample["person_id"]).drop_null()
    mine = ds.field("person_id").isin(people)
    published = io.read_arrow(lists.table("features"), where=mine)
    place = rows_of(sample, published)
    there = place >= 0
    one.compared, one.unpublished = int(there.sum()), int((~there).sum())
    if not one.compared:
        return one
    served = features.read(sample.filter(pa.array(there)))
    values = features.read(published)[place[there]]
    one.both = (served, values)
    alike = comparing.same(served, values).all(axis=1)
    one.features_same = float(alike.mean())
    logged = sample["feature_hash"].filter(pa.array(there))
    own = pa.array(features.hashes(served), pa.string())
    given = published["feature_hash"].take(pa.array(place[there]))
    hashed = pc.and_(pc.equal(logged, own), pc.equal(logged, given)).fill_null(False)
    one.hash_same = _share(hashed)
    one.hash_kept = _share(hashed.filter(pa.array(alike))) if alike.any() else None
    version = sample["feature_version"].filter(pa.array(there))
    if version.null_count < len(version):  # a log may leave it out; another one is another thing
        alike_named = pc.equal(version, published["feature_version"].take(pa.array(place[there])))
        one.version_same = _share(alike_named.drop_null())
    score = sample["score"].filter(pa.array(there)).to_numpy(zero_copy_only=False)
    again = rankers.scorer_of(night, label).of_features(served)
    close = np.isclose(again, score.astype(float), rtol=SCORE_WITHIN, atol=1e-9)
    # What was scored from other features has another score; that is told by the features.
    one.score_same = float(close[alike].mean()) if alike.any() else None
    one.order_same = order_same(
        sample, io.read_arrow(lists.table("recommendations"),
                              ["surface", "person_id", "item_id", "rank"], mine)
    )  # fmt: skip
    return one


def rows_of(sample: pa.Table, published: pa.Table) -> np.ndarray:
    """(n_sample,) int64: the row of ``published`` of each pair of person and item, else -1."""
    return _looked_up(sample, published, ["person_id", "item_id"])


def _looked_up(rows: pa.Table, among: pa.Table, keys: list[str]) -> np.ndarray:
    numbered = among.select(keys).append_column("row", pa.array(np.arange(among.num_rows)))
    asked = rows.select(keys).append_column("at", pa.array(np.arange(rows.num_rows)))
    joined = asked.join(numbered, keys=keys, join_type="left outer").sort_by("at")
    return joined["row"].fill_null(-1).to_numpy()


def _share(held: pa.ChunkedArray) -> float:
    """The share that holds."""
    return float(pc.mean(held.cast(pa.float64())).as_py() or 0.0)


def order_same(sample: pa.Table, published: pa.Table) -> float | None:
    """The share of neighbouring places of an answer that stand in the published order; what a
    filter takes out in between changes none."""
    rank_at = _looked_up(sample, published, ["surface", "person_id", "item_id"])
    rank = np.where(
        rank_at >= 0, published["rank"].to_numpy()[np.maximum(rank_at, 0)], -1
    ) if published.num_rows else np.full(sample.num_rows, -1)  # fmt: skip
    _, request = np.unique(sample["request_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    order = np.lexsort((sample["position"].to_numpy(), request))
    order = order[rank[order] >= 0]
    request, rank = request[order], rank[order]
    beside = request[1:] == request[:-1]
    if not beside.any():
        return None
    return float((rank[1:] > rank[:-1])[beside].mean())


def realise(one: Replayed, came: Came, seed: int) -> None:
    """Note what came of a night's lists."""
    if len(came.reached) < 2:
        return
    one.reached, one.longest = came.reached, came.longest
    one.realised = float(came.reached.mean())
    one.realised_low, one.realised_high = metrics.interval(came.reached, seed)


# --- made again ------------------------------------------------------------------------------
def _newest_night(night: Night, found: list[Replayed]) -> Replayed | None:
    """The newest that is a night of its own: a refresh has most of its rows from its night."""
    for one in reversed(found):
        lists = night.lake.at("recommendations", one.night)
        if one.compared and lists is not None and not lists.manifest.get("refresh"):
            return one
    return None


def made_again(
    night: Night, found: list[Replayed], sample: pa.Table, count: int
) -> str | None:  # fmt: skip
    """Make what the newest night published of ``count`` people again; why it is not, else None."""
    if not count:
        return "replay.rebuilt_people is 0"
    newest = _newest_night(night, found)
    if newest is None:
        return "no night of its own served what the log has features of"
    return rebuild(night, newest, sample, count)


def rebuild(night: Night, one: Replayed, sample: pa.Table, count: int) -> str | None:
    """Make features and lists of some served people again, and hold them against what was
    published; why they could not be, else None."""
    mine = sample.filter(pc.equal(sample["night"], one.night))
    people = pc.unique(mine["person_id"]).drop_null().sort()
    chosen = np.random.default_rng(night.seed).permutation(len(people))[:count]
    people = people.take(pa.array(np.sort(chosen)))
    made = rebuilding.again(night, one.night, people)
    if made is None:
        return f"the tables of {one.night} are not all there any more"
    lists = night.earlier("recommendations", one.night)
    whose = ds.field("person_id").isin(people)
    published = io.read_arrow(lists.table("features"), where=whose)
    place = rows_of(published, made["features"])
    values = features.read(made["features"])
    alike = np.zeros((published.num_rows, len(FEATURES)), bool)
    there = place >= 0
    alike[there] = comparing.same(
        features.read(published.filter(pa.array(there))), values[place[there]]
    )
    one.rebuilt = alike
    one.rebuilt_people = len(people)
    one.rebuilt_features_same = float(alike.all(axis=1).mean()) if len(alike) else None
    keys = ["surface", "person_id", "rank", "item_id"]
    was = io.read_arrow(lists.table("recommendations"), keys, whose)
    again = _looked_up(was, made["recommendations"], keys)
    one.rebuilt_places = was.num_rows
    one.rebuilt_lists_same = float((again >= 0).mean()) if was.num_rows else None
    return None


# --- what is wrong ---------------------------------------------------------------------------
def _feature_rows(compared: list[Compared]) -> pa.Table:
    schema = TABLES["replay_features"].schema
    rows = [{name: getattr(one, name) for name in schema.names} for one in compared]
    return pa.Table.from_pylist(rows, schema)


def _rebuilt_rows(found: list[Replayed]) -> pa.Table:
    rows = [
        {"feature": name, "night": one.night, "rows": len(one.rebuilt), "same": float(same)}
        for one in found
        if one.rebuilt is not None and len(one.rebuilt)
        for name, same in zip(FEATURES, one.rebuilt.mean(axis=0), strict=True)
    ]
    return pa.Table.from_pylist(rows, TABLES["rebuilt_features"].schema)


def wrong(found: list[Replayed], compared: list[Compared], shown: Shown) -> list[Symptom]:
    """A symptom per way in which features differ, of scores, order and what was made again, and
    where there was nothing to compare: that is not the same as nothing wrong."""
    told = [*_features_wrong(compared), *_nothing_compared(found, shown)]
    for what, words in (
        ("published_at_all", "places that were served with features were never published"),
        ("score_same", "scores are not those that the served features give"),
        ("order_same", "neighbours stand in another order than published"),
        ("version_same", "places name another version of the features than the release has"),
        ("hash_kept", "hashes are not those of features that are served as published"),
        ("rebuilt_features_same", "features made again from the night's tables are other ones"),
        ("rebuilt_lists_same", "places made again from the night's tables hold other items"),
    ):
        beyond = [one for one in _differing(found, what) if one.share > SHARE]
        if not beyond:
            continue
        worst = max(beyond, key=lambda one: (one.share, one.whose))
        others = f", the worst of {len(beyond)} such" if len(beyond) > 1 else ""
        # Nights come and go while a fault stands: the subject, by which people are told of it once,
        # names none.
        told.append(Symptom(
            "unlike_release", what, worst.share, SHARE, worst.share / SHARE, worst.rows,
            f"Of {worst.whose}{others}, {worst.share:.1%} of the {words}{worst.which}.",
            warning=what == "rebuilt_lists_same",
        ))  # fmt: skip
    return told


@dataclass(frozen=True)
class Differing:
    """The ``share`` of ``rows`` that is not the same, of ``whose`` release or releases; ``which``
    features it is, where that is told."""

    share: float
    rows: int
    whose: str
    which: str = ""


def _differing(found: list[Replayed], what: str) -> Iterator[Differing]:
    """By how much ``what`` is not the same: of each night of LEAST places and more, and of all
    others together, if these are as many."""
    few = []
    for one in found:
        same, rows = getattr(one, what), one.rows_of(what)
        if same is None:
            continue
        if rows >= LEAST:
            which = _made_otherwise(one) if what == "rebuilt_features_same" else ""
            yield Differing(1 - same, rows, f"the release of {one.night}", which)
        else:
            few.append((1 - same, rows))
    together = sum(rows for _, rows in few)
    if together >= LEAST:
        share = sum(other * rows for other, rows in few) / together
        yield Differing(
            share, together,
            f"{len(few)} releases of fewer than {LEAST} places each, {together:,} together",
        )  # fmt: skip


def _made_otherwise(one: Replayed) -> str:
    """The features that differ most from what is made again of them, in words."""
    if one.rebuilt is None:
        return ""
    other = 1 - one.rebuilt.mean(axis=0)
    worst = [n for n in np.argsort(-other, kind="stable")[:3] if other[n] > 0]
    return ": " + ", ".join(f"{FEATURES[n]} in {other[n]:.1%}" for n in worst)


def below_promise(found: list[Replayed], agreed: Definitions) -> Iterator[Symptom]:
    """A warning where the lists of all releases together reach less than their nights promised,
    beyond the interval; one release alone, of many that are looked at daily, does by chance. And
    one where too few lists are due, or all are shorter than the metric.

    It fails nothing: what filters, quotas and rules take out of a list is in what came, and not in
    the promise.
    """
    name = f"{agreed.metric}@{agreed.at}"
    promising = [one for one in found if one.promised is not None]
    due = [one for one in promising if one.reached is not None]
    kept = [one for one in due if one.longest >= agreed.at]
    reached = [one.reached for one in kept if one.reached is not None]
    rests = sum(map(len, reached))
    if due and not kept:
        longest = max(one.longest for one in due)
        yield symptoms.unjudged(
            "promise_unjudged", name, longest, agreed.at,
            f"{name} is promised of {agreed.at} places and lists were served with {longest} at "
            "most, so that no promise is held against them.",
        )  # fmt: skip
    elif promising and rests < FEW_ANSWERS:
        yield symptoms.unjudged(
            "promise_unjudged", name, rests, FEW_ANSWERS,
            f"Of the lists that were served long enough ago for the promised horizon to be over, "
            f"{rests:,} were of visitors who bought within it: no promise of {name} is judged.",
        )  # fmt: skip
    if rests < FEW_ANSWERS:
        return
    values = np.concatenate(reached)
    promised = [one.promised for one in kept if one.promised is not None]
    promise = float(np.average(promised, weights=[len(v) for v in reached]))
    came = float(values.mean())
    _, high = metrics.interval(values, 0)
    effect, limit = promise - came, max(high - came, LITTLE * promise)
    if effect <= limit:
        return
    yield Symptom(
        "below_promise", name, effect, limit, effect / limit, len(values),
        f"Of the lists of {len(values):,} visitors of {len(kept)} releases who bought within the "
        f"promised horizon, {name} is {came:.3f}, at most {high:.3f}, and their nights promised "
        f"{promise:.3f}.",
        warning=True,
    )  # fmt: skip


def _nothing_compared(found: list[Replayed], shown: Shown) -> Iterator[Symptom]:
    rows = sum(one.compared + one.unpublished for one in found)
    if rows < min(LEAST, shown.scored):
        yield Symptom(
            "not_replayed", "features", 1.0, 1.0, 1.0, rows,
            f"Of {shown.scored:,} scored places of {shown.requests:,} requests only {rows:,} name "
            "a release whose tables are here and say what features they were scored from.",
        )  # fmt: skip
    elif not shown.scored:
        yield Symptom(
            "not_replayed", "scores", 1.0, 1.0, 1.0, shown.requests,
            f"None of {shown.requests:,} requests was answered with a scored list: there is "
            "nothing to replay.",
        )  # fmt: skip
    else:
        yield from _little_compared(shown)


def _little_compared(shown: Shown) -> Iterator[Symptom]:
    """Where much of what should be here is not, of that and of all, since the log's limits are
    shares of all places; and, as a warning, where most is gone as meant."""
    due = shown.scored - shown.retired
    share = min(shown.replayable / max(due, 1), 1.0)
    gone = shown.retired / shown.scored
    most = share * (1 + SIGMAS * shown.error)
    if due and most < REPLAYED and (1 - most) * due > (1 - REPLAYED) * shown.scored:
        yield Symptom(
            "not_replayed", "places", 1 - share, 1 - REPLAYED, (1 - share) / (1 - REPLAYED), due,
            f"Of {due:,} scored places, those of retired releases left out, only {share:.1%} name "
            "a release whose tables are here and say what features they were scored from.",
        )  # fmt: skip
    if gone > RETIRED:
        yield Symptom(
            "not_replayed", "retired", gone, RETIRED, gone / RETIRED, shown.scored,
            f"Of {shown.scored:,} scored places {gone:.1%} are of releases that were published "
            "here and whose tables are gone, as those of refreshes are after some hours: what was "
            "replayed does not speak for them. Keep more of them by release.keep_hourly.",
            warning=True,
        )  # fmt: skip


def _features_wrong(compared: list[Compared]) -> Iterator[Symptom]:
    beyond = [one for one in compared if one.known >= LEAST and one.share > SHARE]
    for way, kind in KIND.items():
        mine = sorted((c for c in beyond if c.way == way), key=lambda c: (-c.share, c.feature))
        if not mine:
            continue
        worst, names = mine[0], [c.feature for c in mine]
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Symptom(
            kind, worst.feature, worst.share, SHARE, worst.share / SHARE, worst.known,
            f"{listed}: {_words(worst)} In {worst.share:.1%} of {worst.known:,} places the value "
            "served is not the one published.",
        )  # fmt: skip


def _words(one: Compared) -> str:
    if one.way == LOST:
        return "no value was served where one was published."
    if one.way == DEFAULT:
        return f"the value {one.constant:g} was served in place of what was published."
    if one.way == UNIT and one.ratio is not None:
        times = f"{one.ratio:g} times" if one.ratio > 1 else f"one in {1 / one.ratio:g} of"
        return f"served is {times} what was published, which is a unit."
    return "served and published differ in no one way."
