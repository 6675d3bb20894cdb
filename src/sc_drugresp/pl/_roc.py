"""`pl.roc`: ROC curves of held-out scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import get
from .._core.docs import doc_params
from .._stats.intervals import MACRO
from ..get._names import RANDOM_CELLS, model_name, protocol_name, score_text
from ..get._read import EVALUATION
from ._style import GUIDE_COLOR, MODEL_COLOR, SERIES, legend_below, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ..get._evaluation import Level


@doc_params()
def roc(
    data: AnnData | MuData,
    *,
    level: Level | None = None,
    key_added: str | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw the ROC curves of the first model's held-out scores; every curve stands beside its own AUROC.

    Parameters
    ----------
    {data}
    level
        By `'sample'` or by `'cell'`. `None` draws both for a single data set; with several data sets it draws one curve
        by sample for each. After a random split of cells it draws cells.
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.roc_df`.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> sdr.pl.roc(adata).get_ylabel()
    'true positive rate (sensitive)'
    """
    params = EVALUATION.read(data, key_added, modality)["params"]
    model, protocol = str(params["prob_model"]), str(params["prob_protocol"])
    scores = get.metrics_df(data, "auroc", protocol=protocol, macro=False, key_added=key_added, modality=modality)
    scores = scores[(scores["model"] == model) & (scores["n_labeled"] == 0)].set_index(["level", "dataset"])
    datasets = [name for name in scores.index.unique("dataset") if name != MACRO]
    if level is not None or protocol == RANDOM_CELLS:  # which holds out no sample
        levels = [level or "cell"]
    else:
        levels = ["sample", "cell"] if len(datasets) == 1 else ["sample"]
    ax = new_axes(ax, 4.4, 4.6)
    ax.plot([0, 1], [0, 1], color=GUIDE_COLOR, lw=0.8, ls=":")
    colors = iter((MODEL_COLOR, *SERIES) * (1 + len(datasets)))
    for each in levels:
        curves = get.roc_df(data, level=each, key_added=key_added, modality=modality)
        for dataset, curve in curves.groupby("dataset", sort=False):
            row: Any = scores.loc[(each, str(dataset))]
            what = f"by {each}" if len(datasets) == 1 else str(dataset)
            ax.plot(
                curve["false_positive_rate"],
                curve["true_positive_rate"],
                color=next(colors),
                lw=1.8,
                label=f"{what}: {score_text(row['value'], row['low'], row['high'])}",
            )
    title = "AUROC" if len(datasets) == 1 else f"AUROC by {levels[0]}"
    legend_below(ax, title=title)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set(xlabel="false positive rate", ylabel="true positive rate (sensitive)")
    ax.set_title(f"{model_name(model)}, {protocol_name(protocol, params)}", fontsize="medium")
    return ax
