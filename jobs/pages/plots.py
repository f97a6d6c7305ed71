"""Plots as SVG that stand inside a page and take its colours, light or dark."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

# Drawn in this colour, then told to take the page's.
INK = "#010203"
FIRST, SECOND, LIMIT = "#3584e4", "#e5a50a", "#e01b24"
# Told apart without colours too: by the marks and the strokes.
STYLES = ((FIRST, "o", "-"), (SECOND, "s", "--"), ("#2ec27e", "^", "-."), ("#c061cb", "D", ":"))
LONGEST_NAME = 40
# Inches; wide enough for names, and still to be read where a phone shrinks it to its own width.
WIDTH = 5.6
TICKS = 6  # numbers below a plot, beyond which they run into each other
LEGEND = 45  # letters of all names together, beyond which they stand two a line
# Hours, as a person says them.
SPANS = {
    1 / 60: "1 min", 1 / 6: "10 min", 1.0: "1 hour", 6.0: "6 hours", 24.0: "1 day", 168.0: "1 week",
    672.0: "4 weeks",
}  # fmt: skip


def intervals(
    names: Sequence[str],
    middles: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    *,
    across: str = "",
    limit: tuple[float, str] | None = None,
    marks: tuple[Sequence[float], str] | None = None,
    hours: bool = False,
) -> str:
    """A dot with its interval per name; a ``limit`` as a line across all, a second mark per name.

    ``hours``: the values are above 0 hours, and minutes, days and weeks get equal room.
    """
    figure, axes = _figure(len(names))
    _spans(axes, range(len(names)), (middles, lows, highs), STYLES[0], None)
    if marks is not None:
        axes.plot(marks[0], range(len(names)), "D", color=SECOND, label=marks[1])
    if limit is not None:
        axes.axvline(limit[0], color=LIMIT, linestyle="--", label=limit[1])
    if hours:
        axes.set_xscale("log")
        least, most = axes.get_xlim()
        inside = {place: name for place, name in SPANS.items() if least <= place <= most}
        axes.set_xticks(list(inside), list(inside.values()))
        axes.minorticks_off()
    if marks is not None or limit is not None:
        _legend(figure)
    axes.set_xlabel(across, color=INK)
    return _drawn(figure, axes, names)


def beside(
    names: Sequence[str],
    across: str,
    limit: tuple[float, str] | None = None,
    /,
    **series: tuple[Sequence[float | None], Sequence[float | None], Sequence[float | None]],
) -> str:
    """Dots with intervals of up to four series, one above the other per name; None is left out.

    A ``limit`` is a line across all.
    """
    figure, axes = _figure(2 * len(names))
    for number, ((label, (middles, lows, highs)), style) in enumerate(
        zip(series.items(), STYLES, strict=False)
    ):
        shift = (number - (len(series) - 1) / 2) * 0.3
        known = [n for n, middle in enumerate(middles) if middle is not None]
        middle, low, high = ([values[n] or 0.0 for n in known] for values in (middles, lows, highs))
        _spans(axes, [n + shift for n in known], (middle, low, high), style, label)
    if limit is not None:
        axes.axvline(limit[0], color=LIMIT, linestyle="--", label=limit[1])
    _legend(figure)
    axes.set_xlabel(across, color=INK)
    return _drawn(figure, axes, names)


def _spans(
    axes: Axes,
    places: Sequence[float],
    values: tuple[Sequence[float], Sequence[float], Sequence[float]],
    style: tuple[str, str, str],
    label: str | None,
) -> None:
    middles, below, above = _whiskers(*values)
    axes.errorbar(
        middles, places, xerr=[below, above], fmt=style[1], color=style[0], capsize=3, label=label
    )


def bars(
    names: Sequence[str],
    across: str = "",
    limit: tuple[float, str] | None = None,
    **series: Sequence[float],
) -> str:
    """A bar per name, or two, with a legend where there are two; a ``limit`` as a line."""
    figure, axes = _figure(len(names))
    height = 0.8 / len(series)
    for number, ((label, values), colour) in enumerate(
        zip(series.items(), (FIRST, SECOND), strict=False)
    ):
        shift = (number - (len(series) - 1) / 2) * height
        places = [place + shift for place in range(len(names))]
        axes.barh(places, values, height, color=colour, label=label)
    if limit is not None:
        axes.axvline(limit[0], color=LIMIT, linestyle="--", label=limit[1])
    if len(series) > 1 or limit is not None:
        _legend(figure)
    axes.set_xlabel(across, color=INK)
    return _drawn(figure, axes, names)


def lines(
    places: Sequence[float],
    across: str,
    up: str,
    ticks: Sequence[str] | None = None,
    **series: tuple[Sequence[float | None], Sequence[float | None], Sequence[float | None]],
) -> str:
    """Up to four lines over the same ``places``, each (middles, lows, highs) in a band; None is a
    gap.

    ``ticks`` name the places where their numbers do not.
    """
    figure, axes = _figure(9)
    for (label, (middles, lows, highs)), (colour, mark, stroke) in zip(
        series.items(), STYLES, strict=False
    ):
        axes.plot(places, _gaps(middles), color=colour, marker=mark, linestyle=stroke, label=label)
        axes.fill_between(places, _gaps(lows), _gaps(highs), color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(places, ticks or [f"{place:g}" for place in places])
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    _as_text(axes.legend(frameon=False, labelcolor=INK))
    return _finished(figure, axes)


def curves(
    across: str,
    up: str,
    limits: Sequence[tuple[float, str]] = (),
    marks: Sequence[tuple[float, str]] = (),
    /,
    **series: tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]],
) -> str:
    """Up to four lines, each (places, middles, lows, highs) of its own, in a band.

    ``limits`` are lines along the whole height, ``marks`` up to two others.
    """
    figure, axes = _figure(9)
    for (label, (places, middles, lows, highs)), (colour, _, stroke) in zip(
        series.items(), STYLES, strict=False
    ):
        axes.plot(places, middles, color=colour, linestyle=stroke, label=label)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
    for place, label in limits:
        axes.axvline(place, color=LIMIT, linestyle="--", label=label)
    for (place, label), stroke in zip(marks, (":", "-."), strict=False):
        axes.axvline(place, color=INK, linestyle=stroke, label=label)
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    _legend(figure)
    return _finished(figure, axes)


def reliability(
    across: str,
    up: str,
    factor: float,
    /,
    **series: tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]],
) -> str:
    """What came true over what was foretold, with intervals, beside the diagonal where they agree
    and the two lines where one is ``factor`` times the other.

    Up to four series, each (foretold, came, lows, highs).
    """
    figure, axes = _figure(11)
    end = max(max(values) for parts in series.values() for values in parts)
    axes.plot([0, end], [0, end], color=INK, linewidth=1, label="as foretold")
    axes.plot(
        [0, end], [0, end / factor], color=LIMIT, linestyle="--", label=f"{factor:g} times off"
    )
    axes.plot([0, end / factor], [0, end], color=LIMIT, linestyle="--")
    for (label, (foretold, *values)), style in zip(series.items(), STYLES, strict=False):
        middles, below, above = _whiskers(*values)
        axes.errorbar(
            foretold, middles, yerr=[below, above], fmt=style[1], linestyle=style[2],
            color=style[0], capsize=3, label=label,
        )  # fmt: skip
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    _legend(figure)
    return _finished(figure, axes)


def _whiskers(
    middles: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> tuple[Sequence[float], list[float], list[float]]:
    """The middles and how far their intervals reach to both sides."""
    below = [max(m - low, 0.0) for m, low in zip(middles, lows, strict=True)]
    above = [max(high - m, 0.0) for m, high in zip(middles, highs, strict=True)]
    return middles, below, above


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _figure(rows: int) -> tuple[Figure, Axes]:
    import matplotlib

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts
    matplotlib.use("svg")
    from matplotlib import figure as figures
    from matplotlib.ticker import MaxNLocator

    figure = figures.Figure(figsize=(WIDTH, 0.6 + 0.32 * max(rows, 2)), layout="constrained")
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(TICKS, steps=[1, 2, 5, 10]))
    figure.patch.set_alpha(0.0)
    axes.patch.set_alpha(0.0)
    return figure, axes


def _legend(figure: Figure) -> None:
    """Above the axes, where it hides nothing."""
    names = figure.axes[0].get_legend_handles_labels()[1]
    _as_text(figure.legend(
        loc="outside upper center", ncols=4 if sum(map(len, names)) <= LEGEND else 2,
        frameon=False, labelcolor=INK,
    ))  # fmt: skip


def _as_text(legend: Legend) -> None:
    """Names that hold a dollar are no formulas."""
    for name in legend.get_texts():
        name.set_parse_math(False)


def _drawn(figure: Figure, axes: Axes, names: Sequence[str]) -> str:
    cut = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in names]
    axes.set_yticks(range(len(names)))
    for label in axes.set_yticklabels(cut):
        label.set_parse_math(False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return _finished(figure, axes)


def _finished(figure: Figure, axes: Axes) -> str:
    import matplotlib

    axes.tick_params(colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    page = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "nightjar", "svg.fonttype": "none"}):
        figure.savefig(page, format="svg", metadata={"Date": None, "Creator": None})
    drawing = page.getvalue()
    return drawing[drawing.index("<svg") :].replace(INK, "currentColor")
