"""Where the threshold stands, where the costs put it, and which one the log really used.

Net value of a threshold: what its outcomes are worth less what its places cost, at most so many
places a request. Below the least score that was shown nothing was observed; there the reference's
outcomes at these scores stand in, else the score as it comes true above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.diagnosis import clusters
from jobs.diagnosis.definitions import Decision
from jobs.diagnosis.symptoms import Symptom

STEPS = 20  # thresholds looked at, besides those that are set and used
# A threshold hides nearly all below it: so much of what stood there may still be shown.
LEAK = 0.02
PART = 0.05  # of the places must stand below a threshold to tell that it is used
MOSTLY = 0.9  # of what is hidden stands below it, or something else hides places
LOST = 0.10  # of the outcomes that the set threshold would show
LOSS = 0.20  # of the outcomes' value, that another threshold would bring more
SURE = 1e-3
FEWEST = 50.0  # outcomes that the reference must have to say what a threshold cost before


@dataclass(frozen=True)
class Places:
    """Places with a score, of one period: (n,) each; ``shown``: whether the page had them;
    ``mature``: whether ``hit`` is known; ``requests``: how many answers they are of."""

    score: np.ndarray
    hit: np.ndarray
    shown: np.ndarray
    mature: np.ndarray
    group: np.ndarray
    requests: int


@dataclass(frozen=True)
class Costs:
    """By threshold and group (thresholds, groups): places shown and outcomes from it on."""

    thresholds: np.ndarray
    shown: np.ndarray
    hits: np.ndarray
    used: float

    def net(self, decision: Decision) -> np.ndarray:
        """(thresholds, groups) what is left of the value after the costs."""
        return self.hits * decision.value_of_hit - self.shown * decision.cost_of_show


def used(now: Places, before: Places | None) -> float:
    """The least score that is shown, 0 where no threshold is seen to be used.

    Told by what is listed and not shown; where nothing is, by what the reference showed and that
    answers are shorter by it. Scores that merely rose make no answer shorter.
    """
    listed, shown = np.sort(now.score), np.sort(now.score[now.shown])
    if not len(shown):
        return 0.0
    hidden = now.score[~now.shown]
    by_hidden = len(hidden) >= PART * len(listed)
    if not by_hidden and (before is None or not before.shown.any()):
        return 0.0
    base = listed if by_hidden or before is None else np.sort(before.score[before.shown])
    requests = now.requests if by_hidden or before is None else before.requests
    steps = np.unique(np.quantile(base, np.linspace(PART, 1, 200)))
    # Below each step, places a request: those that there are or were, and those that are shown.
    stood = np.searchsorted(base, steps) / max(requests, 1)
    still = np.searchsorted(shown, steps) / max(now.requests, 1)
    found = steps[(stood > 0) & (still <= LEAK * stood)]
    if not len(found):
        return 0.0
    top = float(found.max())
    if by_hidden:
        return top if (hidden < top).mean() >= MOSTLY else 0.0
    assert before is not None
    length = len(shown) / max(now.requests, 1)
    was = int(before.shown.sum()) / max(before.requests, 1)
    cut = float(np.searchsorted(base, top) / len(base))
    return top if length <= was * (1 - cut / 2) else 0.0


def costs(now: Places, before: Places | None, at: float, marks: tuple[float, ...]) -> Costs:
    """What each threshold shows and brings; ``at``: of :func:`used`; ``marks``: further thresholds
    to look at."""
    seen = now.shown & now.mature & (now.score >= at)
    scores = now.score if before is None else np.r_[now.score, before.score]
    steps = np.quantile(scores, np.arange(1, STEPS) / STEPS) if len(scores) else np.zeros(0)
    grid = np.unique(np.round(np.r_[0.0, at, marks, steps], 9))
    shown, hits = _by_cell(now.score[seen], now.hit[seen].astype(float), now.group[seen], grid)
    if at > 0:
        more = _below(now, before, at, seen)
        weight = more[3]
        extra = _by_cell(more[0], more[1] * weight, more[2], grid, weight)
        shown, hits = shown + extra[0], hits + extra[1]
    turned = [np.cumsum(one[::-1], axis=0)[::-1] for one in (shown, hits)]
    return Costs(grid, turned[0], turned[1], at)


def _by_cell(
    score: np.ndarray, hit: np.ndarray, group: np.ndarray, grid: np.ndarray,
    weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    cell = np.searchsorted(grid, score + 1e-9, side="right") - 1
    return (
        clusters.by_group(cell, group, weight, len(grid)),
        clusters.by_group(cell, group, hit, len(grid)),
    )


def _below(
    now: Places, before: Places | None, at: float, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What stands in for places below the least score shown: scores, outcomes (or their
    probability), groups, and how many places each stands for."""
    if before is not None:
        old = before.shown & before.mature & (before.score < at)
        if old.any():
            # Requests of which nothing is shown may not be logged; those above tell how many more
            # or fewer there are.
            above = before.shown & before.mature & (before.score >= at)
            scale = seen.sum() / max(above.sum(), 1)
            return (before.score[old], before.hit[old].astype(float), before.group[old],
                    np.full(old.sum(), scale))  # fmt: skip
    hidden = ~now.shown & now.mature & (now.score < at)
    level = now.hit[seen].sum() / max(now.score[seen].sum(), 1e-12)
    chance = np.minimum(now.score[hidden] * level, 1.0)
    return now.score[hidden], chance, now.group[hidden], np.ones(hidden.sum())


def rows(found: Costs, decision: Decision) -> list[dict[str, object]]:
    """Rows of ``threshold_costs``."""
    net, error = clusters.jackknife(lambda one: one, found.net(decision))
    reach = clusters.reach(0.95) * error
    best = best_of(found, decision)
    set_at = decision.threshold or 0.0
    result: list[dict[str, object]] = []
    for n, threshold in enumerate(found.thresholds):
        shown, hits = float(found.shown[n].sum()), float(found.hits[n].sum())
        result.append({
            "threshold": float(threshold), "shown": round(shown), "hits": hits,
            "value": hits * decision.value_of_hit, "cost": shown * decision.cost_of_show,
            "net": float(net[n]), "low": float(net[n] - reach[n]),
            "high": float(net[n] + reach[n]), "is_set": n == place_of(found, set_at),
            "is_used": n == place_of(found, found.used), "is_best": n == best,
            "extrapolated": bool(threshold < found.used - 1e-9),
        })  # fmt: skip
    return result


def best_of(found: Costs, decision: Decision) -> int:
    """The place of the threshold of most net value, the lowest of equals."""
    return int(np.argmax(np.round(found.net(decision).sum(axis=1), 6)))


def place_of(found: Costs, threshold: float) -> int:
    """The place of a threshold that is among those looked at."""
    return int(np.argmin(np.abs(found.thresholds - threshold)))


def judge(now: Costs, then: Costs | None, decision: Decision) -> list[Symptom]:
    """Symptoms of the threshold; ``then``: the reference's costs, with the threshold it used."""
    other = _used_other(now, then, decision)
    return other or _costly(now, then, decision)


def _used_other(now: Costs, then: Costs | None, decision: Decision) -> list[Symptom]:
    """Whether the log used a higher threshold than is set, and what was not shown by it."""
    set_at = decision.threshold or 0.0
    if now.used <= set_at + 1e-9:
        return []
    meant, cut = place_of(now, set_at), place_of(now, now.used)
    lost, error = clusters.jackknife(
        lambda all_, some: 1 - some / np.maximum(all_, 1e-12), now.hits[[meant]], now.hits[[cut]]
    )
    if lost[0] < LOST or lost[0] - clusters.reach(1 - SURE) * error[0] < LOST / 2:
        return []
    shown = 1 - now.shown[cut].sum() / max(now.shown[meant].sum(), 1.0)
    was = then is not None and then.used >= now.used * 0.9
    before = "as in the weeks before" if was else "which the weeks before did not"
    return [Symptom(
        "threshold", "used", float(lost[0]), LOST, float(lost[0] / LOST),
        int(now.shown[cut].sum()),
        f"Nothing below a score of {now.used:.4g} is shown, {before}; set is {set_at:.4g}. That "
        f"hides {shown:.0%} of the places and {lost[0]:.0%} of the outcomes that would come.",
        warning=was,
    )]  # fmt: skip


def _costly(now: Costs, then: Costs | None, decision: Decision) -> list[Symptom]:
    """Whether another threshold would bring clearly more than the one that is set."""
    meant, best = place_of(now, decision.threshold or 0.0), best_of(now, decision)
    gain, error = clusters.jackknife(
        lambda one: one, now.net(decision)[[best]] - now.net(decision)[[meant]]
    )
    part = _relative(now, decision, best, meant)
    # The best of many is the best partly by luck.
    reach = clusters.reach(1 - SURE, len(now.thresholds))
    if best == meant or part < LOSS or gain[0] - reach * error[0] <= 0:
        return []
    # Nobody chose to show all; where that always cost so much, or no past says otherwise, it
    # explains no change.
    old = None
    if then is not None and then.hits[0].sum() >= FEWEST:
        low, high = place_of(then, now.thresholds[meant]), place_of(then, now.thresholds[best])
        old = _relative(then, decision, high, low)
    warning = decision.threshold is None and (old is None or old >= part / 2)
    value = decision.value_of_hit * now.hits[[best, meant]].sum(axis=1).max()
    return [Symptom(
        "threshold", "set", part, LOSS, part / LOSS, int(now.shown[meant].sum()),
        f"The threshold that is set, {now.thresholds[meant]:.4g}, nets "
        f"{now.net(decision)[meant].sum():,.1f}; {now.thresholds[best]:.4g} would net "
        f"{now.net(decision)[best].sum():,.1f}, of outcomes worth {value:,.1f}.",
        float(clusters.p_values(gain / np.maximum(error, 1e-12), sides=1)[0]), warning,
    )]  # fmt: skip


def _relative(found: Costs, decision: Decision, best: int, meant: int) -> float:
    """What the best nets more, over the value of the outcomes of the one that has more of them."""
    net = found.net(decision).sum(axis=1)
    value = decision.value_of_hit * max(found.hits[best].sum(), found.hits[meant].sum())
    return float((net[best] - net[meant]) / value) if value > 0 else 0.0


def ignored(now: Places, before: Places | None, set_at: float) -> list[Symptom]:
    """Whether places below the threshold that is set are shown all the same."""
    part, was = (_shown_below(one, set_at) for one in (now, before))
    if set_at <= 0 or part < LOST:
        return []
    return [Symptom(
        "threshold", "ignored", part, LOST, part / LOST, int(now.shown.sum()),
        f"{part:.0%} of the places shown score below {set_at:.4g}, the threshold that is set, "
        f"against {was:.0%} in the weeks before: serving does not apply it.",
        warning=was >= part / 2,
    )]  # fmt: skip


def _shown_below(found: Places | None, set_at: float) -> float:
    """The share of places shown that score below."""
    if found is None or not found.shown.any():
        return 0.0
    return float((found.score[found.shown] < set_at - 1e-9).mean())
