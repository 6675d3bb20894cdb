"""`pl.roc`: ROC curves of held-out scores."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from .._stats.intervals import MACRO
from ..get._names import RANDOM_CELLS, model_name, protocol_name, score_text
from ..get._read import EVALUATION
from ._style import GUIDE_COLOR, MODEL_COLOR, SERIES, legend_below, new_axes, short

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName
    from ..get._evaluation import Level


@doc_params()
@checked
def roc(
    data: AnnData | MuData,
    *,
    level: Level | None = None,
    key_added: SlotName | None = None,
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
    several = len(scores.index.unique("dataset").drop(MACRO)) > 1
    default: list[Level] = ["cell"] if protocol == RANDOM_CELLS else ["sample"] if several else ["sample", "cell"]
    ax = new_axes(ax, 4.4, 4.6)
    ax.plot([0, 1], [0, 1], color=GUIDE_COLOR, lw=0.8, ls=":")
    colors = itertools.cycle((MODEL_COLOR, *SERIES))
    for each in [level] if level else default:
        curves = get.roc_df(data, level=each, key_added=key_added, modality=modality)
        for dataset, curve in curves.groupby("dataset", sort=False):
            score = scores.loc[(each, str(dataset)), ["value", "low", "high"]].to_numpy(dtype=float)
            label = f"{short(dataset)}, by {each}" if several else f"by {each}"
            x, y = curve["false_positive_rate"], curve["true_positive_rate"]
            ax.plot(x, y, color=next(colors), lw=1.8, label=f"{label}: {score_text(*score)}")
    legend_below(ax, title="AUROC")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set(xlabel="false positive rate", ylabel="true positive rate (sensitive)")
    ax.set_title(f"{short(model_name(model))}, {protocol_name(protocol, params)}", fontsize="medium")
    return ax
