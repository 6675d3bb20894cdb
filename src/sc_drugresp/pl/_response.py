"""`pl.response`: predictions over any embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import matplotlib.pyplot as plt
import numpy as np

from .. import get
from .._core.arguments import checked
from .._core.checks import check_choice
from .._core.docs import doc_params
from .._core.keys import COLORS, MISSING, UNCERTAIN, DrugRankingKeys
from .._data.modalities import as_adata
from .._embed.slots import latest_embedding, read_rep
from .._stats.distances import finite_rows
from ..get._read import PREDICTION
from ._style import MODEL_COLOR, PROBABILITY_CMAP, PROBABILITY_LABEL, new_axes, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

    from .._core.kinds import Filled, PositiveFloat, SlotName

TITLES = {"call": "call", "prob": PROBABILITY_LABEL, "ood": "out of distribution", "label": "label"}
MANY_CELLS = 5_000
"""Beyond these, points are drawn as pixels in vector graphics."""
MOST_DRAWN = 100_000
"""Cells that are drawn; of more a random choice, which the legend counts."""


@doc_params()
@checked
def response(
    data: AnnData | MuData,
    basis: str | None = None,
    *,
    color: str | Annotated[Sequence[str], Filled()] = "call",
    label_key: str = "response",
    key_added: SlotName | None = None,
    size: PositiveFloat | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes | Figure:
    """Draw predictions over a two-dimensional embedding.

    Parameters
    ----------
    {data}
    basis
        Key of `.obsm` (`'X_umap'` and `'umap'` both work). `None` takes UMAP, then t-SNE, then the embedding that the
        prediction used, then the latest one that :func:`~sc_drugresp.tl.embed` wrote, then whatever is there. Of an
        embedding of more than two dimensions, the first two principal components are drawn.
    color
        `'call'`, `'prob'`, `'ood'`, `'label'`, or a list of them for one panel each.
    {label_key}
    {read_key}
    size
        Marker area; `None` chooses it by the number of cells. Of more than 100,000 cells, so many are drawn, chosen at random.
    {modality}
    ax
        Axes to draw on, for a single panel; `None` makes a figure.

    Returns
    -------
    The axes; a figure for several panels. The numbers are in :func:`~sc_drugresp.get.predictions_df`.

    Raises
    ------
    KeyError
        There are no predictions, no labels to color by, or nothing to draw on.
    ValueError
        Unknown color, or several panels for one `ax`.

    Examples
    --------
    {predicted}
    >>> sdr.tl.embed(adata, "pca")
    >>> ax = sdr.pl.response(adata, "X_sdr_pca")
    >>> ax.get_xlabel()
    'PC 1 of X_sdr_pca'
    """
    from sklearn.decomposition import PCA

    panels = [color] if isinstance(color, str) else list(color)
    for panel in panels:
        check_choice("color", panel, tuple(TITLES))
    if ax is not None and len(panels) > 1:
        msg = f"`ax` takes one panel, found {len(panels)} colors."
        raise ValueError(msg)
    frame = get.predictions_df(data, label_key=label_key, key_added=key_added, modality=modality)
    if "label" in panels and "label" not in frame:
        msg = f"Column {label_key!r} (`label_key`) not found in `.obs`, so there is no label to color by."
        raise KeyError(msg)
    adata = as_adata(data, modality=modality)
    key = _basis(adata, basis, PREDICTION.find(adata, key_added))
    values, axis = read_rep(adata, key), "dimension"
    rows = np.flatnonzero(finite_rows(values))
    rows = np.random.default_rng(0).permutation(rows)[:MOST_DRAWN]
    frame, values = frame.iloc[rows], values[rows]  # in random order, so that no group is always on top
    if values.shape[1] > 2:
        values, axis = PCA(2, random_state=0).fit_transform(values), "PC"
    size = float(np.clip(120_000 / max(len(frame), 1), 1, 40)) if size is None else size  # as scanpy chooses it
    if ax is None:
        n = len(panels)
        figure, grid = plt.subplots(1, n, figsize=(4.6 * n, 3.8), squeeze=False, layout="constrained")
    axes = grid[0] if ax is None else [ax]
    for panel, each in zip(panels, axes):
        _panel(new_axes(each), frame[panel], values, size)
        each.set(xticks=[], yticks=[], xlabel=f"{axis} 1 of {short(key)}", ylabel=f"{axis} 2 of {short(key)}")
        each.set_title(TITLES[panel], fontsize="medium")
    return axes[0] if len(panels) == 1 else figure


def _basis(adata: AnnData, basis: str | None, predictions: dict[str, Any] | None) -> str:
    """Key of `.obsm` to draw on."""
    candidates = [basis, f"X_{basis}"]
    if basis is None:
        used = [str(model.get("use_rep")) for model in (predictions or {"models": {}})["models"].values()]
        scores = {DrugRankingKeys().scores, *(DrugRankingKeys.of(str(name)).scores for name in adata.uns)}
        others = [
            name for name in adata.obsm if name not in scores
        ]  # scores are those of groups: all cells on one spot
        candidates = ["X_umap", "X_tsne", *used, latest_embedding(adata), *others]
    for key in candidates:
        if key in adata.obsm and adata.obsm[key].shape[1] > 1:
            return str(key)
    what = "There is no UMAP and no embedding" if basis is None else f"There is no embedding {basis!r}"
    msg = (
        f"{what} of two dimensions in `.obsm`. Available: {sorted(adata.obsm)}. Name one with `basis=`, or make one with "
        "sc_drugresp.tl.embed(adata, model) or scanpy.tl.umap(adata)."
    )
    raise KeyError(msg)


def _panel(ax: Axes, values: pd.Series, xy: np.ndarray, size: float) -> None:
    style: dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": len(xy) > MANY_CELLS}
    if values.name == "prob":
        points = ax.scatter(xy[:, 0], xy[:, 1], c=values, cmap=PROBABILITY_CMAP, vmin=0, vmax=1, **style)
        ax.figure.colorbar(points, ax=ax, label=PROBABILITY_LABEL, shrink=0.7)
        return
    if values.name == "ood":
        names, colors = values.map({True: "yes", False: "no"}), {"no": COLORS[MISSING], "yes": MODEL_COLOR}
    else:
        names, colors = values.astype(object).where(values.notna(), MISSING), COLORS
    order = np.argsort(~names.isin([MISSING, UNCERTAIN, "no"]).to_numpy(), kind="stable")  # gray below
    ax.scatter(xy[order, 0], xy[order, 1], c=names.map(colors).to_numpy()[order], **style)
    count = names.value_counts()
    for name, color in colors.items():
        if name in count:
            ax.plot([], [], color=color, marker="o", ms=6, ls="", label=f"{name} ({count[name]})")
    ax.legend(frameon=False, fontsize="small", loc="best")
