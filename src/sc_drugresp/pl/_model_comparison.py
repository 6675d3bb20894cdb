"""`pl.model_comparison`: ranks of models over data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._stats.intervals import MACRO
from ..get._names import STRICT, model_names, p_text
from ..get._read import EVALUATION
from ._style import MODEL_COLOR, name_rows, new_axes, row_texts, short

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName


@doc_params()
@checked
def model_comparison(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the mean rank of each model over data sets; models joined by a bar do not differ significantly.

    The bar spans the critical difference of Nemenyi's test (Demšar, J Mach Learn Res 2006). On the right, the p-value of
    each model's mean AUROC against chance, adjusted for the number of models (Holm).

    Parameters
    ----------
    {data}
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in `.uns['evaluation']['comparison']`.

    Raises
    ------
    {no_evaluation}
    ValueError
        The evaluation has fewer than two models or two data sets.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=16, cells_per_sample=15, n_genes=100)
    >>> adata.obs["dataset"] = adata.obs["sample"].cat.codes.mod(2).astype(str)
    >>> options = sdr.tl.EvaluationOptions(baselines=False, n_boot=20)
    >>> sdr.tl.evaluate(adata, model=["pca", "hvg"], split="group", group_key="sample", options=options)
    >>> sdr.pl.model_comparison(adata).get_xlabel()
    'mean rank of AUROC by cell (1 is best)'
    """
    evaluation = EVALUATION.read(data, key_added, modality)
    result = evaluation.get("comparison")
    if not result:
        msg = "A comparison needs at least two models and two data sets in one evaluation (see `dataset_key`)."
        raise ValueError(msg)
    metrics = evaluation["metrics"]
    strict = metrics["protocol"].eq(STRICT) & metrics["metric"].eq("auroc") & metrics["level"].eq("cell")
    p_values = metrics[strict & metrics["dataset"].eq(MACRO)].set_index("model")["p_adjusted"]
    table = result["ranks"].set_index("model")["rank"].sort_values()
    names, ranks = model_names(table.index), table.to_numpy()
    width = float(result["critical_difference"])
    bars = _same(ranks, width)
    ax = new_axes(ax, 5.4, 1.2 + 0.3 * len(ranks) + 0.15 * len(bars))
    at = np.arange(len(ranks))[::-1]
    ax.hlines(at, 1, ranks, color="#DDDDDD", lw=1)
    ax.plot(ranks, at, "o", color=MODEL_COLOR, ms=7)
    name_rows(ax, [short(names[name]) for name in table.index])
    texts = [p_text(float(p_values.get(name, np.nan))) for name in table.index]
    row_texts(ax, [f"p {text if text[0] == '<' else '= ' + text}" if text else "" for text in texts])
    for i, (first, last) in enumerate(bars):
        ax.plot(ranks[[first, last]], [-0.7 - 0.35 * i] * 2, color=MODEL_COLOR, lw=3, solid_capstyle="round")
    ax.set(xlim=(0.8, len(ranks) + 0.2), xlabel="mean rank of AUROC by cell (1 is best)")
    ax.set_ylim(-0.9 - 0.35 * len(bars), len(ranks) - 0.4)
    p = p_text(float(result["friedman_p"]))
    title = f"{result['n_datasets']} data sets; bars: no significant difference (CD {width:.2f})"
    ax.set_title(title + (f"\nFriedman test, p {p if p[0] == '<' else '= ' + p}" if p else ""), fontsize="medium")
    return ax


def _same(ranks: np.ndarray, width: float) -> list[tuple[int, int]]:
    """First and last index of every widest run of sorted ranks within the critical difference."""
    last = np.searchsorted(ranks, ranks + width, side="right") - 1 if np.isfinite(width) else np.arange(len(ranks))
    return [(i, int(end)) for i, end in enumerate(last) if end > i and (i == 0 or last[i - 1] < end)]
