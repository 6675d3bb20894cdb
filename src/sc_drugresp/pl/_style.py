"""What all plots share: axes, colors that color-blind readers can tell apart, and intervals."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.transforms import ScaledTranslation

from .._core.keys import COLORS, RESISTANT, SENSITIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from matplotlib.axes import Axes

MODEL_COLOR, NAIVE_COLOR, GUIDE_COLOR = "#222222", "#8A8A8A", "#777777"
# Okabe & Ito (2008), "Color universal design", without the two colors of calls and labels.
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#8A8A8A")
PROBABILITY_LABEL = f"P({SENSITIVE})"
LONGEST = 120
Z_LABEL = "z over cell lines (lower is more sensitive)"
PROBABILITY_CMAP = LinearSegmentedColormap.from_list("response", [COLORS[RESISTANT], "#E8E8E8", COLORS[SENSITIVE]])


def short(name: object) -> str:
    """A name in one line that no figure is too small for; only names of more than 120 letters are cut."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def wrap(text: object, letters: int = 44) -> str:
    """A long name in several lines."""
    return textwrap.fill(short(text), letters)


def width_of(names: Iterable[str], *, least: float = 0.8) -> float:
    """Inches that the longest of some small labels needs."""
    return max([least, *(0.085 * max(map(len, name.split("\n"))) for name in names)])


def new_axes(ax: Axes | None, width: float = 4.5, height: float = 3.6) -> Axes:
    """The axes given, or new ones of this size in inches."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def name_rows(ax: Axes, names: list[str]) -> np.ndarray:
    """One labeled row for each name, the first one on top; returns their heights."""
    at = np.arange(len(names))[::-1]
    ax.set(yticks=at, ylim=(-0.6, len(names) - 0.4))
    ax.set_yticklabels(names, fontsize="small", parse_math=False)  # ticks may be older than the plot
    return at


def row_texts(ax: Axes, texts: list[str]) -> None:
    """Texts to the right of the rows, from top to bottom."""
    for y, text in zip(reversed(range(len(texts))), texts):
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize="small")


def model_colors(kinds: Iterable[str]) -> list[str]:
    """Black for models, gray for naive baselines."""
    return [MODEL_COLOR if kind == "model" else NAIVE_COLOR for kind in kinds]


def forest(
    ax: Axes, frame: pd.DataFrame, names: list[str], colors: list[str], chance: float | None = 0.5
) -> np.ndarray:
    """One row for each row of `frame`: its name, and `value` with a line from `low` to `high`; returns their heights."""
    at = name_rows(ax, names)
    ax.hlines(at, frame["low"].fillna(frame["value"]), frame["high"].fillna(frame["value"]), colors=colors, lw=1.5)
    ax.scatter(frame["value"], at, s=26, c=colors, zorder=2)
    if chance is not None:
        ax.axvline(chance, color=GUIDE_COLOR, lw=0.8, ls=":", zorder=0)
    return at


def legend_below(ax: Axes, **options: Any) -> None:
    """A legend under the label of the x axis, half an inch below the axes whatever their height."""
    below = ax.transAxes + ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans)
    ax.legend(
        frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, **options
    )
