"""`pl.history`: a training run, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from ._style import MODEL_COLOR, SERIES, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName


@doc_params()
@checked
def history(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the loss of each epoch of the latest training, and the held-out loss and AUROC.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.history_df`.

    Raises
    ------
    KeyError
        There is no training of this name.
    ValueError
        The latest training was of a frozen encoder, which has no epochs.

    Examples
    --------
    >>> import pandas as pd, sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    >>> row = dict(epoch=1, loss=0.7, held_out_loss=0.7, held_out_auroc=0.5)
    >>> adata.uns["train_response"] = dict(params={}, metrics={}, history=pd.DataFrame([row]))
    >>> sdr.pl.history(adata).get_xlabel()
    'epoch'
    """
    frame = get.history_df(data, key_added=key_added, modality=modality)
    if frame.empty:
        msg = "The latest training was of a frozen encoder, which has no epochs to draw."
        raise ValueError(msg)
    ax = new_axes(ax, 4.8, 3.4)
    ax.plot(frame["epoch"], frame["loss"], "o-", color=MODEL_COLOR, label="training loss")
    if "held_out_loss" in frame:
        ax.plot(frame["epoch"], frame["held_out_loss"], "o-", color=SERIES[0], label="held-out loss")
        ax.plot(frame["epoch"], frame["held_out_auroc"], "s--", color=SERIES[1], label="held-out AUROC")
    ax.set(xlabel="epoch", ylabel="loss, AUROC", ylim=(0, None), xticks=frame["epoch"])
    ax.legend(frameon=False, fontsize="small")
    return ax
