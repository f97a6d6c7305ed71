"""Plots as SVG that stand inside a page and take its colours, light or dark."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn in this colour, then told to take the page's.
INK = "#010203"
FIRST, SECOND = "#3584e4", "#e5a50a"
# Told apart without colours too: by the marks and the strokes.
STYLES = ((FIRST, "o", "-"), (SECOND, "s", "--"), ("#2ec27e", "^", "-."), ("#c061cb", "D", ":"))
LONGEST_NAME = 40


def intervals(
    names: Sequence[str], middles: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> str:
    """A dot with its interval per name."""
    figure, axes = _figure(len(names))
    places = range(len(names))
    below = [max(m - low, 0.0) for m, low in zip(middles, lows, strict=True)]
    above = [max(high - m, 0.0) for m, high in zip(middles, highs, strict=True)]
    axes.errorbar(middles, places, xerr=[below, above], fmt="o", color=FIRST, capsize=3)
    return _drawn(figure, axes, names)


def bars(names: Sequence[str], **series: Sequence[float]) -> str:
    """A bar per name, or two, with a legend where there are two."""
    figure, axes = _figure(len(names))
    height = 0.8 / len(series)
    for number, ((label, values), colour) in enumerate(
        zip(series.items(), (FIRST, SECOND), strict=False)
    ):
        shift = (number - (len(series) - 1) / 2) * height
        places = [place + shift for place in range(len(names))]
        axes.barh(places, values, height, color=colour, label=label)
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    return _drawn(figure, axes, names)


def lines(
    places: Sequence[float],
    across: str,
    up: str,
    **series: tuple[Sequence[float], Sequence[float], Sequence[float]],
) -> str:
    """Up to four lines over the same ``places``, each (middles, lows, highs) in a band."""
    figure, axes = _figure(9)
    for (label, (middles, lows, highs)), (colour, mark, stroke) in zip(
        series.items(), STYLES, strict=False
    ):
        axes.plot(places, middles, color=colour, marker=mark, linestyle=stroke, label=label)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    return _finished(figure, axes)


def _figure(rows: int) -> tuple[Figure, Axes]:
    import matplotlib

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts
    matplotlib.use("svg")
    from matplotlib import figure as figures

    figure = figures.Figure(figsize=(7.5, 0.6 + 0.32 * max(rows, 2)), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_alpha(0.0)
    axes.patch.set_alpha(0.0)
    return figure, axes


def _drawn(figure: Figure, axes: Axes, names: Sequence[str]) -> str:
    cut = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in names]
    axes.set_yticks(range(len(names)))
    for label in axes.set_yticklabels(cut):
        label.set_parse_math(False)
    axes.margins(y=0.01)
    axes.invert_yaxis()
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
