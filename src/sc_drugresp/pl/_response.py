"""`pl.response`: predictions over any embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from .. import get
from .._core.docs import doc_params
from .._core.keys import MISSING, RESPONSE_COLORS, UNCERTAIN
from .._data.modalities import as_adata
from .._embed.slots import latest_embedding, read_rep
from ..get._read import PREDICTION
from ._style import MODEL_COLOR, PROBABILITY_CMAP, PROBABILITY_LABEL, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

_TITLES = {"call": "call", "prob": PROBABILITY_LABEL, "ood": "out of distribution", "label": "label"}
PANELS = tuple(_TITLES)
_MANY_CELLS = 5_000


@doc_params()
def response(
    data: AnnData | MuData,
    basis: str | None = None,
    *,
    color: str | Sequence[str] = "call",
    label_key: str = "response",
    key_added: str | None = None,
    size: float | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes | Figure:
    """Draw predictions over a two-dimensional embedding.

    Parameters
    ----------
    {data}
    basis
        Key of `.obsm` (`'X_umap'` and `'umap'` both work). `None` takes UMAP, then t-SNE, then the embedding that the
        prediction used, then the latest one that :func:`~sc_drugresp.tl.embed` wrote. Of an embedding of more than two
        dimensions, the first two principal components are drawn.
    color
        `'call'`, `'prob'`, `'ood'`, `'label'`, or a list of them for one panel each.
    {label_key}
    {read_key}
    size
        Marker area; `None` chooses it by the number of cells.
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
        Unknown color, several panels for one `ax`, or a basis of one dimension.

    Examples
    --------
    {predicted}
    >>> sdr.tl.embed(adata, "pca")
    >>> ax = sdr.pl.response(adata, "X_sdr_pca")
    >>> ax.get_xlabel()
    'PC 1 of X_sdr_pca'
    """
    panels = [color] if isinstance(color, str) else list(color)
    unknown = [panel for panel in panels if panel not in PANELS]
    if unknown or not panels:
        msg = f"`color` must be one or several of {PANELS}, found {unknown or panels}."
        raise ValueError(msg)
    if ax is not None and len(panels) > 1:
        msg = f"`ax` takes one panel, found {len(panels)} colors."
        raise ValueError(msg)
    frame = get.predictions_df(data, label_key=label_key, key_added=key_added, modality=modality)
    if "label" in panels and "label" not in frame:
        msg = f"Column {label_key!r} (`label_key`) not found in `.obs`, so there is no label to color by."
        raise KeyError(msg)
    key = find_basis(data, basis, key_added=key_added, modality=modality)
    values = read_rep(as_adata(data, modality=modality), key)
    if values.shape[1] < 2:
        msg = f"Embedding {key!r} (`basis`) has shape {values.shape}; at least two dimensions are needed to draw on."
        raise ValueError(msg)
    xy, axis = _two_dimensions(values)
    order = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(xy).all(axis=1)))  # no group always on top
    size = float(np.clip(120_000 / max(len(frame), 1), 1, 40)) if size is None else size  # as scanpy chooses it
    if ax is None and len(panels) > 1:
        figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.8), layout="constrained")
    else:
        axes = [new_axes(ax)]
        figure = axes[0].figure
    for panel, each in zip(panels, axes):
        _panel(new_axes(each), frame[panel].iloc[order], xy[order], size)
        each.set(xticks=[], yticks=[], xlabel=f"{axis} 1 of {key}", ylabel=f"{axis} 2 of {key}")
        each.set_title(_TITLES[panel], fontsize="medium")
    return figure if len(panels) > 1 else axes[0]


def find_basis(
    data: AnnData | MuData, basis: str | None, *, key_added: str | None = None, modality: str = "rna"
) -> str:
    """Key of `.obsm` to draw on.

    Raises
    ------
    KeyError
        There is none.
    """
    adata = as_adata(data, modality=modality)
    if basis is None:
        stored = PREDICTION.find(data, key_added, modality) or {"models": {}}
        used = [str(model.get("use_rep")) for model in stored["models"].values()]
        candidates = ["X_umap", "X_tsne", *used, latest_embedding(adata)]
    else:
        candidates = [basis, f"X_{basis}"]
    key = next((key for key in candidates if key in adata.obsm), None)
    if key is None:
        what = "There is no UMAP and no embedding to draw on" if basis is None else f"Embedding {basis!r} not found"
        msg = (
            f"{what} in `.obsm`. Available: {sorted(adata.obsm)}. Name one with `basis=`, or make one with "
            "sc_drugresp.tl.embed(adata, model) or scanpy.tl.umap(adata)."
        )
        raise KeyError(msg)
    return key


def _two_dimensions(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Two columns as they are, of more the first two principal components; and what to call them."""
    if values.shape[1] == 2:
        return values, "dimension"
    usable = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    mean = usable.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(usable - mean, rowvar=False))
    vectors = vectors[:, [-1, -2]]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), [0, 1]])  # the sign is arbitrary; always choose the same
    return (values - mean) @ vectors, "PC"


def _panel(ax: Axes, values: pd.Series, xy: np.ndarray, size: float) -> None:
    style = {"s": size, "linewidths": 0, "rasterized": len(xy) > _MANY_CELLS}
    if values.name == "prob":
        points = ax.scatter(*xy.T, c=values, cmap=PROBABILITY_CMAP, vmin=0, vmax=1, **style)
        ax.figure.colorbar(points, ax=ax, label=PROBABILITY_LABEL, shrink=0.7)
        return
    if values.name == "ood":
        names, colors = values.map({True: "yes", False: "no"}), {"no": RESPONSE_COLORS[MISSING], "yes": MODEL_COLOR}
    else:
        names, colors = values.astype(object).where(values.notna(), MISSING), RESPONSE_COLORS
    order = np.argsort(~names.isin([MISSING, UNCERTAIN, "no"]).to_numpy(), kind="stable")  # gray below
    ax.scatter(*xy[order].T, c=names.map(colors).to_numpy()[order], **style)
    count = names.value_counts()
    handles = [
        Line2D([], [], color=color, marker="o", ms=6, ls="", label=f"{name} ({count[name]})")
        for name, color in colors.items()
        if name in count
    ]
    ax.legend(handles=handles, frameon=False, fontsize="small", loc="best")
