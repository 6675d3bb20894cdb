"""Frames behind the plots of training and of the state control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .._core.arguments import checked
from .._core.docs import doc_params
from ._read import CONTROL, TRAINING

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import SlotName


@doc_params()
@checked
def history_df(data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna") -> pd.DataFrame:
    """Get loss and held-out scores of each epoch of the latest training.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}

    Returns
    -------
    Columns `epoch`, `loss`, `held_out_loss`, `held_out_auroc`; empty for a frozen encoder.

    Raises
    ------
    KeyError
        There is no training of this name.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy()
    >>> model = sdr.tl.train_response(adata, model="pca", group_key="sample")
    >>> len(sdr.get.history_df(adata))
    0
    """
    empty = pd.DataFrame(columns=["epoch", "loss", "held_out_loss", "held_out_auroc"])
    return TRAINING.read(data, key_added, modality).get("history", empty).copy()


@doc_params()
@checked
def state_control_df(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the AUROCs of :func:`~sc_drugresp.tl.state_control`.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}

    Returns
    -------
    Rows `auroc`, `erased`, `pretreatment`, `treated`, `treated_erased`; columns `value`, `low`, `high`, `n_samples`. The
    verdict is in `.attrs['verdict']`.

    Raises
    ------
    KeyError
        There is no control of this name.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=100, timepoints=True)
    >>> sdr.tl.state_control(adata, "timepoint", "pre", model="pca", group_key="patient")
    >>> sdr.get.state_control_df(adata).shape
    (5, 4)
    """
    stored = CONTROL.read(data, key_added, modality)
    frame = stored["table"].copy()
    frame.attrs["verdict"] = str(stored["verdict"])
    return frame
