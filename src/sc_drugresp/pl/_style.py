"""What all plots share: axes, colors that color-blind readers can tell apart, and intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.transforms import ScaledTranslation

from .._core.keys import COLORS, RESISTANT, SENSITIVE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MODEL_COLOR, NAIVE_COLOR, GUIDE_COLOR = "#222222", "#8A8A8A", "#777777"
# Okabe & Ito (2008), "Color universal design", without the two colors of calls and labels.
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#8A8A8A")
PROBABILITY_LABEL = f"P({SENSITIVE})"
PROBABILITY_CMAP = LinearSegmentedColormap.from_list("response", [COLORS[RESISTANT], "#E8E8E8", COLORS[SENSITIVE]])


def new_axes(ax: Axes | None, width: float = 4.5, height: float = 3.6) -> Axes:
    """The axes given, or new ones of this size in inches."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def guide(ax: Axes, x: float) -> None:
    """A dotted line behind everything, for chance."""
    ax.axvline(x, color=GUIDE_COLOR, lw=0.8, ls=":", zorder=0)


def intervals(ax: Axes, frame: pd.DataFrame, at: np.ndarray, score: str = "value", **style: Any) -> None:
    """Points with their intervals along x; the limits are `low` and `high`, or those of `score`."""
    names = ("low", "high") if score == "value" else (f"{score}_low", f"{score}_high")
    value, low, high = (frame[name].to_numpy(dtype=float) for name in (score, *names))
    error = np.nan_to_num(np.clip([value - low, high - value], 0, None))
    ax.errorbar(value, at, xerr=error, fmt="o", ms=5, lw=1.5, **style)


def name_rows(ax: Axes, names: list[str]) -> None:
    """One labeled row for each name, the first one on top."""
    ax.set(yticks=np.arange(len(names))[::-1], ylim=(-0.6, len(names) - 0.4))
    ax.set_yticklabels(names, fontsize="small")


def row_text(ax: Axes, y: float, text: str) -> None:
    """Text to the right of a row."""
    ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize="small")


def legend_below(ax: Axes, **options: Any) -> None:
    """A legend under the label of the x axis, half an inch below the axes whatever their height."""
    below = ax.transAxes + ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans)
    ax.legend(
        frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, **options
    )
