"""`pl.leakage_gap`: what a random split of cells adds to a score."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from .. import get
from .._core.docs import doc_data, doc_key_added, doc_modality, doc_params
from ._style import NAIVE_COLOR, SERIES, new_axes, pretty

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_LABEL_STEP = 0.025


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def leakage_gap(
    data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Join the AUROC of a random split of cells with that of held-out samples, one line per model.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.leakage_gap_df`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> sdr.pl.leakage_gap(adata).get_ylabel()
    'AUROC by cell'
    """
    frame = get.leakage_gap_df(data, key_added=key_added, modality=modality)
    ax = new_axes(ax, 5.4, 4.0)
    ax.axhline(0.5, color="#777777", lw=0.8, ls=":")
    frame = frame.dropna(subset=["pooled"])
    end = frame["leave_group_out"].fillna(frame["pooled"]).to_numpy()
    at = _spread(end)
    models = iter(SERIES * (1 + len(frame) // len(SERIES)))
    for (_, row), value, label_at in zip(frame.iterrows(), end, at):
        color = next(models) if row["kind"] == "model" else NAIVE_COLOR
        strict = np.isfinite(row["leave_group_out"])
        xs, ys = ([0, 1], [row["pooled"], row["leave_group_out"]]) if strict else ([0], [row["pooled"]])
        ax.plot(xs, ys, "-o", color=color, lw=2 if row["kind"] == "model" else 1, ms=5)
        text = f"{pretty(row['model'])} ({row['gap']:+.2f})" if strict else f"{pretty(row['model'])}: no strict score"
        x = 1 if strict else 0
        arrow = {"arrowstyle": "-", "color": color, "lw": 0.4}
        ax.annotate(
            text, (x, value), (x + 0.08, label_at), color=color, fontsize="small", va="center", arrowprops=arrow
        )
    ax.set(xlim=(-0.15, 1.9), xticks=[0, 1], xticklabels=["random cells", "held-out\nsamples"], ylabel="AUROC by cell")
    ax.set_title("leakage gap", fontsize="medium")
    return ax


def _spread(values: np.ndarray) -> np.ndarray:
    """Positions for labels: close to their values, no closer to each other than one step."""
    order = np.argsort(values)
    out = values.astype(float).copy()
    for before, after in itertools.pairwise(order):
        out[after] = max(out[after], out[before] + _LABEL_STEP)
    return out - (out.mean() - values.mean())
