"""Cells that were under treatment when they were taken, judged by the words of the metadata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .obs import as_text

if TYPE_CHECKING:
    import pandas as pd

_COLUMN = re.compile(r"condition|treat|time|arm$|visit|phase|biopsy|sample|status|stage|day", re.IGNORECASE)
_UNTREATED = re.compile(
    r"\b(pre|pretreatment|baseline|untreated|vehicle|control|ctrl|ctl|dmso|mock|naive|parental|before"
    r"|(day|week|month|hour|d|t|w|h)\s?0|0\s?(h|hr|hrs|hours?|d|days?))\b",
    re.IGNORECASE,
)
_TREATED = re.compile(
    r"\b(post|posttreatment|on treatment|ontreatment|treated|under treatment|after|relapsed?|residual|mrd|persisters?"
    r"|tolerant|progress(ed|ion)|(day|week|month|hour|d|w)\s?[1-9]\d*|c[1-9]\d?d[1-9]\d*|[1-9]\d*\s?(h|hr|hrs|hours?|days?|weeks?))\b",
    re.IGNORECASE,
)


def treated_cells(obs: pd.DataFrame) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Cells whose metadata say "after" or "under treatment", and the words by column.

    A value that also holds a word of a control (`"vehicle, day 11"`) does not count, and neither does a cell that another
    column calls untreated.

    Parameters
    ----------
    obs
        Columns whose names speak of conditions, treatments, time points or samples are read.

    Returns
    -------
    Mask of shape `(n_cells,)`, and the values that led to it by column.
    """
    treated, untreated = (np.zeros(len(obs), dtype=bool) for _ in range(2))
    words: dict[str, list[str]] = {}
    for name in obs:
        if obs[name].dtype.kind in "biufc" or not _COLUMN.search(str(name)):
            continue
        values, index = np.unique(as_text(obs[name]), return_inverse=True)
        plain = [re.sub(r"[-_,.;:/+]+", " ", value) for value in values.tolist()]
        calm = np.array([bool(_UNTREATED.search(text)) for text in plain])
        told = np.array([bool(_TREATED.search(text)) for text in plain]) & ~calm
        untreated |= calm[index]
        treated |= told[index]
        if told.any():
            words[str(name)] = values[told].tolist()
    return treated & ~untreated, words
