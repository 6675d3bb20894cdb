"""`pl.response`: predictions over any embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from .. import get
from .._core.docs import doc_data, doc_key_added, doc_label_key, doc_modality, doc_params
from .._data.modalities import as_adata
from ._style import COLORS, PROBABILITY_CMAP, PROBABILITY_LABEL, new_axes, point_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

PANELS = ("call", "prob", "ood", "label")
_TITLES = {"call": "call", "prob": PROBABILITY_LABEL, "ood": "out of distribution", "label": "label"}


@doc_params(data=doc_data, label_key=doc_label_key, key_added=doc_key_added, modality=doc_modality)
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
        Key of `.obsm` whose first two dimensions are drawn (`'X_umap'` and `'umap'` both work). `None` takes UMAP,
        t-SNE, or the first two dimensions of the embedding that the model used.
    color
        `'call'`, `'prob'`, `'ood'`, `'label'`, or a list of them for one panel each.
    {label_key}
    {key_added}
    size
        Marker area; `None` chooses it by the number of cells.
    {modality}
    ax
        Axes to draw on, for a single panel.

    Returns
    -------
    The axes; a figure for several panels. The numbers are in :func:`~sc_drugresp.get.predictions_df`.

    Raises
    ------
    KeyError
        There are no predictions or no such basis.
    ValueError
        Unknown color, or several panels for one `ax`.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> sdr.tl.embed(adata, "pca")
    >>> ax = sdr.pl.response(adata, "X_sdr_pca")
    >>> ax.get_xlabel()
    'X_sdr_pca 1'
    """
    panels = [color] if isinstance(color, str) else list(color)
    unknown = [panel for panel in panels if panel not in PANELS]
    if unknown or not panels:
        msg = f"`color` must be one or several of {PANELS}, found {unknown or panels}."
        raise ValueError(msg)
    adata = as_adata(data, modality=modality)
    frame = get.predictions_df(adata, label_key=label_key, key_added=key_added)
    key = _basis(adata, basis)
    xy = np.asarray(adata.obsm[key])[:, :2]
    order = np.random.default_rng(0).permutation(len(frame))  # no group is always on top
    marker = point_size(len(frame)) if size is None else size
    if len(panels) == 1:
        return _panel(new_axes(ax), frame.iloc[order], xy[order], panels[0], key, marker)
    if ax is not None:
        msg = f"`ax` takes one panel, found {len(panels)} colors."
        raise ValueError(msg)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.8), layout="constrained")
    for panel, each in zip(panels, axes):
        _panel(new_axes(each), frame.iloc[order], xy[order], panel, key, marker)
    return figure


def _basis(adata: AnnData, basis: str | None) -> str:
    candidates = ["X_umap", "X_tsne"] if basis is None else [basis, f"X_{basis}"]
    if basis is None:
        candidates += [key for key in adata.obsm if np.ndim(adata.obsm[key]) == 2 and adata.obsm[key].shape[1] >= 2]
    for key in candidates:
        if key in adata.obsm:
            if adata.obsm[key].shape[1] < 2:
                msg = f"`.obsm[{key!r}]` has fewer than two dimensions."
                raise ValueError(msg)
            return key
    msg = f"No embedding {basis or 'to draw on'!r} in `.obsm`. Available: {sorted(adata.obsm)}. Try tl.embed or sc.tl.umap."
    raise KeyError(msg)


def _panel(ax: Axes, frame: Any, xy: np.ndarray, panel: str, key: str, size: float) -> Axes:
    many = len(xy) > 5_000
    if panel == "prob":
        points = ax.scatter(
            xy[:, 0],
            xy[:, 1],
            c=frame["prob"],
            cmap=PROBABILITY_CMAP,
            vmin=0,
            vmax=1,
            s=size,
            linewidths=0,
            rasterized=many,
        )
        ax.figure.colorbar(points, ax=ax, label=PROBABILITY_LABEL, shrink=0.7)
    else:
        values = frame[panel].map({True: "yes", False: "no"}) if panel == "ood" else frame[panel].astype(object)
        values = values.where(values.notna(), "missing")
        colors = {"no": COLORS["missing"], "yes": "#222222"} if panel == "ood" else COLORS
        for name, tint in colors.items():
            mask = (values == name).to_numpy()
            if mask.any():
                ax.scatter(
                    xy[mask, 0],
                    xy[mask, 1],
                    c=tint,
                    label=f"{name} ({mask.sum()})",
                    s=size,
                    linewidths=0,
                    rasterized=many,
                )
        ax.legend(frameon=False, fontsize="small", markerscale=max(1.0, (30 / size) ** 0.5), loc="best")
    ax.set(xticks=[], yticks=[], xlabel=f"{key} 1", ylabel=f"{key} 2", title=_TITLES[panel])
    return ax
