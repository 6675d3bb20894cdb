"""`pl.samples`: a forest plot of samples or patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import get
from .._core.docs import doc_data, doc_key_added, doc_label_key, doc_modality, doc_params
from .._core.keys import CALL_CLASSES
from .._data.modalities import as_adata
from ._style import COLORS, PROBABILITY_LABEL, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


@doc_params(data=doc_data, label_key=doc_label_key, key_added=doc_key_added, modality=doc_modality)
def samples(
    data: AnnData | MuData,
    *,
    score: Literal["mean", "worst"] = "mean",
    label_key: str | None = "response",
    key_added: str | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw P(sensitive) of each sample with its interval, ordered by score.

    Parameters
    ----------
    {data}
    score
        Mean of the cells, or the worst clone.
    {label_key}
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.samples_df`.

    Raises
    ------
    KeyError
        Samples have not been aggregated yet.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> sdr.tl.aggregate(adata, "patient")
    >>> ax = sdr.pl.samples(adata)
    >>> ax.get_xlabel()
    'P(sensitive)'
    """
    adata = as_adata(data, modality=modality)
    frame = get.samples_df(adata, label_key=label_key, key_added=key_added).sort_values(score, na_position="first")
    ax = new_axes(ax, 5.2, 1.2 + 0.24 * len(frame))
    at = np.arange(len(frame))
    for call in CALL_CLASSES:
        rows = (frame["call"] == call).to_numpy()
        if not rows.any():
            continue
        middle, low, high = (frame[name].to_numpy()[rows] for name in (score, f"{score}_low", f"{score}_high"))
        error = np.clip([middle - low, high - middle], 0, None)
        ax.errorbar(middle, at[rows], xerr=error, fmt="o", ms=5, lw=1.5, color=COLORS[call], label=f"called {call}")
    if "label" in frame:
        for name in ("sensitive", "resistant"):
            rows = (frame["label"] == name).to_numpy()
            ax.scatter(np.full(rows.sum(), 1.04), at[rows], marker="s", s=28, color=COLORS[name], clip_on=False)
        ax.text(1.04, len(frame) - 0.3, "label", ha="center", fontsize="small")
    ax.axvline(0.5, color="#777777", lw=0.8, ls=":")
    ax.set(xlim=(0, 1), yticks=at, xlabel=PROBABILITY_LABEL, ylim=(-0.7, len(frame) - 0.3))
    ax.set_yticklabels([f"{name} (n={n})" for name, n in zip(frame.index, frame["n_cells"])], fontsize="small")
    ax.legend(
        frameon=False,
        fontsize="small",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22 / max(1, len(frame) / 8)),
        ncols=3,
    )
    kinds = sorted(frame["interval"].unique())
    ax.set_title(
        f"{'mean of cells' if score == 'mean' else 'worst clone'}; interval covers {', '.join(kinds)}",
        fontsize="medium",
    )
    return ax
