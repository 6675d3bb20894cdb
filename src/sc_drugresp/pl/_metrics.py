"""`pl.metrics`: scores of models beside those of naive baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from ..get._names import RANDOM_CELLS, STRICT, metric_name, model_names, p_text, protocol_name, score_texts
from ..get._read import EVALUATION
from ._style import MODEL_COLOR, NAIVE_COLOR, forest, legend_below, model_colors, new_axes, row_texts, short

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName
    from ..get._evaluation import Level

_CHANCE = {"auroc": 0.5, "balanced_accuracy": 0.5, "mcc": 0.0}


@doc_params()
@checked
def metrics(
    data: AnnData | MuData,
    metric: str = "auroc",
    *,
    protocol: str | None = None,
    level: Level | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw one metric of every model and naive baseline (gray), with its 95 % interval over samples.

    The bar behind an AUROC is the range of single pairings of held-out samples, over which it is averaged. p-values are
    adjusted for the number of models (Holm).

    Parameters
    ----------
    {data}
    metric
        `'auroc'`, `'auprc'`, `'f1'`, `'mcc'`, `'balanced_accuracy'`, `'brier'`, ...
    protocol
        Which protocol; `None` takes held-out samples where there are any, otherwise the first protocol.
    level
        `'sample'` scores the mean of each sample, `'cell'` every cell. `None` takes samples where whole samples of both
        classes were held out, otherwise cells; the axis says which. Baselines without a score by sample are left out.
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.metrics_df`.

    Raises
    ------
    {no_evaluation}
    ValueError
        There is no such metric or protocol.

    Examples
    --------
    {evaluated}
    >>> sdr.pl.metrics(adata).get_xlabel()
    'AUROC by sample'
    """
    frame = get.metrics_df(data, key_added=key_added, modality=modality)
    params = EVALUATION.read(data, key_added, modality)["params"]
    protocols = frame["protocol"].unique().tolist()
    if protocol is None:
        protocol = STRICT if STRICT in protocols else protocols[0]
    rows = frame[(frame["protocol"] == protocol) & (frame["metric"] == metric) & (frame["n_labeled"] == 0)]
    if level is None:
        by_sample = rows[(rows["level"] == "sample") & (rows["kind"] == "model")]
        level = "sample" if protocol != RANDOM_CELLS and by_sample["value"].notna().any() else "cell"
    rows = rows[rows["level"] == level]
    if rows.empty:
        msg = (
            f"No {metric!r} (`metric`) by {level} (`level`) under {protocol!r} (`protocol`). Available metrics: {sorted(frame['metric'].unique())}; "
            f"protocols: {protocols}."
        )
        raise ValueError(msg)
    names = model_names(rows["model"])
    ax = new_axes(ax, 6.4, 1.3 + 0.3 * len(rows))
    colors = model_colors(rows["kind"])
    at = forest(ax, rows, [short(names[name]) for name in rows["model"]], colors, _CHANCE.get(metric))
    row_texts(ax, [text + _p(p) for text, p in zip(score_texts(rows, "not defined"), rows["p_adjusted"])])
    if rows["repeat_low"].notna().any():
        ax.hlines(at, rows["repeat_low"], rows["repeat_high"], colors=colors, lw=7, alpha=0.25, zorder=0)
        ax.plot([], [], color=MODEL_COLOR, lw=7, alpha=0.25, label="range of single pairings")
    for color, label in {MODEL_COLOR: "model", NAIVE_COLOR: "naive baseline"}.items():
        if color in colors:
            ax.plot([], [], "o-", color=color, ms=5, label=label)
    legend_below(ax, ncols=3)
    ax.set(xlabel=f"{metric_name(metric)} by {level}")
    ax.set_title(protocol_name(protocol, params), fontsize="medium")
    return ax


def _p(p: float) -> str:
    text = p_text(p)
    return f", p {text if text[0] == '<' else '= ' + text}" if text else ""
