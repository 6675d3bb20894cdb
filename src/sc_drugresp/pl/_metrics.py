"""`pl.metrics` and `pl.roc`: scores with their floors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from .._core.docs import doc_data, doc_key_added, doc_modality, doc_params
from ._style import ACCENT, MODEL_COLOR, NAIVE_COLOR, SERIES, new_axes, pretty

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ..get._evaluation import Level

_CHANCE = {"auroc": 0.5, "balanced_accuracy": 0.5, "mcc": 0.0}


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def metrics(
    data: AnnData | MuData,
    metric: str = "auroc",
    *,
    protocol: str | None = None,
    level: Level = "cell",
    key_added: str | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw one metric of every model, with its interval over samples; naive rows are gray.

    Parameters
    ----------
    {data}
    metric
        `'auroc'`, `'auprc'`, `'f1'`, `'mcc'`, `'balanced_accuracy'`, `'brier'`, ...
    protocol
        Which protocol; `None` takes the strict one, or the only one.
    level
        By cell or by sample.
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.metrics_df`.

    Raises
    ------
    KeyError
        Nothing was evaluated.
    ValueError
        There is no such metric or protocol.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> sdr.pl.metrics(adata).get_xlabel()
    'AUROC by cell'
    """
    frame = get.metrics_df(data, level=level, key_added=key_added, modality=modality)
    protocols = frame["protocol"].unique().tolist()
    protocol = protocol or ("leave_group_out" if "leave_group_out" in protocols else protocols[0])
    rows = frame[(frame["protocol"] == protocol) & (frame["metric"] == metric) & (frame["n_labeled"] == 0)]
    if rows.empty:
        msg = (
            f"No {metric!r} by {level} under {protocol!r}. Available metrics: {sorted(frame['metric'].unique())}; "
            f"protocols: {protocols}."
        )
        raise ValueError(msg)
    rows = rows.iloc[::-1]
    ax = new_axes(ax, 5.2, 0.9 + 0.3 * len(rows))
    at = np.arange(len(rows))
    for kind, color in (("naive", NAIVE_COLOR), ("model", MODEL_COLOR)):
        mask = (rows["kind"] == kind).to_numpy()
        value, low, high = (rows[name].to_numpy()[mask] for name in ("value", "low", "high"))
        error = np.nan_to_num(np.clip([value - low, high - value], 0, None))
        ax.errorbar(value, at[mask], xerr=error, fmt="o", ms=5, lw=1.5, color=color, label=kind)
    if metric in _CHANCE:
        ax.axvline(_CHANCE[metric], color="#777777", lw=0.8, ls=":")
    ax.set(yticks=at, ylim=(-0.6, len(rows) - 0.4), xlabel=f"{pretty(metric)} by {level}", title=pretty(protocol))
    ax.set_yticklabels([pretty(name) for name in rows["model"]], fontsize="small")
    return ax


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def roc(data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna", ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of the held-out scores, by cell and by sample.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.roc_df`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> sdr.pl.roc(adata).get_ylabel()
    'true positive rate (sensitive)'
    """
    params = get._evaluation.evaluation(data, key_added, modality)["params"]
    frame = get.metrics_df(data, "auroc", key_added=key_added, modality=modality)
    shown = frame[(frame["model"] == str(params["prob_model"])) & (frame["protocol"] == str(params["prob_protocol"]))]
    ax = new_axes(ax, 4.2, 4.0)
    ax.plot([0, 1], [0, 1], color="#777777", lw=0.8, ls=":")
    for level, color in (("cell", SERIES[0]), ("sample", ACCENT)):
        curve = get.roc_df(data, level=level, key_added=key_added, modality=modality)  # type: ignore[arg-type]
        row = shown[(shown["level"] == level) & (shown["n_labeled"] == 0)]
        if curve.empty or row.empty:
            continue
        value, low, high = row.iloc[0][["value", "low", "high"]]
        label = f"by {level}: {value:.2f}" + (f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else "")
        ax.plot(curve["false_positive_rate"], curve["true_positive_rate"], color=color, lw=1.8, label=label)
    ax.legend(frameon=False, fontsize="small", title="AUROC", loc="lower right")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set(xlabel="false positive rate", ylabel="true positive rate (sensitive)")
    ax.set_title(f"{pretty(str(params['prob_model']))}, {pretty(str(params['prob_protocol']))}", fontsize="medium")
    return ax
