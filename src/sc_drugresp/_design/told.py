"""Columns of `.obs` that a model may be told in words: none that name a sample or give response away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import GROUP_CANDIDATES, RESPONSE, ROLE_CANDIDATES
from .._data.label_words import word_of
from .._data.obs import as_text
from .aliasing import aliasing, nested
from .columns import names_outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

_IDENTITIES = frozenset({*GROUP_CANDIDATES, *ROLE_CANDIDATES["dataset"], *ROLE_CANDIDATES["sample"]})
_ACCESSION = re.compile(
    r"\b(GS[EM]\d{3,}|[SED]RR\d{5,}|SAM[END][AG]?\d{5,}|PRJ[A-Z]{2}\d+|E-[A-Z]{4}-\d+|phs\d{6}|EGA[SDN]\d{6,})",
    re.IGNORECASE,
)
"""Accession numbers of public archives."""


def check_told(
    obs: pd.DataFrame, columns: Iterable[str], *, label_key: str | None = None, group_key: str | None = None
) -> None:
    """Refuse columns that name samples, patients or data sets, or that hold or determine response.

    Parameters
    ----------
    obs
        Table of the cells.
    columns
        Names of the columns to be told.
    label_key, group_key
        The label and the group, where they are known; otherwise those under their usual names are looked at.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A column must not be told; the message says why.
    """
    for name in columns:
        if name not in obs:
            msg = f"Column {name!r} (`metadata`) not found in `.obs`. Available: {sorted(map(str, obs.columns))}."
            raise KeyError(msg)
        reason = _reason(obs, name, label_key, group_key)
        if reason:
            msg = (
                f"Column {name!r} (`metadata`) {reason}; a model that is told this can look the answer up instead of reading "
                "the cell. Leave it out."
            )
            raise ValueError(msg)


def told_texts(obs: pd.DataFrame, columns: Iterable[str]) -> np.ndarray:
    """`Tissue: lung. Age: 61. ` for each cell, shape `(n_cells,)`; values that are missing are left out."""
    out = np.full(len(obs), "", dtype=object)
    for name in columns:
        values = as_text(obs[name])
        title = re.sub(r"[\s_.]+", " ", name).strip().capitalize()
        out += np.array([f"{title}: {value}. " if value else "" for value in values.tolist()], dtype=object)
    return out


def _reason(obs: pd.DataFrame, name: str, label_key: str | None, group_key: str | None) -> str:
    """Why a column must not be told; empty if it may be."""
    if name in (label_key, RESPONSE):
        return "is the label"
    if name == group_key or name.lower() in _IDENTITIES:
        return "names samples, patients or data sets"
    text = as_text(obs[name])
    levels = np.unique(text[text != ""])
    if any(_ACCESSION.search(level) for level in levels.tolist()):
        return "holds accession numbers"
    words = [word_of(level) for level in levels.tolist()]
    if names_outcome(name) or (words and all(words)):
        return "holds response in other words"
    for label in (label_key, RESPONSE):
        if label is not None and label in obs and _determines(text, as_text(obs[label])):
            return f"determines the label {label!r}"
    for key in (group_key, *(column for column in map(str, obs.columns) if column.lower() in _IDENTITIES)):
        if key is not None and key in obs:
            groups = as_text(obs[key])
            if len(np.unique(groups)) > 1 and len(levels) > 1 and nested(text, groups):
                return f"tells {key!r}: each of its values stands in one of them"
    return ""


def _determines(column: np.ndarray, label: np.ndarray) -> bool:
    """Whether every level of a column holds cells of one label, and there are several labels."""
    classes, y = np.unique(label[label != ""], return_inverse=True)
    known = column[label != ""]
    return len(classes) == 2 and aliasing(y, known).determines_label
