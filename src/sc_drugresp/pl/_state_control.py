"""`pl.state_control`: what is left of a score without the treatment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from ..get._names import score_texts
from ._style import MODEL_COLOR, NAIVE_COLOR, forest, new_axes, row_texts

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName

_NAMES = {
    "auroc": "response, all cells",
    "erased": "response, treatment erased",
    "pretreatment": "response, before treatment only",
    "treated": "treatment, by the response score",
    "treated_erased": "treatment, after erasure",
}


@doc_params()
@checked
def state_control(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the AUROC for the response as it is, with the treatment erased, and before treatment.

    The gray rows are the AUROC for telling treated from untreated cells.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.state_control_df`.

    Raises
    ------
    KeyError
        There is no control of this name.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=100, timepoints=True)
    >>> sdr.tl.state_control(adata, "timepoint", "pre", model="pca", group_key="patient")
    >>> sdr.pl.state_control(adata).get_xlabel()
    'AUROC by cell'
    """
    frame = get.state_control_df(data, key_added=key_added, modality=modality)
    verdict = frame.attrs["verdict"]
    frame = frame.reindex(list(_NAMES))
    ax = new_axes(ax, 6.4, 2.6)
    colors = [NAIVE_COLOR if name.startswith("treated") else MODEL_COLOR for name in _NAMES]
    forest(ax, frame, list(_NAMES.values()), colors)
    row_texts(ax, score_texts(frame, "too few samples"))
    ax.set(xlim=(0, 1), xlabel="AUROC by cell")
    ax.set_title(f"verdict: {verdict}", fontsize="medium", loc="left")
    return ax
