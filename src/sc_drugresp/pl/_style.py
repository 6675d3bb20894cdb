"""What all plots share: fixed colors that color-blind readers can tell apart, axes, and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from .._core.keys import RESISTANT, SENSITIVE, UNCERTAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito (2008), "Color universal design".
COLORS = {SENSITIVE: "#0072B2", RESISTANT: "#D55E00", UNCERTAIN: "#BBBBBB", "missing": "#EEEEEE"}
MODEL_COLOR, NAIVE_COLOR, ACCENT = "#222222", "#9A9A9A", "#009E73"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#222222")
PROBABILITY_LABEL = f"P({SENSITIVE})"
PROBABILITY_CMAP = LinearSegmentedColormap.from_list("response", [COLORS[RESISTANT], "#E8E8E8", COLORS[SENSITIVE]])


def new_axes(ax: Axes | None, width: float = 4.5, height: float = 3.6) -> Axes:
    """The axes given, or new ones of this size in inches."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def point_size(n: int) -> float:
    """Marker area for `n` cells, as scanpy chooses it."""
    return float(np.clip(120_000 / max(n, 1), 1, 40))


def percent_axis(ax: Axes, axis: str = "y") -> None:
    """Label an axis in percent."""
    from matplotlib.ticker import PercentFormatter

    (ax.yaxis if axis == "y" else ax.xaxis).set_major_formatter(PercentFormatter(1.0, decimals=0))


def pretty(name: str) -> str:
    """Name of a metric or model for a label."""
    special = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "mcc": "MCC", "ece": "ECE", "brier": "Brier score"}
    return special.get(name, name.replace("_", " "))
