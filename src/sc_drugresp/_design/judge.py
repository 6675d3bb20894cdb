"""The verdict of a cohort from its table of cells, before anything is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .roles import role_columns
from .split import choose_split

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from .verdict import Verdict


def judge(obs: pd.DataFrame, y: np.ndarray, *, group_key: str | None, dataset_key: str | None = None) -> Verdict:
    """Judge what can be learned about response from these cells.

    Parameters
    ----------
    obs
        `.obs` of the labeled cells.
    y
        Their labels, 1 sensitive and 0 resistant, shape `(n_labeled,)`.
    group_key
        Column that names the sample or patient; `None` looks for the usual names.
    dataset_key
        Column that names the data set; `None` looks for the usual names.

    Returns
    -------
    :class:`~sc_drugresp._design.verdict.Verdict`.
    """
    columns, keys = role_columns(obs, group_key, dataset_key)
    return choose_split(y, columns, names=keys).verdict
