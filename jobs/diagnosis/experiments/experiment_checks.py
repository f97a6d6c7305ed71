"""Whether an experiment may be read: its assignment, checked before any outcome is looked at.

Every check has an effect that must be beyond its limit and, where chance plays a part, a test; the
tests of one experiment share one chance in a thousand of a false alarm. Those who came in the
current period are checked again by themselves, since what broke lately hides among the many before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jobs.diagnosis.definitions import Experiment
from jobs.diagnosis.experiments.assignment import Assignment
from jobs.diagnosis.experiments.estimates import ratios
from jobs.diagnosis.experiments.exposure import SEVERAL, UNKNOWN, Exposed
from jobs.diagnosis.symptoms import Symptom
from jobs.evaluation.metrics import wilson

KIND = "broken_assignment"
# The custom of sample-ratio checks (Fabijan et al., 2019) for the six tests of a day together.
CLEAR = 0.001 / 6
# An arm off by less than a fiftieth of its share moves no mean that anyone acts on.
RATIO = 0.02
# Keys that turn out to be one person after they were assigned put a few in two arms.
TWO_ARMS = 0.01
# Logged by hand during a rehearsal, not by traffic.
STRANGE_ARMS, FEWEST_STRANGE = 0.001, 5
# An arm that should have had so many has nobody by chance once in 22,000 times.
EXPECTED = 10
# Balanced assignment moves one in a hundred from the plain hash, and merged keys a few more.
MISMATCH = 0.03
# Agreement beyond chance (Cohen's kappa, 1960) below which the salt plays no part at all.
BY_SALT = 0.5
# A standardised difference that is held to be small (Austin, 2009).
IMBALANCE = 0.1
# Fewer people say nothing about shares or means.
FEWEST = 100


@dataclass(frozen=True)
class Check:
    """``value`` beside its ``limit``; a failure is grave unless it is only a ``warning``."""

    name: str
    value: float
    limit: float
    passed: bool
    sentence: str
    people: int = 0
    p_value: float | None = None
    warning: bool = False

    @property
    def severity(self) -> float:
        return self.value / self.limit


def checks(
    who: Exposed, defined: Experiment, seen_from_start: bool, kept: Assignment | None = None
) -> list[Check]:
    """All checks of an experiment that has begun. ``seen_from_start``: the window reaches back to
    its first day, so that a visitor's first visit in it is the first of all; ``kept``: the balanced
    assignment, where one was made."""
    if not len(who.arm):
        return [Check(
            "exposed", 0.0, 1.0, False, "Nobody in the log is in it; take it out of the "
            "definitions if it is over, else have serving log it.", warning=True,
        )]  # fmt: skip
    found = [
        empty_arms(who, defined), strange_arms(who), two_arms(who), sample_ratio(who, defined),
        by_the_salt(who, defined, kept), value_before(who),
    ]  # fmt: skip
    if seen_from_start:
        found.append(returning(who))
    lately = who.recent & (who.arm >= 0)
    if lately.sum() >= FEWEST and not who.recent.all():
        found += [sample_ratio(who, defined, lately), value_before(who, lately)]
    return found


def symptom(name: str, found: list[Check]) -> Symptom | None:
    """The one symptom of an experiment, the gravest reason first, all of them in its sentence."""
    failed = sorted(
        (one for one in found if not one.passed), key=lambda one: (one.warning, -one.severity)
    )
    if not failed:
        return None
    gravest = failed[0]
    reasons = " ".join(one.sentence for one in failed)
    return Symptom(
        KIND, name, gravest.value, gravest.limit, gravest.severity, gravest.people,
        f"The experiment {name}: {reasons}", gravest.p_value, gravest.warning,
    )  # fmt: skip


def unmeasured(name: str, found: list[Check]) -> Iterator[Symptom]:
    """A symptom for each guardrail that has no number: the log lacks it."""
    for one in found:
        yield Symptom(
            "incomplete_log", f"{name}: {one.name}", one.value, one.limit, one.severity,
            one.people, f"The experiment {name}: {one.sentence}", warning=one.warning,
        )  # fmt: skip


def sample_ratio(who: Exposed, defined: Experiment, of: np.ndarray | None = None) -> Check:
    """Whether the arms have the people that their shares promise: a chi-square test."""
    counts = np.bincount(_chosen(who, of), minlength=len(who.arms))
    wanted = np.array([defined.arms[name] for name in who.arms])
    people = int(counts.sum())
    expected = wanted / wanted.sum() * max(people, 1)
    off = counts / expected - 1
    worst = int(np.abs(off).argmax())
    p = float(stats.chisquare(counts, expected).pvalue) if people else 1.0
    value = float(np.abs(off[worst])) if people else 0.0
    return Check(
        "sample_ratio" if of is None else "sample_ratio_lately", value, RATIO,
        value <= RATIO or p >= CLEAR,
        f"{who.arms[worst]} has {counts[worst]:,} of {people:,} people{_lately(of)}, where "
        f"{expected[worst]:,.0f} belong (p = {p:.2g}).",
        people, p,
    )  # fmt: skip


def two_arms(who: Exposed) -> Check:
    """Whether people stay in their arm."""
    people, twice = len(who.arm), int((who.arm == SEVERAL).sum())
    low, _ = wilson(twice, people) if people else (0.0, 0.0)
    return Check(
        "two_arms", twice / max(people, 1), TWO_ARMS, low <= TWO_ARMS,
        f"{twice:,} of {people:,} people are in more than one arm.", people,
    )  # fmt: skip


def empty_arms(who: Exposed, defined: Experiment) -> Check:
    """Whether every arm has people."""
    counts = np.bincount(who.arm[who.arm >= 0], minlength=len(who.arms))
    missing = {
        name: defined.arms[name] * len(who.arm)
        for name, count in zip(who.arms, counts, strict=True)
        if not count
    }
    value = max(missing.values(), default=0.0)
    said = f"nobody is in {' or '.join(missing)}" if missing else "every arm has people"
    return Check(
        "empty_arm", value, EXPECTED, value <= EXPECTED, f"Of {len(who.arm):,} people {said}.",
        len(who.arm),
    )  # fmt: skip


def strange_arms(who: Exposed) -> Check:
    """Whether the log has the arms that the definition has."""
    people, strange = len(who.arm), int((who.arm == UNKNOWN).sum())
    value = strange / max(people, 1)
    return Check(
        "unknown_arm", value, STRANGE_ARMS, value <= STRANGE_ARMS or strange < FEWEST_STRANGE,
        f"{strange:,} of {people:,} people are in no arm, or in one that the definition lacks.",
        people,
    )  # fmt: skip


def by_the_salt(who: Exposed, defined: Experiment, kept: Assignment | None = None) -> Check:
    """Whether the log's arms are those that the salted hash gives, or the balanced assignment where
    one was made; where they have nothing to do with it, the shop assigns in another way, which is
    only a warning."""
    chosen = np.flatnonzero(who.arm >= 0)
    names = sorted(defined.arms)
    place = np.array([names.index(name) for name in who.arms])
    logged = place[who.arm[chosen]]
    meant = kept or Assignment(defined.salt, defined.arms)
    hashed = meant.arms_of(who.visitor.take(chosen).to_pylist())
    people = len(chosen)
    if people < FEWEST:
        return Check("by_the_salt", 0.0, MISMATCH, True, "There are too few people to tell.")
    differs = int((logged != hashed).sum())
    shares = [np.bincount(codes, minlength=len(names)) / people for codes in (logged, hashed)]
    chance = float(shares[0] @ shares[1])
    kappa = (1 - differs / people - chance) / (1 - chance) if chance < 1 else 1.0
    low, _ = wilson(differs, people)
    if kappa < BY_SALT:
        return Check(
            "by_the_salt", differs / people, MISMATCH, False,
            f"It is not assigned by the salt: {differs:,} of {people:,} people are in another arm "
            f"than its hash gives; by pure chance {1 - chance:.0%} would be.",
            people, None, True,
        )  # fmt: skip
    return Check(
        "by_the_salt", differs / people, MISMATCH, low <= MISMATCH,
        f"{differs:,} of {people:,} people are not in the arm that the salt gives them.", people,
    )  # fmt: skip


def value_before(who: Exposed, of: np.ndarray | None = None) -> Check:
    """Whether the arms had spent alike before; on logarithms, which a few large orders do not
    drown."""
    return _balance(
        "before_value" if of is None else "before_value_lately", np.log1p(who.before_value.clip(0)),
        who, of, "had spent {:,.2f} on average before it began", who.before_value,
    )  # fmt: skip


def returning(who: Exposed) -> Check:
    """Whether the arms have as many who had bought before."""
    back = who.returning.astype(float)
    return _balance("returning", back, who, None, "had bought before in {:.1%} of cases", back)


def _balance(
    name: str, values: np.ndarray, who: Exposed, of: np.ndarray | None, said: str,
    raw: np.ndarray,
) -> Check:  # fmt: skip
    """The arm that differs most from the control by the standardised mean of ``values`` (n,)."""
    chosen = who.arm >= 0 if of is None else of
    arm, some = who.arm[chosen], values[chosen]
    one = np.ones(len(arm))
    means = ratios(np.arange(len(arm)), arm, some, one, len(who.arms))
    if not (means.people >= 2).all():
        return Check(name, 0.0, IMBALANCE, True, "There are too few people to tell.")
    apart = [means.at(place).less(means.at(0)) for place in range(1, len(who.arms))]
    spread = np.sqrt(np.mean(means.variance * means.people))
    sizes = [abs(float(one.value[0])) / spread if spread > 0 else 0.0 for one in apart]
    worst = int(np.argmax(sizes))
    p = min(1.0, float(apart[worst].p_value()[0]) * len(apart))
    had = [float(raw[chosen][arm == place].mean()) for place in (worst + 1, 0)]
    return Check(
        name, sizes[worst], IMBALANCE, sizes[worst] <= IMBALANCE or p >= CLEAR,
        f"People in {who.arms[worst + 1]}{_lately(of)} {said.format(had[0])}, those in "
        f"{who.arms[0]} {said.format(had[1])} (standardised difference {sizes[worst]:.2f}, p = "
        f"{p:.2g}).",
        len(arm), p,
    )  # fmt: skip


def _chosen(who: Exposed, of: np.ndarray | None) -> np.ndarray:
    return who.arm[who.arm >= 0] if of is None else who.arm[of]


def _lately(of: np.ndarray | None) -> str:
    return "" if of is None else " who came in the current weeks"
